"""Hub: a node's map from group to sessions, and the reader of the node's channel.

Each node has one channel of the channel layer, which is in the groups of the layer that have a
local session (`push/node/layer_groups.py`). A message is encoded once for each kind of frame, and
the same bytes are written to every session of its group.

A message from the channel passes these steps:

1. Drop it if a later drain has superseded it (`push/node/superseded_drains.py`), or if its group
   has no session here.
2. Hold it if its group is held during a recovery (`push/node/held_messages.py`).
   A message of a stream goes to `push/node/streams.py` instead, which hands it to step 5.
3. Queue it if it must not be dropped and its group is busy (`push/node/ensured_delivery.py`).
4. Drop it if it is a duplicate (`push/node/recent_ids.py`).
5. Hand it to the coalescer of its group, which writes it (`push/node/coalescer.py`).

A message that is spread over time skips the steps 2, 3 and 5.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

from imgo_site import tracing
from imgo_site.conf import conf
from push.bus.background_tasks import Background
from push.bus.envelope import (
    CLOSE,
    DRAIN,
    ECHO,
    FRAME,
    MESSAGE,
    READ,
    RETRACTION,
    UNDRAIN,
    fault_of,
)
from push.bus.group_names import ALL, is_key_group, node_group
from push.metrics import definitions as metrics
from push.node import read_reports
from push.node.coalescer import Coalescer, fits_one_turn, write_now, write_spread
from push.node.echoes import Echoes
from push.node.ensured_delivery import EnsuredDelivery
from push.node.event_ids import EventIdWriter
from push.node.held_messages import HoldRegistry
from push.node.layer_groups import LayerGroups
from push.node.reach_counts import ReachCounts
from push.node.recent_ids import RecentIds
from push.node.streams import Streams
from push.node.superseded_drains import Drains
from push.session.outgoing import OutgoingMessage, Retraction, retracted_ids
from push.session.session import Session, Written
from push.wire import CloseCode, Frame, Op

logger = logging.getLogger(__name__)

YIELD_AFTER = 100  # messages handled before the event loop gets a turn
FAILURES_MAX = 100  # consecutive unreadable messages after which the layer counts as failed
DROP_LOG = 1000  # dropped messages of one reason from one log line to the next
RETRY_INTERVAL = 1.0  # seconds until a failed layer is read again
SPREADS_MAX = 100  # messages that are being spread over time at once


class Hub:
    """The sessions of this node by group, and the one reader of the node's channel."""

    def __init__(self, layer: Any, node_id: str) -> None:
        self.layer = layer
        self.node_id = node_id
        self.sessions: dict[str, Session] = {}
        self.groups: dict[str, set[Session]] = {}
        self.coalescers: dict[str, Coalescer] = {}
        self.drops: Counter[str] = Counter()
        self.layer_groups = LayerGroups(layer)
        self._reader: asyncio.Task[None] | None = None
        self.background = Background("a delivery failed")
        self.reach_counts = ReachCounts()
        self.written = Written()
        self._spreading = 0

        # IDs seen recently, for dropping duplicates. The layer may have published a message
        # although the publisher got an error and retried.
        self.delivered = RecentIds()  # of stored messages
        self.passed = RecentIds()  # of other messages
        self.replayed = RecentIds()  # by session id instead of group; only recovery skips these
        # Messages without a pending row: an acknowledgement of one needs no query.
        self.live = RecentIds()
        self.holds = HoldRegistry(self.groups, self.deliver)
        self.ensured = EnsuredDelivery(
            self.coalescers, self.background, self.deliver, lambda: self.count_drop("busy_group")
        )
        self.drains = Drains()
        self.streams = Streams(self)
        self.event_ids = EventIdWriter(self)
        self.now: Callable[[], float] = time.time  # Unix time; the node sets the database's clock
        # By group: sessions on their way into it, see `expecting`.
        self.joiners: Counter[str] = Counter()
        self.gaps = 0  # lost connections of the layer
        self.echoes = Echoes(layer, node_id)
        self.last_heard = 0.0  # when the last message of any kind arrived: monotonic seconds
        self.on_drain: Callable[[], Coroutine[Any, Any, None]]  # set by the node
        self.on_undrain: Callable[[], Coroutine[Any, Any, None]]
        # Handles a frame that came through the bus; None before the first session that sends so.
        self.on_frame: Callable[[Session, Frame], None] | None = None

    async def start(self) -> None:
        """Get a channel, join the groups that every node joins, and start reading."""
        await self.layer_groups.start()
        await self.layer_groups.join(ALL, node_group(self.node_id))
        self._reader = asyncio.get_running_loop().create_task(self._read())

    async def stop(self) -> None:
        """Stop reading and delivering. The caller, `Node.stop`, closes the sessions."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
            self._reader = None
        self.layer_groups.stop()
        for task in self.background.tasks:
            task.cancel()
        for coalescer in self.coalescers.values():
            coalescer.close()
        self.coalescers.clear()

    # Membership

    async def add(self, session: Session, groups: list[str]) -> None:
        """Add a session. After this returns, every message to these groups reaches the session.

        If this raises or is cancelled, the caller must call `remove`.
        """
        self.sessions[session.id] = session
        metrics.OPENED.labels(session.kind.transport, session.identity.source).inc()
        self.groups.setdefault(ALL, set()).add(session)
        for group in groups:
            self._enter(session, group)
        await self.layer_groups.join(*groups)

    async def join(self, session: Session, group: str) -> None:
        """Add a session to a group, and this node to the layer's group if it is not in it yet.

        Do nothing for a session that was removed: nothing would remove it again.
        """
        if self.sessions.get(session.id) is not session:
            return
        self._enter(session, group)
        await self.layer_groups.join(group)

    def _enter(self, session: Session, group: str) -> None:
        self.groups.setdefault(group, set()).add(session)
        self.layer_groups.occupied(group)

    @asynccontextmanager
    async def expecting(self, groups: Sequence[str]) -> AsyncIterator[None]:
        """Be in the layer's groups for a session that will `enter` them.

        Raises what the layer raises.
        """
        try:
            for group in groups:
                self.joiners[group] += 1
                self.layer_groups.occupied(group)
            await self.layer_groups.join(*groups)
            yield
        finally:
            for group in groups:
                self.joiners[group] -= 1
                if not self.joiners[group]:
                    del self.joiners[group]
                    if group not in self.groups:
                        self._emptied(group)

    def enter(self, session: Session, group: str) -> None:
        """Add an expected session to its group, unless it was removed meanwhile."""
        if self.sessions.get(session.id) is session:
            self._enter(session, group)

    def leave(self, session: Session, group: str) -> None:
        """Remove a session from a group. `LayerGroups.leave_empty` leaves the layer's later."""
        members = self.groups.get(group)
        if members is not None:
            members.discard(session)
            if coalescer := self.coalescers.get(group):
                coalescer.left(session)
            if not members:
                del self.groups[group]
                self.holds.forget(group)  # the next session reads the pending messages
                if group != ALL and group not in self.joiners:
                    self._emptied(group)

    def _emptied(self, group: str) -> None:
        if coalescer := self.coalescers.get(group):
            coalescer.discard()
        self.streams.forget(group)
        self.layer_groups.emptied(group)

    def remove(self, session: Session, groups: list[str]) -> None:
        """Remove a session from the hub and from these groups."""
        if self.sessions.pop(session.id, None) is not None:
            reason = metrics.reason_of(session.close_code)
            metrics.CLOSED.labels(session.kind.transport, reason).inc()
            self.event_ids.end(session)
        for group in (ALL, *groups):
            self.leave(session, group)

    # Messages

    async def _read(self) -> None:
        failures = 0
        while True:
            try:
                for _ in range(YIELD_AFTER):
                    message = await self.layer.receive(self.layer_groups.channel)
                    self.last_heard = asyncio.get_running_loop().time()
                    self.handle(message)
                failures = 0
                # While messages are waiting, `receive` returns without a turn for other tasks.
                await asyncio.sleep(0)
            except Exception as error:  # noqa: BLE001 - the reader must outlive any message
                failures += 1
                self._drop_malformed(f"it cannot be read ({type(error).__name__})")
                await asyncio.sleep(RETRY_INTERVAL if failures > FAILURES_MAX else 0)

    def _drop_malformed(self, fault: str) -> None:
        if not self.drops["malformed"]:
            logger.warning("dropped a malformed message from the channel layer: %s", fault)
        self.count_drop("malformed")

    def handle(self, message: Any) -> None:
        """Deliver a message to its group, or execute an order such as closing sessions.

        A message that is no envelope is dropped and counted. Errors are logged. Never raises.
        """
        if fault := fault_of(message):
            self._drop_malformed(fault)
            return
        try:
            self._handle(message)
        except Exception:
            logger.exception("a message from the channel layer could not be handled")
            self.count_drop("malformed")

    def _handle(self, message: dict[str, Any]) -> None:
        if message["type"] in (MESSAGE, RETRACTION):
            self._deliver(message)
        elif message["type"] == CLOSE:
            self._close(message)
        elif message["type"] == ECHO:
            self.echoes.arrived(message["sent"])
        elif message["type"] == FRAME:
            self._frame(message)
        elif message["type"] == READ:
            read_reports.deliver(self.groups.get(message["group"], ()), message)
        elif message["type"] == DRAIN:
            self.background.run(self.on_drain())
        elif message["type"] == UNDRAIN:
            self.background.run(self.on_undrain())

    def _deliver(self, message: dict[str, Any]) -> None:
        group = message["group"]
        if "drain" in message and self.drains.is_superseded(*message["drain"]):
            self.count_drop("superseded")
            return
        if group not in self.groups and group not in self.joiners:
            return
        kind = Retraction if message["type"] == RETRACTION else OutgoingMessage
        outgoing = kind(
            message["id"],
            message["op"],
            message["body"],
            message["is_json"],
            message["key"],
            ensure=message.get("ensure", False),
            at=message.get("at", 0.0),
            room=message.get("room", ""),
            offset=message.get("offset", 0),
            epoch=message.get("epoch", ""),
            seen=self.now() if "offset" in message else 0.0,
            sender=message.get("sender", ""),
            exclude=self._exclude_of(message),
            collapse_key=message.get("collapse", ""),
        )
        if outgoing.op == Op.RETRACTION:
            self.streams.retracted(group, retracted_ids(outgoing))
        elif not outgoing.key:
            self.live.add(outgoing.id, ALL)
        if message.get("spread"):
            if self._is_new(group, outgoing):
                self._spread(outgoing, message["spread"])
            return
        if "trace" in message:
            outgoing.span = tracing.begin("imgo.deliver", message["trace"], push_id=outgoing.id)
        if outgoing.offset:
            self.streams.arrived(outgoing, group, message["epoch"])
        elif not self.holds.keep(group, outgoing) and not self.ensured.keep(group, outgoing):
            self.deliver(group, outgoing)

    def _exclude_of(self, message: dict[str, Any]) -> frozenset[str]:
        """Return the ids of the sessions here that do not get a message."""
        names: list[str] = message.get("exclude", "").split(",")
        return frozenset(name for name in names if name in self.sessions)

    def _frame(self, message: dict[str, Any]) -> None:
        frame = Frame(message["ver"], message["op"], message["seq"], message["body"])
        self.receive_frame(message["session"], message["key"], frame)

    def receive_frame(self, session_id: str, key: str, frame: Frame) -> None:
        """Pass a client's frame to its session, if the session is still here.

        `key`: the client's, which was verified.
        """
        session = self.sessions.get(session_id)
        if session is not None and self.on_frame is not None and session.key == key:
            self.on_frame(session, frame)

    def _spread(self, message: OutgoingMessage, seconds: float) -> None:
        """Write a message to all sessions over `seconds`; other messages may overtake it."""
        if self._spreading >= SPREADS_MAX:
            self.count_drop("busy_group")
            return
        self._spreading += 1
        self.background.run(self._write_spread(message, seconds))

    async def _write_spread(self, message: OutgoingMessage, seconds: float) -> None:
        sessions = tuple(self.groups.get(ALL, ()))
        try:
            count = await write_spread(sessions, message, seconds, self.written)
            self.reach_counts.add(message.id, count)
        finally:
            self._spreading -= 1

    def deliver(self, group: str, message: OutgoingMessage) -> None:
        """Write a message to all sessions of a group, unless it is a duplicate."""
        if self._is_new(group, message):
            self.write(group, message)

    def write(self, group: str, message: OutgoingMessage) -> None:
        """Write a message that is no duplicate to all sessions of a group.

        A message to a key is never batched. The few sessions of a key get it at once; only those
        of a key with very many are written to in slices, by a coalescer.

        If the group is busy, the coalescer drops the oldest of its waiting messages.
        """
        coalescer = self.coalescers.get(group)
        if coalescer is None:
            is_key = is_key_group(group)
            if is_key and fits_one_turn(self, group):
                write_now(self, group, [message])
                return
            batch_max = 1 if is_key else conf.BATCH_MAX
            coalescer = self.coalescers[group] = Coalescer(self, group, batch_max)
        coalescer.write_or_queue(message)

    def _is_new(self, group: str, message: OutgoingMessage) -> bool:
        """Record a message; return whether it is no duplicate.

        Messages that were never accepted, such as the dashboard's snapshots, have the id 0 and
        count as new.
        """
        recent = self.delivered if message.key else self.passed
        return not message.id or recent.add(message.id, group)

    def count_drop(self, reason: str) -> None:
        """Count a message that was not delivered; log the first and every `DROP_LOG`th after it."""
        self.drops[reason] += 1
        metrics.DROPS.labels(reason).inc()
        if self.drops[reason] % DROP_LOG == 1:
            logger.warning("messages dropped so far, %s: %d", reason, self.drops[reason])

    def _close(self, message: dict[str, Any]) -> None:
        ids = message["sessions"]  # empty for all sessions of the group
        named = [self.sessions[id_] for id_ in ids if id_ in self.sessions]
        for session in named if ids else list(self.groups.get(message["group"], ())):
            session.disconnect(CloseCode(message["code"]), message["reason"])
