"""Streams of a node: the last delivered offset of each room with history that has sessions here.

A message of a stream carries its offset, and the node delivers the offsets in order. It drops a
message that it has delivered before. After a gap it reads the missing messages from the database.
Meanwhile it drops new messages of this room, because the database has them too. So only this room
waits, and the reader of the node's channel goes on.

The node keeps the latest messages of each stream, encoded for its sessions, in a *tail* of bounded
size. Sessions that reconnect with a position get their messages from the tail. A room costs one
query, for any number of such sessions.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection
from typing import Protocol

from django.db import Error as DatabaseError

from imgo_site.batching import BatchLoader
from imgo_site.conf import conf
from imgo_site.errors import Unavailable
from offline import streams, tombstones
from offline.streams import KeptMessage, StreamPage, StreamState
from offline.tombstones import TailRange
from push.bus.background_tasks import Background
from push.bus.group_names import room_group
from push.metrics import definitions as metrics
from push.node.coalescer import Coalescer, EventIdWriter, write_to_all
from push.node.kept_messages import cost_of, outgoing, tombstone_of
from push.node.room_stream import RoomStream, gap_body
from push.node.stream_runs import Runs
from push.session.outgoing import Notice, OutgoingMessage
from push.session.session import Session, Written
from push.wire import Op

logger = logging.getLogger(__name__)

PAGE = 500  # messages of one query and room
RETRY_INTERVAL = 1.0  # seconds until a failed query is repeated
FULL_INTERVAL = 0.05  # seconds until a group that was busy is written to again
WRITTEN_INTERVAL = 0.005  # seconds between two looks whether a group's messages are written
LEFT_MAX = 10_000  # rooms that all sessions have left, of which the last offset is remembered
MADE_MAX = 100  # streams that one key may make by joining their rooms, within MADE_WINDOW
MADE_WINDOW = 60.0  # seconds
TAIL_MAX = 1_000_000  # bytes of one stream's tail

# get(room) → the stream's state; None if the room has no stream yet.
stream_states: BatchLoader[str, StreamState] = BatchLoader(streams.find_states)
# get(room) → the same, of a stream that is made if there is none.
new_streams: BatchLoader[str, StreamState] = BatchLoader(streams.read_states)
# get(page) → its messages.
stream_pages: BatchLoader[StreamPage, list[KeptMessage]] = BatchLoader(streams.read_pages)
# get(range) → the offsets of its tombstones.
tombstone_offsets: BatchLoader[TailRange, set[int]] = BatchLoader(tombstones.read_offsets)


class Hub(Protocol):
    """The parts of a hub that its streams use."""

    groups: dict[str, set[Session]]
    coalescers: dict[str, Coalescer]
    background: Background
    joiners: Counter[str]
    now: Callable[[], float]
    written: Written

    @property
    def event_ids(self) -> EventIdWriter:
        """Return the writer of the ids of events."""

    def write(self, group: str, message: OutgoingMessage) -> None:
        """Write a message to all sessions of a group, unless the group is too busy."""

    def count_drop(self, reason: str) -> None:
        """Count a message that was not delivered."""


class Streams:
    """All streams of one node."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.runs = Runs()
        self._by_group: dict[str, RoomStream] = {}
        self._filling: dict[str, asyncio.Future[None]] = {}
        # By group: epoch and last offset of streams that were forgotten, the latest at the end.
        self._left: dict[str, tuple[str, int]] = {}
        self._size = 0  # bytes of all tails
        self._made: Counter[str] = Counter()  # streams made by each key since `_made_since`
        self._made_since = 0.0  # monotonic seconds

    def __len__(self) -> int:
        """Return the number of streams."""
        return len(self._by_group)

    @property
    def size(self) -> int:
        """Return the bytes of all tails."""
        return self._size

    # Messages from the layer

    def arrived(self, message: OutgoingMessage, group: str, epoch: str) -> None:
        """Deliver a message, unless it was delivered or others are missing before it."""
        stream = self._by_group.get(group)
        if stream is None:
            if group not in self._hub.groups and group not in self._hub.joiners:
                return
            left_epoch, left_at = self._left.get(group, ("", 0))
            if left_epoch == epoch and message.offset <= left_at:
                return  # a session that has left and come back may have had it
            stream = self._add(RoomStream(message.room, epoch, message.offset - 1))
        if epoch != stream.epoch:
            self._begin_reading(stream)  # finds out which of the two is the present one
            return
        stream.seen = max(stream.seen, message.offset)
        if stream.reading is not None or message.offset <= stream.last:
            return
        if message.offset > stream.last + 1 or self._is_full(stream):
            self._begin_reading(stream)
        else:
            self._deliver(stream, message)

    def _add(self, stream: RoomStream) -> RoomStream:
        self._by_group[stream.group] = stream
        self._left.pop(stream.group, None)
        return stream

    def _is_full(self, stream: RoomStream) -> bool:
        coalescer = self._hub.coalescers.get(stream.group)
        return coalescer is not None and coalescer.is_full

    def _deliver(self, stream: RoomStream, message: OutgoingMessage) -> None:
        stream.last = message.offset
        if message.collapse_key:
            self._erase(stream, lambda kept: kept.collapse_key == message.collapse_key)
        self._keep(stream, message)
        if not message.is_tombstone:
            self._hub.write(stream.group, message)

    def retracted(self, group: str, ids: Collection[int]) -> None:
        """Turn cancelled messages of a room's tail into tombstones."""
        if stream := self._by_group.get(group):
            self._erase(stream, lambda kept: kept.id in ids)

    def _erase(self, stream: RoomStream, is_gone: Callable[[OutgoingMessage], bool]) -> None:
        """Turn messages of the tail into tombstones: they were replaced or cancelled."""
        for place, kept in enumerate(stream.tail):
            if is_gone(kept) and not kept.is_tombstone:
                self.runs.clear()
                stream.tail[place] = tombstone = tombstone_of(kept)
                self._resize(stream, cost_of(tombstone) - cost_of(kept))

    def _keep(self, stream: RoomStream, message: OutgoingMessage) -> None:
        """Append a message to the tail."""
        stream.tail.append(message)
        stream.has_collapse_keys |= bool(message.collapse_key)
        self._resize(stream, cost_of(message))
        while stream.size > TAIL_MAX:
            self._resize(stream, -cost_of(stream.tail.popleft()))
        while self._size > conf.STREAM_TAILS:
            self._drop_a_tail(stream)

    def _resize(self, stream: RoomStream, by: int) -> None:
        stream.size += by
        self._size += by

    def _drop_a_tail(self, besides: RoomStream) -> None:
        """Drop the tail of another stream, by turns; if no other has one, that of `besides`."""
        others = (other for other in self._by_group.values() if other.size and other is not besides)
        stream = next(others, besides)
        self._clear(stream)
        self._by_group[stream.group] = self._by_group.pop(stream.group)

    def _clear(self, stream: RoomStream) -> None:
        self.runs.clear()
        stream.tail.clear()
        stream.has_collapse_keys = False
        self._resize(stream, -stream.size)

    # Missing messages

    def _begin_reading(self, stream: RoomStream) -> None:
        stream.must_read_again = True
        if stream.reading is None:
            stream.reading = self._hub.background.run(self._read_on(stream))

    async def _read_on(self, stream: RoomStream) -> None:
        """Read missing messages until the stream has all that are stored and all that arrived."""
        try:
            while self._by_group.get(stream.group) is stream:
                try:
                    if await self._read_once(stream):
                        return
                except DatabaseError as error:
                    logger.warning("could not read messages of a room, retrying: %s", error)
                    await asyncio.sleep(RETRY_INTERVAL)
        finally:
            stream.reading = None

    async def _read_once(self, stream: RoomStream) -> bool:
        """Read and deliver the next messages; return whether nothing is missing any more."""
        stream.must_read_again = False
        state = await new_streams.get(stream.room)
        assert state is not None
        if state.epoch != stream.epoch:
            await self._report_gap(stream, state.top, state.epoch)
        while stream.last < state.top and self._by_group.get(stream.group) is stream:
            page = await stream_pages.get(StreamPage(stream.room, stream.last, PAGE))
            for kept in page or ():
                await self._until_writable(stream)
                if kept.offset > stream.last + 1:
                    await self._report_gap(stream, kept.offset - 1)
                if self._by_group.get(stream.group) is not stream:
                    return True
                if kept.offset > stream.last:
                    message = outgoing(stream.room, stream.epoch, kept, self._hub.now())
                    self._deliver(stream, message)
            if not page:
                await self._report_gap(stream, state.top)  # what was missing is not kept any more
        return stream.seen <= stream.last and not stream.must_read_again

    async def _report_gap(self, stream: RoomStream, offset: int, epoch: str = "") -> None:
        """Send the room's sessions op 29: no message up to `offset` follows. Continue above it.

        Earlier messages are written first. `epoch`: the new one; "" if the stream keeps its own.
        """
        await self._until_written(stream)
        if self._by_group.get(stream.group) is not stream:
            return
        metrics.STREAM_GAPS.inc()
        stream.last = offset
        stream.seen = offset if epoch else max(stream.seen, offset)
        stream.epoch = epoch or stream.epoch
        self._clear(stream)
        notice = Notice(Op.STREAM_GAP, gap_body(stream.room, stream.epoch, offset), stream.room)
        sessions = [session for session in self._hub.groups.get(stream.group, ()) if session.names]
        write_to_all(sessions, notice, self._hub.written)
        for session in sessions:
            self._hub.event_ids.moved(session)

    async def _until_written(self, stream: RoomStream) -> None:
        """Wait until the coalescer has written the stream's messages; no more come meanwhile."""
        while (  # noqa: ASYNC110 - the coalescer has no event for this
            self._by_group.get(stream.group) is stream
            and (coalescer := self._hub.coalescers.get(stream.group)) is not None
            and coalescer.holds_offsets
        ):
            await asyncio.sleep(WRITTEN_INTERVAL)

    async def _until_writable(self, stream: RoomStream) -> None:
        while self._is_full(stream):  # noqa: ASYNC110 - the coalescer has no event for this
            await asyncio.sleep(FULL_INTERVAL)

    async def catch_up(self, room: str, key: str) -> tuple[RoomStream, StreamState]:
        """Bring the node's stream of a room up to what is stored; return both.

        The node must be in the room's group of the layer, and a caller counts as a joiner of the
        hub until it has entered the group. `key`: the subscriber key that joins.

        Raises `Unavailable` if the key has made too many streams; what the database raises.
        """
        group = room_group(room)
        while True:
            state = await stream_states.get(room) or await self._make(room, key)
            stream = self._by_group.get(group)
            if stream is None:
                stream = self._add(RoomStream(room, state.epoch, state.top))
            elif stream.epoch != state.epoch or stream.last < state.top:
                self._begin_reading(stream)
            if stream.reading is not None:
                await asyncio.wait([stream.reading])
            await self._erase_replaced(stream)
            if self._by_group.get(group) is stream and stream.epoch == state.epoch:
                return stream, state

    async def _erase_replaced(self, stream: RoomStream) -> None:
        """Turn messages of the tail into tombstones that are some in the database.

        A push that is scheduled, that the room does not keep, or that was cancelled replaces older
        ones, too, and the node may get no message of it.
        """
        if not stream.has_collapse_keys:
            return
        epoch = stream.epoch
        erased_offsets = await tombstone_offsets.get(TailRange(stream.room, stream.tail_start))
        if erased_offsets and stream.epoch == epoch:  # offsets of another epoch are other messages
            self._erase(stream, lambda kept: kept.offset in erased_offsets)

    async def _make(self, room: str, key: str) -> StreamState:
        now = time.monotonic()
        if now - self._made_since > MADE_WINDOW:
            self._made.clear()
            self._made_since = now
        self._made[key] += 1
        if self._made[key] > MADE_MAX:
            raise Unavailable("This key has joined too many new rooms with history; wait a minute.")
        state = await new_streams.get(room)
        assert state is not None
        return state

    async def check(self) -> None:
        """Deliver stored messages that have not arrived, in all streams.

        Raises what the database raises.
        """
        by_room = {stream.room: stream for stream in self._by_group.values()}
        for room, state in (await self._states(list(by_room))).items():
            stream = by_room[room]
            if state.epoch != stream.epoch or state.top > stream.last:
                self._begin_reading(stream)

    @staticmethod
    async def _states(rooms: list[str]) -> dict[str, StreamState]:
        states = await asyncio.gather(*map(stream_states.get, rooms))
        return {state.room: state for state in states if state is not None}

    def layer_regained(self) -> None:
        """Read the messages that were published while the layer's connection was lost."""
        for stream in self._by_group.values():
            self._begin_reading(stream)

    # The tails, for sessions that join

    async def fill(self, stream: RoomStream) -> None:
        """Read the latest messages into a stream's tail, once for all concurrent callers."""
        filling = self._filling.get(stream.group)
        if filling is None:
            filling = asyncio.ensure_future(self._fill(stream))
            self._filling[stream.group] = filling
            filling.add_done_callback(lambda _: self._filling.pop(stream.group, None))
        await asyncio.shield(filling)

    async def _fill(self, stream: RoomStream) -> None:
        epoch, last = stream.epoch, stream.last
        page = await stream_pages.get(StreamPage(stream.room, max(0, last - PAGE), PAGE))
        if stream.epoch != epoch or self._by_group.get(stream.group) is not stream:
            return
        start = stream.tail_start
        older = [kept for kept in page or () if kept.offset < start]
        for kept in reversed(older):
            if kept.offset != stream.tail_start - 1 or stream.size > TAIL_MAX:
                break
            message = outgoing(stream.room, epoch, kept, self._hub.now())
            stream.tail.appendleft(message)
            stream.has_collapse_keys |= bool(message.collapse_key)
            self._resize(stream, cost_of(message))

    # The end

    def forget(self, group: str) -> None:
        """Forget a stream whose room has no session here, but for its last offset."""
        stream = self._by_group.pop(group, None)
        if stream is not None:
            self._clear(stream)
            self._left[group] = (stream.epoch, stream.last)
            if len(self._left) > LEFT_MAX:
                del self._left[next(iter(self._left))]

    def of(self, group: str) -> RoomStream | None:
        """Return the stream of a room's group; None if the room has none here."""
        return self._by_group.get(group)
