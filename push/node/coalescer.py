"""Coalescer: groups a busy group's messages into one write.

The first message to a quiet group is written at once. Messages that arrive within `BATCH_WINDOW`
seconds after it wait for the end of the window, or until `BATCH_MAX` messages wait. They are then
written as one packet, which costs one system call per session. A group without a message during a
whole window is quiet again.

A large group is written to in slices, with a turn of the event loop between them. Heartbeats,
connects and small pushes continue between the slices. Messages that arrive for the group meanwhile
join its next batch, which keeps the order.
"""

import asyncio
import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Protocol

from imgo_site.conf import conf
from imgo_site.logs import note_push
from push.bus.background_tasks import Background
from push.metrics.definitions import DELIVERY_SECONDS
from push.node.reach_counts import ReachCounts
from push.session.outgoing import PACKET_KINDS, Batch, OutgoingMessage, PacketKind
from push.session.session import Session, Written
from push.wire import FIRST_OWN_OP, Op

logger = logging.getLogger(__name__)

YIELD_AFTER = 250  # sessions written to before the event loop gets a turn
SPREAD_STEP = 0.05  # seconds between two writes of a message that is spread out
WAITING_MAX = 10_000  # messages that may wait for one group; beyond that the oldest are dropped

_packet_kind = attrgetter("packet_kind")

# Sessions, and messages that all of them receive.
Delivery = tuple[Sequence[Session], list[OutgoingMessage]]


class EventIdWriter(Protocol):
    """The parts of `push/node/event_ids.py` that coalescers and streams use."""

    def moved(self, session: Session) -> None:
        """Write a block with an id soon: the session's position changed without a message."""

    def wrote(self, group: str) -> None:
        """Write blocks with ids soon: a message of a stream was written to this group."""


class Owner(Protocol):
    """The parts of a hub that a coalescer uses."""

    groups: dict[str, set[Session]]
    coalescers: "dict[str, Coalescer]"
    background: Background

    reach_counts: ReachCounts
    written: Written

    @property
    def event_ids(self) -> "EventIdWriter":
        """Return the writer of the ids of events."""

    def count_drop(self, reason: str) -> None:
        """Count a message that was not delivered."""


class Coalescer:
    """Coalescer of one group; exists from the group's first message until the group is quiet."""

    __slots__ = (
        "_group",
        "_hub",
        "_is_writing",
        "_left",
        "_max",
        "_timer",
        "_waiting",
        "first_offset_under_way",
    )

    def __init__(self, hub: Owner, group: str, batch_max: int) -> None:
        self._hub = hub
        self._group = group
        self._max = batch_max
        self._waiting: deque[OutgoingMessage] = deque()
        self._is_writing = False
        self._timer: asyncio.TimerHandle | None = None
        # Sessions that have left the group since the batch under way was begun.
        self._left: set[Session] = set()
        # Of the batch that is being written in slices: its first offset in a stream; 0 for none.
        self.first_offset_under_way = 0

    @property
    def is_full(self) -> bool:
        """Whether one more message would cause a drop."""
        return len(self._waiting) >= WAITING_MAX

    @property
    def holds_offsets(self) -> bool:
        """Whether messages of a stream wait, or are being written in slices."""
        return bool(self.first_offset_under_way or self.first_waiting_offset())

    def first_waiting_offset(self) -> int:
        """Return the offset of the first waiting message of a stream; 0 if none waits."""
        return _first_offset(self._waiting)

    def write_or_queue(self, message: OutgoingMessage) -> None:
        """Write the message at once if the group is quiet, else with a later batch."""
        if self.is_full:
            # Drop the oldest message; drop the new one instead if the oldest must be ensured.
            self._hub.count_drop("busy_group")
            dropped = message if self._waiting[0].ensure else self._waiting.popleft()
            if dropped.span is not None:
                dropped.span.end()
            if dropped is message:
                return
        self._waiting.append(message)
        if self._is_writing:
            return
        if self._timer is None or self._max == 1 or len(self._waiting) >= self._max:
            self._write()

    def _write(self) -> None:
        """Write one batch of the waiting messages and restart the window."""
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(conf.BATCH_WINDOW, self._window_over)
        count = min(self._max, len(self._waiting))
        messages = [self._waiting.popleft() for _ in range(count)]
        if fits_one_turn(self._hub, self._group):
            write_now(self._hub, self._group, messages)
        else:
            shares = split_by_filter(tuple(self._hub.groups[self._group]), messages)
            self._is_writing = True
            self.first_offset_under_way = _first_offset(messages)
            self._hub.background.run(self._write_slices(shares, messages))

    async def _write_slices(self, shares: list[Delivery], messages: list[OutgoingMessage]) -> None:
        try:
            for sessions, taken in shares:
                message = _together(taken)
                for start in range(0, len(sessions), YIELD_AFTER):
                    part = self._without_left(sessions[start : start + YIELD_AFTER])
                    write_to_all(part, message, self._hub.written)
                    await asyncio.sleep(0)
            self.first_offset_under_way = 0
            _wrote(self._hub, self._group, messages, shares)
        finally:
            self._is_writing = False
            self._left.clear()
            self.first_offset_under_way = 0
            # After an error, too: the room's stream may wait for the messages that wait here.
            if len(self._waiting) >= self._max or self._timer is None:
                self._write_or_end()

    def left(self, session: Session) -> None:
        """Do not write the batch under way to a session that has left the group.

        If the session enters the group again, its join sends it that batch, or begins behind it.
        """
        if self._is_writing:
            self._left.add(session)

    def _without_left(self, sessions: Sequence[Session]) -> Sequence[Session]:
        if not self._left:
            return sessions
        return [session for session in sessions if session not in self._left]

    def _window_over(self) -> None:
        self._timer = None
        if not self._is_writing:
            self._write_or_end()

    def _write_or_end(self) -> None:
        if self._waiting:
            self._write()
        elif self._timer is None:
            self._hub.coalescers.pop(self._group, None)

    def discard(self) -> None:
        """Discard the waiting messages: the sessions that they were for have left the group.

        A session that enters later gets them from the room's stream, if it asks for them.
        """
        for message in self._waiting:
            if message.span is not None:
                message.span.end()
        self._waiting.clear()
        self.first_offset_under_way = 0

    def close(self) -> None:
        """Discard the waiting messages and stop the timer."""
        self.discard()
        if self._timer is not None:
            self._timer.cancel()


def fits_one_turn(hub: Owner, group: str) -> bool:
    """Return whether a group is so small that it is written to in one turn of the event loop."""
    return len(hub.groups.get(group, ())) <= YIELD_AFTER


def write_now(hub: Owner, group: str, messages: list[OutgoingMessage]) -> None:
    """Write messages to all sessions of a group, without a turn for others meanwhile."""
    shares = split_by_filter(tuple(hub.groups.get(group, ())), messages)
    for sessions, taken in shares:
        write_to_all(sessions, _together(taken), hub.written)
    _wrote(hub, group, messages, shares)


def _wrote(hub: Owner, group: str, messages: list[OutgoingMessage], shares: list[Delivery]) -> None:
    count_written(messages, shares, hub)
    if _first_offset(messages):
        hub.event_ids.wrote(group)


async def write_spread(
    sessions: Sequence[Session], message: OutgoingMessage, seconds: float, written: Written
) -> int:
    """Write a message to sessions, evenly over `seconds`. Return the number of sessions written to.

    Sessions that have closed by their turn, or whose filter excludes the op, are skipped.
    """
    count = 0
    loop = asyncio.get_running_loop()
    begin = loop.time()
    step = min(YIELD_AFTER, math.ceil(len(sessions) * SPREAD_STEP / seconds)) or 1
    for start in range(0, len(sessions), step):
        part = sessions[start : start + step]
        receivers = [
            session for session in part if not session.is_closed and session.accepts_op(message.op)
        ]
        write_to_all(receivers, message, written)
        written.deliveries += len(receivers)
        count += len(receivers)
        due = begin + seconds * (start + len(part)) / len(sessions)
        await asyncio.sleep(max(0.0, due - loop.time()))
    return count


def count_reach(shares: Sequence[Delivery], reach: ReachCounts) -> None:
    """Count the sessions that each message was written to, for messages without a pending row."""
    if len(shares) == 1:
        sessions, taken = shares[0]
        for message in taken:
            if not message.key and message.op != Op.RETRACTION:
                reach.add(message.id, len(sessions))
        return
    counts: Counter[int] = Counter()
    for sessions, taken in shares:
        for message in taken:
            if not message.key and message.op != Op.RETRACTION:
                counts[message.id] += len(sessions)
    for message_id, count in counts.items():
        reach.add(message_id, count)


def split_by_filter(sessions: Sequence[Session], messages: list[OutgoingMessage]) -> list[Delivery]:
    """Return which sessions receive which messages.

    Every session receives every message, except those with an op from `FIRST_OWN_OP` up that the
    session's filter excludes, and those that exclude the session. Retractions go to sessions that
    ask for them.
    """
    if len(messages) == 1 and messages[0].op == Op.MESSAGE and not messages[0].exclude:
        return [(sessions, messages)]  # nearly always
    if any(message.op == Op.RETRACTION for message in messages):
        plain = [message for message in messages if message.op != Op.RETRACTION]
        asking = [session for session in sessions if session.retractions]
        others = [session for session in sessions if not session.retractions]
        return _split_excluding(asking, messages) + _split_excluding(others, plain)
    return _split_excluding(sessions, messages)


def _split_excluding(
    sessions: Sequence[Session], messages: list[OutgoingMessage]
) -> list[Delivery]:
    excluded = {name for message in messages for name in message.exclude}
    if not excluded:
        return _split(sessions, messages) if messages else []
    shares = _split([session for session in sessions if session.id not in excluded], messages)
    for session in sessions:
        if session.id in excluded:
            shares += _split([session], [m for m in messages if session.id not in m.exclude])
    return [(alike, taken) for alike, taken in shares if taken]


def _split(sessions: Sequence[Session], messages: list[OutgoingMessage]) -> list[Delivery]:
    if all(message.op < FIRST_OWN_OP for message in messages):
        return [(sessions, messages)]
    by_accepts: dict[frozenset[int] | None, list[Session]] = {}
    for session in sessions:
        by_accepts.setdefault(session.accepts, []).append(session)
    shares = (
        (alike, [message for message in messages if alike[0].accepts_op(message.op)])
        for alike in by_accepts.values()
    )
    return [(alike, taken) for alike, taken in shares if taken]


def _first_offset(messages: Iterable[OutgoingMessage]) -> int:
    """Return the first offset in a stream of these messages; 0 if none has one."""
    return next((message.offset for message in messages if message.offset), 0)


def _together(messages: list[OutgoingMessage]) -> OutgoingMessage:
    return messages[0] if len(messages) == 1 else Batch(messages)


def write_to_all(sessions: Sequence[Session], message: OutgoingMessage, written: Written) -> None:
    """Write a message to many sessions, with one system call for each and little else.

    A session that owns its socket and has nothing waiting has its socket's `send`. It gets the
    shared bytes by that call. All other sessions get the message through `Session.deliver`.
    """
    packets = message.packets
    # Packet kinds of the sessions for which `deliver` counts the frame.
    delivered_kinds: list[PacketKind] = []
    receipt = message.id if message.key else 0
    for session in sessions:
        packet = packets[session.packet_kind]
        send: Callable[[bytes], int] | None = session.send
        if send is None or packet is None:
            delivered_kinds.append(session.packet_kind)
            session.deliver(message)
            continue
        try:
            sent = send(packet)
        except OSError:
            sent = 0
        if receipt and session.acks:
            session.expect_acknowledgement(receipt)
        if sent != len(packet):
            session.link.write_rest(packet, sent, receipt)
        elif receipt:
            session.sent(receipt)
    _count(sessions, delivered_kinds, packets, written.frames)


def _count(
    sessions: Sequence[Session],
    delivered_kinds: list[PacketKind],
    packets: list[bytes | None],
    frames: list[int],
) -> None:
    """Count the frames of a `write_to_all` call; in constant time if all sessions are of one kind.

    `delivered_kinds`: packet kinds of the sessions that were counted already.
    `frames`: the counts by packet kind.
    """
    if len(delivered_kinds) == len(sessions):
        return
    used = [kind for kind in range(PACKET_KINDS) if packets[kind] is not None]
    if len(used) == 1:
        frames[used[0]] += len(sessions) - len(delivered_kinds)
        return
    counts = Counter(map(_packet_kind, sessions))
    counts.subtract(delivered_kinds)
    for kind, count in counts.items():
        frames[kind] += count


def count_written(
    messages: Sequence[OutgoingMessage], shares: Sequence[Delivery], hub: Owner
) -> None:
    """Count messages that were written to their sessions, and record the time since acceptance.

    The time of acceptance is from the database's clock, the present time from this host's clock.
    See docs/metrics.md.
    """
    for sessions, taken in shares:
        hub.written.deliveries += len(sessions) * sum(1 for message in taken if message.at)
    count_reach(shares, hub.reach_counts)
    now = time.time()
    for message in messages:
        if message.at:
            DELIVERY_SECONDS.observe(max(0.0, now - message.at))
            note_push(message.id, "delivered")
        if message.span is not None:
            message.span.end()
