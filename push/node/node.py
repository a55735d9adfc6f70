"""The part of a process that holds sessions: its hub, registry and acknowledger, and their care.

There is at most one node in a process. It starts with its first use, because Daphne has no
lifespan events; the command that runs the server stops it.
"""

import asyncio
import logging
import secrets
import socket
import time

from channels.layers import get_channel_layer
from django.db import Error as DatabaseError

from imgo_site.conf import conf
from imgo_site.database_clock import DatabaseClock
from imgo_site.database_threads import cluster_threads
from imgo_site.errors import Unavailable
from offline.node_io import Acknowledger, deliveries
from push.bus import publish
from push.bus.envelope import close_envelope
from push.bus.groups import ALL, key_group, node_group, room_group
from push.bus.layers import on_reconnect
from push.fanout import ONLINE_FACTOR
from push.metrics import definitions as metrics
from push.models import Node as NodeRow
from push.node import reach_counts
from push.node.cluster_jobs import ClusterJobs
from push.node.held_messages import Hold
from push.node.hub import Hub
from push.node.recovery import recover
from push.node.room_sizes import RoomSizes
from push.node.rounds import Rounds
from push.node.runtime import Runtime, finish
from push.registry.base import Entry, NodeEntry
from push.registry.select import get_registry
from push.session import session_metrics
from push.session.paced_link import Pacer
from push.session.session import Outgoing, Session
from push.session.session_log import FLUSH_EVERY, SessionLog
from push.status import health
from push.wire import CloseCode

logger = logging.getLogger(__name__)

CLOSE_SPACING = 0.5  # seconds between two sessions that a node that ends closes, at most
STOP_TIMEOUT = 5.0  # seconds beyond DRAIN_SECONDS for all of `Node.stop`
ROUNDS_TIMEOUT = 1.0  # seconds of them for the rounds and the cluster's jobs to end
DRAINED_TIMEOUT = 2.5  # seconds of them that the last writes of closed sessions may take
DISMISSED_TIMEOUT = 1.0  # seconds of them for taking sessions out of the registry
RECOVERED_TOGETHER = 250  # keys that are held until all of them are recovered
STOPPING = "The server is stopping; come back in a moment."
DRAINED = "This server takes no sessions for now; come back, or to another."
GAP_MARGIN = 2.0  # seconds added to a gap, for what was under way when it began


def own_name() -> str:
    """The name of this process's node."""
    return conf.NODE_NAME or f"{socket.gethostname()}:{conf.HTTP_PORT}"


def groups_of(session: Session) -> list[str]:
    """The groups that a session is in, besides the one of all sessions."""
    names = (session.key, session.identity.alias) if session.identity.alias else (session.key,)
    return [*map(key_group, names), *map(room_group, session.rooms)]


class Node:
    """What holds the sessions of this process."""

    def __init__(self) -> None:
        self.id = secrets.token_hex(4)
        self.name = own_name()
        self.hub = Hub(get_channel_layer(), self.id)
        self.hub.on_drain = self.drain_on_order
        self.hub.on_undrain = self.undrain
        self.registry = get_registry()
        self.rooms = RoomSizes(self.hub, self.registry, self.id)
        self.acknowledger = Acknowledger(lambda why: metrics.RECEIPTS_LOST.labels(why).inc())
        self.runtime = Runtime()
        self.clock = DatabaseClock()
        self.pacer = Pacer()
        self.session_log = SessionLog(self.name, self.clock.now)
        self.rounds = Rounds(self)
        self.cluster_jobs = ClusterJobs(self.hub)
        self.entries: dict[str, Entry] = {}
        self._holds: list[Hold] = []  # while messages may be passing by
        self._gap_began = 0.0  # monotonic seconds
        self._counter = 0
        # More are never pending for a key: the oldest of them was settled in another way.
        self.unacknowledged_max = ONLINE_FACTOR * conf.OFFLINE_MAX
        self.is_draining = False
        self._is_stopping = False

    async def start(self) -> None:
        """Announce the node and begin to receive and to care. Raises what a part raises."""
        publish.use_loop(asyncio.get_running_loop())
        row = await cluster_threads.run(NodeRow.objects.announce, self.name)
        await self.clock.renew()
        await self.registry.start(self._entry(row.pk))
        try:
            await self.hub.start()
        except BaseException:
            await self._leave_registry()
            raise
        session_metrics.node.begin(self.hub)
        on_reconnect(self.hub.layer, self._lost, self._regained)
        self.runtime.keep("acknowledger", self.acknowledger.run)
        self.runtime.repeat("reach", self.hub.reach_counts.flush, reach_counts.FLUSH_EVERY)
        self.runtime.repeat("session records", self.session_log.flush, FLUSH_EVERY)
        self.rounds.start()
        self.cluster_jobs.start()
        health.watch(self.failing)

    def _entry(self, number: int) -> NodeEntry:
        """How the registry shows this node."""
        since = self.clock.now()
        return NodeEntry(self.id, self.name, number, since, address=conf.NODE_ADDRESS)

    async def drain(self) -> None:
        """Take no more sessions, and close those there are, one after the other.

        With a reconnect code, spread over `DRAIN_SECONDS`: they must not all come back in the
        same moment. `undrain` ends it.
        """
        self.is_draining = True
        health.draining()
        sessions = list(self.hub.sessions.values())
        spacing = min(CLOSE_SPACING, conf.DRAIN_SECONDS / max(1, len(sessions)))
        begin = time.monotonic()
        for place, session in enumerate(sessions, 1):
            session.disconnect(CloseCode.GOING_AWAY)
            await asyncio.sleep(max(0.0, begin + place * spacing - time.monotonic()))
            if not self.is_draining:
                return

    async def drain_on_order(self) -> None:
        """Drain for an operator, who may take it back, and log that."""
        count, begin = len(self.hub.sessions), time.monotonic()
        logger.info("node %s is drained on order: %d sessions are closed", self.name, count)
        await self.drain()
        if self.is_draining:
            logger.info("node %s is drained, after %.1f s", self.name, time.monotonic() - begin)

    async def undrain(self) -> None:
        """Take sessions again after a drain on order; nothing happens if the node stops."""
        if self.is_draining and not self._is_stopping:
            self.is_draining = False
            health.undrained()
            logger.info("node %s takes sessions again", self.name)

    async def stop(self) -> None:
        """Drain, finish what is being written, and leave the registry.

        Ends within `DRAIN_SECONDS` + `STOP_TIMEOUT` seconds, whatever is silent: receipts that
        cannot be written are given up, their messages are delivered again.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + conf.DRAIN_SECONDS + STOP_TIMEOUT
        sessions = list(self.hub.sessions.values())
        self._is_stopping = True
        health.stopping()
        health.forget(self.failing)
        await self.drain()
        rounds_end = min(deadline, loop.time() + ROUNDS_TIMEOUT)
        await asyncio.gather(self.rounds.stop(rounds_end), self.cluster_jobs.stop(rounds_end))
        links = [session.link.drained() for session in sessions]
        await finish(asyncio.gather(*links), loop.time() + DRAINED_TIMEOUT, "reading by clients")
        dismissals = asyncio.gather(*(self.dismiss(session) for session in sessions))
        await finish(dismissals, loop.time() + DISMISSED_TIMEOUT, "taking sessions out")
        await finish(self.hub.stop(), deadline, "the hub")
        if session_metrics.node.hub is self.hub:
            session_metrics.node.hub = None
        await self.runtime.stop(deadline)
        await asyncio.gather(
            finish(self.acknowledger.stop(), deadline, "writing receipts"),
            finish(self.hub.reach_counts.flush(), deadline, "writing the reach of messages"),
            finish(self.session_log.flush(), deadline, "writing session records"),
            finish(self._leave_registry(), deadline, "leaving the registry"),
        )
        metrics.RECEIPTS_LOST.labels("stop").inc(self.acknowledger.waiting)
        publish.use_loop(None)

    def failing(self) -> list[str]:
        """Return the names of the tasks of this node that go on failing."""
        runtimes = (self.runtime, self.rounds.runtime, self.cluster_jobs.runtime)
        return [name for runtime in runtimes for name in runtime.failing()]

    def _lost(self) -> None:
        """Keep back what comes: messages may have passed by, and it is not known which."""
        metrics.LAYER_RECONNECTS.labels("lost").inc()
        self.hub.gaps += 1
        if not self._holds:
            self._gap_began = self.hub.last_echo - GAP_MARGIN
        self._hold_keys()

    def _regained(self) -> None:
        """Find out what has passed by: the groups are joined again."""
        self.rounds.layer_regained()
        self._hold_keys()  # those of sessions that have come during the gap too
        keys = list({session.key for session in self.hub.sessions.values()})
        holds, self._holds = self._holds, []
        self.hub.background.run(self._recover(keys, self._gap_began, holds))
        self.hub.background.run(self._return_to_registry())

    def _hold_keys(self) -> None:
        groups = {key_group(session.key) for session in self.hub.sessions.values()}
        groups.difference_update(*(hold.groups for hold in self._holds))
        self._holds.append(self.hub.holds.hold(groups))

    async def _recover(self, keys: list[str], since: float, holds: list[Hold]) -> None:
        try:
            for start in range(0, len(keys), RECOVERED_TOGETHER):
                some = keys[start : start + RECOVERED_TOGETHER]
                await recover(self.hub, self.acknowledger, some, since)
                groups = {key_group(key) for key in some}
                for hold in holds:
                    self.hub.holds.release(hold, groups)
        finally:
            for hold in holds:
                self.hub.holds.release(hold)

    async def _return_to_registry(self) -> None:
        """Where the layer's connection was lost, the registry's may be, and all it knew."""
        try:
            await self.registry.reconnect()
            await self.rounds.renew()
        except (Unavailable, DatabaseError) as error:
            logger.warning("the registry will be written with the next renewal: %s", error)

    async def _leave_registry(self) -> None:
        self.entries.clear()  # whoever is left goes with the node
        try:
            await self.registry.stop()
        except Exception as error:  # noqa: BLE001 - its lease ends by itself
            logger.warning("the node could not leave the registry: %s", error)

    def new_session_id(self) -> str:
        """An id that no other session of any node has."""
        self._counter += 1
        return f"{self.id}-{self._counter}"

    # Sessions

    async def admit(self, session: Session, entry: Entry, rooms: list[str]) -> None:
        """Count a session in and join its groups. Raises `TooManySessions` or `Unavailable`.

        Whatever happens, `dismiss` undoes it.
        """
        self._check_not_draining()
        evict = conf.SESSION_CAP_POLICY == "close_oldest"
        evicted = await self.registry.add(entry, conf.MAX_SESSIONS_PER_KEY, evict=evict)
        self.entries[session.id] = entry
        for oldest in evicted:
            await self._close_elsewhere(oldest)
        self._check_not_draining()  # `stop` dismisses only the sessions that it finds in the hub
        session.rooms.update(rooms)
        await self.hub.add(session, groups_of(session))
        if rooms and session.id in self.entries:
            await self.registry.join(entry, rooms)
        if session.id not in self.entries:
            await self.registry.remove(entry, rooms)
            raise Unavailable(STOPPING)

    def _check_not_draining(self) -> None:
        """Raise `Unavailable` if this node takes no more sessions."""
        if self.is_draining:
            raise Unavailable(STOPPING if self._is_stopping else DRAINED)

    async def _close_elsewhere(self, entry: Entry) -> None:
        order = close_envelope(node_group(entry.node), [entry.id], CloseCode.REPLACED)
        await publish.send([order])

    def note_opened(self, session: Session) -> None:
        """Note that the auth frame of a session has been answered."""
        if (entry := self.entries.get(session.id)) is not None:
            session.was_opened = True
            self.session_log.opened(entry)

    async def dismiss(self, session: Session) -> None:
        """Forget a session. Never raises: the registry forgets by itself what it is not told."""
        session.is_closed = True
        self.hub.remove(session, groups_of(session))
        entry = self.entries.pop(session.id, None)
        if entry is not None:
            if session.was_opened:
                self.session_log.closed(entry, session.close_code)
            try:
                await self.registry.remove(entry, session.rooms)
            except Exception as error:  # noqa: BLE001
                logger.warning("a session stays in the registry for a while: %s", error)

    async def join_room(self, session: Session, room: str) -> None:
        """Put a session into a room; do nothing for a session that was dismissed.

        The client may go at each `await`, and `dismiss` then takes the session out of the rooms
        it has at that moment. Raises `Unavailable`; the session is not in the room then.
        """
        entry = self.entries.get(session.id)
        if entry is None:
            return
        session.rooms.add(room)
        try:
            await self.hub.join(session, room_group(room))
            if session.id in self.entries:
                await self.registry.join(entry, [room])
        except BaseException:
            session.rooms.discard(room)
            self.hub.leave(session, room_group(room))
            raise
        if session.id not in self.entries:
            # The registry may have been told of the end first.
            await self.registry.leave(entry, room)

    async def leave_room(self, session: Session, room: str) -> None:
        """Take a session out of a room."""
        session.rooms.discard(room)
        self.hub.leave(session, room_group(room))
        entry = self.entries.get(session.id)
        if entry is not None:
            await self.registry.leave(entry, room)

    def deliver_late(self, session: Session, message: Outgoing) -> None:
        """See `Session.deliver`: send it if it is due, and before all that comes after it."""
        session.hold(conf.SESSION_BYTES)
        self.hub.background.run(self._deliver_if_due(session, message))

    async def _deliver_if_due(self, session: Session, message: Outgoing) -> None:
        pair = (message.id, session.key)
        at, xmin = self.acknowledger.settled_at(*pair), None
        try:
            if at is None and (had := await deliveries.get(pair)) is not None:
                at, xmin = asyncio.get_running_loop().time() - had.age, had.xmin
            # What has been had by another session is for those that were open by then.
            if at is not None and session.joined_before(at, xmin):
                session.replay(message)
        except DatabaseError as error:
            logger.warning("message %d waits for the next audit: %s", message.id, error)
            self.hub.delivered.forget(message.id, key_group(session.key))
        finally:
            session.release()

    def audience(self, session: Session) -> int:
        """How many sessions are in the room that op 12 leaves: goim's one room of a session."""
        return self.rooms.of(session.change_room)

    def acknowledged(self, message_id: int, session: Session) -> None:
        """Take an acknowledgement of a client.

        What was sent to the session counts. A client may also mean what an earlier session of its
        key was sent: that counts for as many ids as can be pending for a key. The rest is dropped,
        so that a client that names ids at random costs no query and takes no other's place.
        """
        if session.take_acknowledged(message_id):
            self.acknowledger.acknowledged(message_id, session.key, session.id)
        elif not self.hub.live.has(message_id, ALL) and not self.acknowledger.claimed(
            message_id, session.key, session.id
        ):
            metrics.ACKS_DROPPED.inc()

    def delivered(self, message_id: int, session: Session) -> None:
        """The kernel has taken a stored message for a session."""
        if session.acks:
            self.acknowledger.sent(message_id, session.key, session.id)
        else:
            self.acknowledger.received(message_id, session.key, session.id)


_starting: asyncio.Task[Node] | None = None


async def get_node() -> Node:
    """This process's node, started on first use. Raises what its start raises."""
    global _starting  # noqa: PLW0603 - one node a process is the point
    if _starting is None or (_starting.done() and not is_running()):
        _starting = asyncio.get_running_loop().create_task(_start())
    return await asyncio.shield(_starting)


async def _start() -> Node:
    node = Node()
    await node.start()
    return node


async def stop_node(patience: float | None = None) -> None:
    """Stop this process's node, if it was started.

    `patience`: seconds to wait for a start that is under way; then it is given up.
    """
    global _starting
    task, _starting = _starting, None
    if task is None:
        return
    await asyncio.wait([task], timeout=patience)
    if not task.done():
        task.cancel()
    elif not task.cancelled() and task.exception() is None:
        await task.result().stop()


def is_running() -> bool:
    """Whether this process has a node that was started."""
    return (
        _starting is not None
        and _starting.done()
        and not _starting.cancelled()
        and not _starting.exception()
    )
