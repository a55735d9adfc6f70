"""Joining of rooms with history: recovery from a position, or a rewind, and then live messages.

A session that joins is not in the room's group at first. It gets the missed messages, from the
node's tail or from the database, until it has all messages that were written to the group. In the
same turn of the event loop it enters the group. So no message is lost between the missed and the
live ones, and no live message is held back for the session.

Recovery is all or nothing. If a missed message has been deleted before it is read, the session gets
op 29 and continues with live messages.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager

from accounts.auth_body import RoomRequest
from imgo_site.conf import conf
from imgo_site.errors import Unavailable
from imgo_site.room_policies import policy_of
from offline.streams import StreamPage, StreamState
from push.bus.group_names import room_group
from push.metrics import definitions as metrics
from push.node.hub import Hub
from push.node.kept_messages import outgoing
from push.node.room_stream import RoomStream, gap_body, written_up_to
from push.node.stream_runs import run_of
from push.node.streams import PAGE, stream_pages
from push.session.event_ids import Position
from push.session.outgoing import Run
from push.session.session import Session
from push.wire import Op

QUEUED_INTERVAL = 0.005  # seconds

WaitUntilRead = Callable[[], Awaitable[None]]  # waits until the client has read what was written


class StreamJoin:
    """Join of one session to one room with history.

    `recovered`: whether all messages above the position follow; None without a position.
    """

    def __init__(
        self,
        hub: Hub,
        session: Session,
        stream: RoomStream,
        state: StreamState,
        request: RoomRequest,
    ) -> None:
        self._hub = hub
        self._session = session
        self._stream = stream
        self.epoch = stream.epoch
        # Messages above this offset come live.
        self.offset = written_up_to(hub, stream)
        self.recovered: bool | None = None
        self._cursor = self.offset  # of the last message that the session has
        if request.epoch is not None:
            is_known = request.epoch == state.epoch == stream.epoch
            self.recovered = is_known and state.first - 1 <= request.offset <= state.top
            metrics.STREAM_RECOVERIES.labels("yes" if self.recovered else "no").inc()
            if self.recovered:
                self._cursor = request.offset
                self.offset = max(self.offset, request.offset)  # the node may be behind the client
        elif request.rewind:
            count = min(request.rewind, policy_of(stream.room).rewind)
            # Messages above `offset` come live, even if the database keeps none of them any more.
            self._cursor = min(self.offset, max(state.first - 1, self.offset - count, 0))

    @property
    def position(self) -> Position:
        """Return the place of the last message that the session has."""
        return Position(self.epoch, self._cursor)

    def reply(self) -> dict[str, object]:
        """Return the members of the reply about this room."""
        members: dict[str, object] = {"epoch": self.epoch, "offset": self.offset}
        if self.recovered is not None:
            members["recovered"] = self.recovered
        return members

    def enter(self) -> None:
        """Enter the room's group, in the turn of the event loop in which `is_current` was true."""
        self._hub.enter(self._session, self._stream.group)

    @property
    def is_current(self) -> bool:
        """Return whether the session has exactly the messages written to the room's group."""
        if self._session.is_closed:
            return True
        has_all = self._cursor == written_up_to(self._hub, self._stream)
        return has_all and self._stream.epoch == self.epoch  # offsets of two epochs may be equal

    async def advance(self, until_read: WaitUntilRead) -> None:
        """Send messages until the session has all that was written to the group."""
        while not self.is_current:
            if self._stream.epoch != self.epoch:
                self._give_up()
                return
            if self._cursor > written_up_to(self._hub, self._stream):
                # The client is ahead of this node: these messages still wait in the coalescer.
                await asyncio.sleep(QUEUED_INTERVAL)
                continue
            run = await self._next()
            if run is None:
                self._give_up()
                return
            self._session.write_run(run)
            self._cursor = run.last
            await until_read()

    async def _next(self) -> Run | None:
        """Return the next messages that were written to the group; None if one is missing."""
        stream, last = self._stream, written_up_to(self._hub, self._stream)
        if self._cursor + 1 < stream.tail_start and last - self._cursor <= PAGE:
            await self._hub.streams.fill(stream)
        if self._cursor + 1 >= stream.tail_start:
            last = written_up_to(self._hub, stream)
            return self._hub.streams.runs.after(stream, self._cursor, last)
        page = StreamPage(stream.room, self._cursor, PAGE)
        kept_messages = await stream_pages.get(page) or ()
        now = self._hub.now()
        messages = [outgoing(stream.room, self.epoch, kept, now) for kept in kept_messages]
        return run_of(messages, self._cursor, written_up_to(self._hub, stream))

    def _give_up(self) -> None:
        """Send the session op 29, because messages are missing; continue with live ones."""
        metrics.STREAM_GAPS.inc()
        self.epoch = self._stream.epoch
        self._cursor = written_up_to(self._hub, self._stream)
        body = gap_body(self._stream.room, self.epoch, self._cursor)
        self._session.reply(Op.STREAM_GAP, 0, body)


def reply_without_history(request: RoomRequest) -> dict[str, object]:
    """Return the members of the reply about a room without history.

    A client that asks for earlier messages is told that there are none.
    """
    return {"recovered": False} if request.epoch is not None or request.rewind else {}


@asynccontextmanager
async def joining(
    hub: Hub, session: Session, requests: Mapping[str, RoomRequest]
) -> AsyncIterator[dict[str, StreamJoin]]:
    """Give a `StreamJoin` for each of these rooms; `finish` completes them.

    Raises what the layer and the database raise; `Unavailable` if the database does not answer.
    """
    async with hub.expecting([room_group(room) for room in requests]):
        pairs = await _catch_up(hub, session.key, list(requests))
        yield {
            room: StreamJoin(hub, session, stream, state, request)
            for (room, request), (stream, state) in zip(requests.items(), pairs, strict=True)
        }


async def _catch_up(hub: Hub, key: str, rooms: list[str]) -> list[tuple[RoomStream, StreamState]]:
    """Return the stream and the stored state of each room. Raises as `joining`."""
    try:
        async with asyncio.timeout(conf.DATABASE_TIMEOUT):
            if len(rooms) == 1:  # most sessions: `gather` would make a task for each
                return [await hub.streams.catch_up(rooms[0], key)]
            # Their queries are one, because the loader gathers them.
            return await asyncio.gather(*(hub.streams.catch_up(room, key) for room in rooms))
    except TimeoutError:
        raise Unavailable("The room's messages cannot be read now.") from None


async def finish(joins: Collection[StreamJoin], until_read: WaitUntilRead) -> None:
    """Bring a session up to date in all these rooms, one after the other, then let it enter all.

    `until_read`: waits until the client has read what was written.

    Raises what the database raises.
    """
    while not all(join.is_current for join in joins):
        for join in joins:
            await join.advance(until_read)
    for join in joins:
        join.enter()
