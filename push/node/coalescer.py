"""Coalescing: a quiet group gets a message at once, a busy one gets many in one write.

The first message to a group is written as it comes. What comes within `BATCH_WINDOW` after it
waits for the window's end, or for `BATCH_MAX` messages, and goes out as one packet, which costs a
session one system call. A group that got nothing in a whole window is quiet again.

A large group is written to in slices, with a turn of the event loop between them, so that
heartbeats, connects and small pushes go on during it; what comes for it meanwhile joins the next
batch, which keeps the order.
"""

import asyncio
import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Protocol

from imgo_site.conf import conf
from imgo_site.logs import note_push
from push.bus.background_tasks import Background
from push.metrics.definitions import DELIVERY_SECONDS
from push.node.reach_counts import ReachCounts
from push.session.session import (
    PACKET_KINDS,
    Batch,
    Outgoing,
    PacketKind,
    Session,
    deliveries,
    frames_written,
)
from push.wire import FIRST_OWN_OP

logger = logging.getLogger(__name__)

FAIRNESS = 250  # sessions written to before the event loop gets a turn
SPREAD_STEP = 0.05  # seconds between two writes of a message that is spread out
WAITING_MAX = 10_000  # messages that may wait for one group; then the oldest are dropped

_packet_kind = attrgetter("packet_kind")

# Sessions, and the messages that are for all of them.
Share = tuple[Sequence[Session], list[Outgoing]]


class Owner(Protocol):
    """The parts of a hub that a coalescer needs of its hub."""

    groups: dict[str, set[Session]]
    coalescers: "dict[str, Coalescer]"
    background: Background

    reach_counts: ReachCounts

    def count_drop(self, reason: str) -> None:
        """Count a message that was not delivered."""


class Coalescer:
    """The messages that wait for one group, from its first message until it is quiet."""

    __slots__ = ("_group", "_hub", "_is_writing", "_max", "_timer", "_waiting")

    def __init__(self, hub: Owner, group: str, batch_max: int) -> None:
        self._hub = hub
        self._group = group
        self._max = batch_max
        self._waiting: deque[Outgoing] = deque()
        self._is_writing = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_full(self) -> bool:
        """Whether one more message means that another has to go."""
        return len(self._waiting) >= WAITING_MAX

    def offer(self, message: Outgoing) -> None:
        """Write the message now or soon."""
        if self.is_full:
            # The oldest goes; before one that was to be ensured, the new one does.
            self._hub.count_drop("busy_group")
            lost = message if self._waiting[0].ensure else self._waiting.popleft()
            if lost.span is not None:
                lost.span.end()
            if lost is message:
                return
        self._waiting.append(message)
        if self._is_writing:
            return
        if self._timer is None or self._max == 1 or len(self._waiting) >= self._max:
            self._write()

    def _write(self) -> None:
        """Write what waits, one batch; then the window begins anew."""
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(conf.BATCH_WINDOW, self._window_over)
        count = min(self._max, len(self._waiting))
        messages = [self._waiting.popleft() for _ in range(count)]
        shares = share_out(tuple(self._hub.groups.get(self._group, ())), messages)
        if sum(len(sessions) for sessions, _ in shares) <= FAIRNESS:
            for sessions, taken in shares:
                write_to_all(sessions, _together(taken))
            count_written(messages, shares, self._hub.reach_counts)
        else:
            self._is_writing = True
            self._hub.background.run(self._write_slices(shares, messages))

    async def _write_slices(self, shares: list[Share], messages: list[Outgoing]) -> None:
        try:
            for sessions, taken in shares:
                message = _together(taken)
                for start in range(0, len(sessions), FAIRNESS):
                    write_to_all(sessions[start : start + FAIRNESS], message)
                    await asyncio.sleep(0)
            count_written(messages, shares, self._hub.reach_counts)
        finally:
            self._is_writing = False
        if len(self._waiting) >= self._max or self._timer is None:
            self._write_or_end()

    def _window_over(self) -> None:
        self._timer = None
        if not self._is_writing:
            self._write_or_end()

    def _write_or_end(self) -> None:
        if self._waiting:
            self._write()
        elif self._timer is None:
            self._hub.coalescers.pop(self._group, None)

    def close(self) -> None:
        """Forget what waits."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()


async def write_spread(sessions: Sequence[Session], message: Outgoing, seconds: float) -> int:
    """Write a message to sessions, evenly over some seconds, and return to how many.

    Sessions that were closed by then are left out.
    """
    count = 0
    loop = asyncio.get_running_loop()
    begin = loop.time()
    step = min(FAIRNESS, math.ceil(len(sessions) * SPREAD_STEP / seconds)) or 1
    for start in range(0, len(sessions), step):
        some = sessions[start : start + step]
        there = [one for one in some if not one.is_closed and one.takes(message.op)]
        write_to_all(there, message)
        deliveries[0] += len(there)
        count += len(there)
        due = begin + seconds * (start + len(some)) / len(sessions)
        await asyncio.sleep(max(0.0, due - loop.time()))
    return count


def count_reach(shares: Sequence[Share], written: ReachCounts) -> None:
    """Count the sessions that each message was written to, for messages that no key is owed."""
    if len(shares) == 1:
        sessions, taken = shares[0]
        for message in taken:
            if not message.key:
                written.add(message.id, len(sessions))
        return
    counts: Counter[int] = Counter()
    for sessions, taken in shares:
        for message in taken:
            if not message.key:
                counts[message.id] += len(sessions)
    for message_id, count in counts.items():
        written.add(message_id, count)


def share_out(sessions: Sequence[Session], messages: list[Outgoing]) -> list[Share]:
    """Who gets what: everyone everything, but for own ops that some sessions do not take."""
    if all(message.op < FIRST_OWN_OP for message in messages):
        return [(sessions, messages)]
    by_accepts: dict[frozenset[int] | None, list[Session]] = {}
    for session in sessions:
        by_accepts.setdefault(session.accepts, []).append(session)
    shares = (
        (some, [message for message in messages if some[0].takes(message.op)])
        for some in by_accepts.values()
    )
    return [(some, taken) for some, taken in shares if taken]


def _together(messages: list[Outgoing]) -> Outgoing:
    return messages[0] if len(messages) == 1 else Batch(messages)


def write_to_all(sessions: Sequence[Session], message: Outgoing) -> None:
    """Write a message to many sessions: one system call for each, and little else.

    A session that owns its socket and has nothing waiting (`send` is its socket's) gets the
    shared bytes without another call of Python's; all others take the long way, `deliver`.
    """
    packets = message.packets
    late: list[PacketKind] = []  # of those that take the long way, and are counted there
    receipt = message.id if message.key else 0
    for session in sessions:
        packet = packets[session.packet_kind]
        send: Callable[[bytes], int] | None = session.send
        if send is None or packet is None:
            late.append(session.packet_kind)
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
    _count(sessions, late, packets)


def _count(
    sessions: Sequence[Session], late: list[PacketKind], packets: list[bytes | None]
) -> None:
    """Count the frames of a call, at no cost for each where all sessions are of one kind."""
    if len(late) == len(sessions):
        return
    used = [kind for kind in range(PACKET_KINDS) if packets[kind] is not None]
    if len(used) == 1:
        frames_written[used[0]] += len(sessions) - len(late)
        return
    counts = Counter(map(_packet_kind, sessions))
    counts.subtract(late)
    for kind, count in counts.items():
        frames_written[kind] += count


def count_written(
    messages: Sequence[Outgoing], shares: Sequence[Share], written: ReachCounts
) -> None:
    """Count messages that were written to the sessions they are for, and how long it took.

    By this host's clock, where they were accepted by the database's: see docs/metrics.md.
    """
    for sessions, taken in shares:
        deliveries[0] += len(sessions) * sum(1 for message in taken if message.at)
    count_reach(shares, written)
    now = time.time()
    for message in messages:
        if message.at:
            DELIVERY_SECONDS.observe(max(0.0, now - message.at))
            note_push(message.id, "delivered")
        if message.span is not None:
            message.span.end()
