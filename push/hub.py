"""group → sessions of this node: one channel-layer channel a node, one encoding a frame kind.

The hub joins a channel-layer group when the first local session does and leaves it a while after
the last one went. A message that comes in through the channel is encoded once for each kind of
frame and the same bytes are written to every session of its group.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from imgo_site import tracing
from imgo_site.batching import settle
from imgo_site.conf import conf
from push import metrics
from push.background import Background
from push.envelope import CLOSE, DRAIN, ECHO, MESSAGE, as_layer_message, echo_envelope
from push.groups import ALL, is_key_group, node_group
from push.layers import groups_add, groups_discard
from push.outbox import Outbox, write_spread
from push.session import Outgoing, Session
from push.wire import CloseCode

logger = logging.getLogger(__name__)

FAIRNESS = 100  # messages handled before the event loop gets a turn
DROP_LOG = 1000  # dropped messages of one reason from one line in the log to the next
RETRY_INTERVAL = 1.0  # seconds until a failed layer is tried again
RECENT_MAX = 20_000  # messages that a `Recent` remembers
SPREADS_MAX = 100  # messages that are being spread out at once
HELD_MAX = 1_000  # messages kept back for one group


class _Batch:
    """Groups that are joined together, and who waits for that."""

    __slots__ = ("groups", "waiting")

    def __init__(self) -> None:
        self.groups: list[str] = []
        self.waiting: list[asyncio.Future[None]] = []


class _Held:
    """What is kept back for one group, and for how many."""

    __slots__ = ("count", "messages")

    def __init__(self) -> None:
        self.count = 0
        self.messages: list[Outgoing] = []


class Recent:
    """The last messages of groups: the last `RECENT_MAX`, and up to as many before them."""

    __slots__ = ("_new", "_old")

    def __init__(self) -> None:
        self._new: set[int] = set()
        self._old: set[int] = set()

    def add(self, message_id: int, group: str) -> bool:
        """Remember a message of a group; False when it is known."""
        mark = hash((message_id, group))  # of 64 bits: none of the few is another one's
        if mark in self._new or mark in self._old:
            return False
        self._new.add(mark)
        if len(self._new) >= RECENT_MAX:
            self._old, self._new = self._new, set()
        return True

    def forget(self, message_id: int, group: str) -> None:
        """It was not delivered after all."""
        mark = hash((message_id, group))
        self._new.discard(mark)
        self._old.discard(mark)

    def has(self, message_id: int, group: str) -> bool:
        """Whether it is one of them."""
        mark = hash((message_id, group))
        return mark in self._new or mark in self._old


class Hub:
    """The sessions of this node by group, and the one reader of the node's channel."""

    def __init__(self, layer: Any, node_id: str) -> None:
        self.layer = layer
        self.node_id = node_id
        self.sessions: dict[str, Session] = {}
        self.groups: dict[str, set[Session]] = {}
        self.outboxes: dict[str, Outbox] = {}
        self.drops: Counter[str] = Counter()
        self._channel = ""
        self._joined: set[str] = set()
        self._joining: dict[str, _Batch] = {}
        self._next_batch: _Batch | None = None
        self._joiner: asyncio.Task[None] | None = None
        self._leaving: dict[str, asyncio.Future[None]] = {}
        self._empty_since: dict[str, float] = {}
        self._reader: asyncio.Task[None] | None = None
        self.background = Background("a delivery failed")
        self._spreading = 0

        # What a second copy is dropped for: it comes when the layer had taken a message and could
        # not say so. Of what is stored, of what is not, and what only a look for lost messages
        # leaves out.
        self.delivered = Recent()
        self.passed = Recent()
        self.replayed = Recent()
        # For whom nothing is pending, so that nobody has to look when they are acknowledged.
        self.live = Recent()
        self._held: dict[str, _Held] = {}
        self.last_echo = 0.0  # monotonic seconds
        self._echo_waiters: list[asyncio.Future[None]] = []
        self.on_drain: Callable[[], Coroutine[Any, Any, None]]  # the node's

    async def start(self) -> None:
        """Get a channel, join the groups that every node is in, and begin to read."""
        self._channel = await self.layer.new_channel("imgo")
        await self._join_layer(ALL, node_group(self.node_id))
        self._reader = asyncio.get_running_loop().create_task(self._read())

    async def stop(self) -> None:
        """Stop reading; the sessions are closed by whoever stops the node."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
            self._reader = None
        if self._joiner is not None:
            self._joiner.cancel()
        for task in self.background.tasks:
            task.cancel()
        for outbox in self.outboxes.values():
            outbox.close()
        self.outboxes.clear()

    # Membership

    async def add(self, session: Session, groups: list[str]) -> None:
        """Take a session in. When this returns, whatever is sent to its groups reaches it.

        If it raises or is cancelled, call `remove`.
        """
        self.sessions[session.id] = session
        metrics.OPENED.labels(session.kind.transport, session.identity.source).inc()
        self.groups.setdefault(ALL, set()).add(session)
        for group in groups:
            self._enter(session, group)
        await self._join_layer(*groups)

    async def join(self, session: Session, group: str) -> None:
        """Add a session to a group, and this node to the layer's group if it is the first.

        A session that was removed is not added: nothing would take it out again.
        """
        if self.sessions.get(session.id) is not session:
            return
        self._enter(session, group)
        await self._join_layer(group)

    def _enter(self, session: Session, group: str) -> None:
        self.groups.setdefault(group, set()).add(session)
        self._empty_since.pop(group, None)

    async def _join_layer(self, *groups: str) -> None:
        for group in groups:
            if leaving := self._leaving.get(group):
                await asyncio.wait([leaving])
        missing = [group for group in groups if group not in self._joined]
        batches = [self._joining.get(group) or self._join_soon(group) for group in missing]
        # In all of them before any is awaited: one may be over before another.
        waiting: list[asyncio.Future[None]] = []
        for batch in dict.fromkeys(batches):
            waiting.append(asyncio.get_running_loop().create_future())
            batch.waiting.append(waiting[-1])
        await asyncio.gather(*waiting)

    def _join_soon(self, group: str) -> "_Batch":
        """Join with the next batch: of all who come while the batch before is on its way."""
        if self._next_batch is None:
            self._next_batch = _Batch()
            if self._joiner is None:
                self._joiner = asyncio.get_running_loop().create_task(self._join_batches())
        self._next_batch.groups.append(group)
        self._joining[group] = self._next_batch
        return self._next_batch

    async def _join_batches(self) -> None:
        try:
            while self._next_batch is not None:
                batch, self._next_batch = self._next_batch, None
                error: Exception | None = None
                try:
                    await groups_add(self.layer, batch.groups, self._channel)
                    self._joined.update(batch.groups)
                except Exception as caught:  # noqa: BLE001 - handed to those who wait
                    error = caught
                for group in batch.groups:
                    del self._joining[group]
                settle(batch.waiting, error=error)
        finally:
            self._joiner = None

    def leave(self, session: Session, group: str) -> None:
        """Take a session out of a group; the layer's group is left later, by `leave_empty`."""
        members = self.groups.get(group)
        if members is not None:
            members.discard(session)
            if not members:
                del self.groups[group]
                self._held.pop(group, None)  # whoever comes next reads what is pending
                if group != ALL:
                    self._empty_since[group] = asyncio.get_running_loop().time()

    def remove(self, session: Session, groups: list[str]) -> None:
        """Forget a session."""
        if self.sessions.pop(session.id, None) is not None:
            reason = metrics.reason_of(session.close_code)
            metrics.CLOSED.labels(session.kind.transport, reason).inc()
        for group in (ALL, *groups):
            self.leave(session, group)

    async def leave_empty(self, linger: float) -> None:
        """Leave the layer's groups that have had no session for `linger` seconds."""
        limit = asyncio.get_running_loop().time() - linger
        # The dict keeps the order in which groups became empty.
        due = []
        for group, since in self._empty_since.items():
            if since > limit:
                break
            if group not in self._joining:
                due.append(group)
        for group in due:
            del self._empty_since[group]
        due = [group for group in due if group in self._joined]
        if not due:
            return
        self._joined.difference_update(due)
        leaving = asyncio.ensure_future(groups_discard(self.layer, due, self._channel))
        self._leaving.update(dict.fromkeys(due, leaving))
        try:
            await leaving
        finally:
            for group in due:
                del self._leaving[group]

    # Messages

    async def _read(self) -> None:
        while True:
            try:
                for _ in range(FAIRNESS):
                    message = await self.layer.receive(self._channel)
                    if message.get("ensure"):
                        await self._room_for(message["group"])
                    self.handle(message)
                # As long as messages are there, `receive` returns without giving others a turn.
                await asyncio.sleep(0)
            except Exception:
                # The one reader must outlive whatever one message or the layer does to it.
                logger.exception("a message from the channel layer could not be handled")
                await asyncio.sleep(RETRY_INTERVAL)

    async def _room_for(self, group: str) -> None:
        """Wait until a group's outbox has room; what is behind in the layer waits along."""
        # Rare, and over in milliseconds: not worth an event of its own.
        while (outbox := self.outboxes.get(group)) is not None and outbox.is_full:  # noqa: ASYNC110
            await asyncio.sleep(conf.BATCH_WINDOW)

    def handle(self, message: dict[str, Any]) -> None:
        """Deliver a message to its group, or carry out an order to close sessions."""
        if message["type"] == MESSAGE:
            self._deliver(message)
        elif message["type"] == CLOSE:
            self._close(message)
        elif message["type"] == ECHO:
            self.last_echo = asyncio.get_running_loop().time()
            settle(self._echo_waiters)
            self._echo_waiters.clear()
        elif message["type"] == DRAIN:
            self.background.run(self.on_drain())
        else:
            logger.warning("unknown message type %r from the channel layer", message["type"])

    def _deliver(self, message: dict[str, Any]) -> None:
        group = message["group"]
        if group not in self.groups:
            return
        outgoing = Outgoing(
            message["id"],
            message["op"],
            message["body"],
            message["is_json"],
            message["key"],
            ensure=message.get("ensure", False),
            at=message.get("at", 0.0),
        )
        if not outgoing.key:
            self.live.add(outgoing.id, ALL)
        if message.get("spread"):
            if self._is_new(group, outgoing):
                self._spread(outgoing, message["spread"])
            return
        if "trace" in message:
            outgoing.span = tracing.begin("imgo.deliver", message["trace"], push_id=outgoing.id)
        if self._held and (held := self._held.get(group)) is not None:
            if len(held.messages) < HELD_MAX:
                held.messages.append(outgoing)
            return  # what is too much is pending, and found by the next audit
        self.deliver(group, outgoing)

    def _spread(self, message: Outgoing, seconds: float) -> None:
        """Write a message to all sessions, a few at a time; others overtake it."""
        if self._spreading >= SPREADS_MAX:
            self.count_drop("busy_group")
            return
        self._spreading += 1
        self.background.run(self._write_spread(message, seconds))

    async def _write_spread(self, message: Outgoing, seconds: float) -> None:
        try:
            await write_spread(tuple(self.groups.get(ALL, ())), message, seconds)
        finally:
            self._spreading -= 1

    def deliver(self, group: str, message: Outgoing) -> None:
        """Give a message to all sessions of a group, unless it is a second copy."""
        if not self._is_new(group, message):
            return
        outbox = self.outboxes.get(group)
        if outbox is None:
            batch_max = 1 if is_key_group(group) else conf.BATCH_MAX
            outbox = self.outboxes[group] = Outbox(self, group, batch_max)
        outbox.offer(message)

    def _is_new(self, group: str, message: Outgoing) -> bool:
        """Whether it is no second copy; what nobody has accepted, as a picture, has no id."""
        recent = self.delivered if message.key else self.passed
        return not message.id or recent.add(message.id, group)

    async def echo(self, patience: float) -> bool:
        """Whether the layer carries a message of this node back to it within `patience` seconds.

        Raises what the layer raises, or `TimeoutError` when it does not even take it.
        """
        group = node_group(self.node_id)
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._echo_waiters.append(waiter)
        try:
            async with asyncio.timeout(patience):
                await self.layer.group_send(group, as_layer_message(echo_envelope(group)))
            await asyncio.wait([waiter], timeout=patience)
            return waiter.done()
        finally:
            if not waiter.done():  # or they would gather for as long as the layer is away
                self._echo_waiters.remove(waiter)

    # Recovery: see `recovery.py`

    def hold(self, groups: Iterable[str]) -> None:
        """Keep back what comes for these groups, until as many calls of `release`."""
        for group in groups:
            if group in self.groups:
                self._held.setdefault(group, _Held()).count += 1

    def release(self, groups: Iterable[str]) -> None:
        """Deliver what was kept back for these groups, unless another still holds it."""
        for group in groups:
            held = self._held.get(group)
            if held is not None:
                held.count -= 1
                if not held.count:
                    del self._held[group]
                    for message in held.messages:
                        self.deliver(group, message)

    def count_drop(self, reason: str) -> None:
        """Count a message that was not delivered, and say so now and then."""
        self.drops[reason] += 1
        metrics.DROPS.labels(reason).inc()
        if self.drops[reason] % DROP_LOG == 1:
            logger.warning("messages dropped so far, %s: %d", reason, self.drops[reason])

    def _close(self, message: dict[str, Any]) -> None:
        named = message["sessions"]
        if named:
            sessions = [self.sessions[name] for name in named if name in self.sessions]
        else:
            sessions = list(self.groups.get(message["group"], ()))
        for session in sessions:
            session.disconnect(CloseCode(message["code"]), message["reason"])
