"""Node: the part of a process that holds sessions, with its hub, registry and acknowledger.

An instance starts its node on first use, and the entry point stops it
(`push/node/node_instance.py`). Nodes of one process are independent of each other.
"""

import asyncio
import logging
import secrets
import socket
import time
from collections.abc import Collection, Iterator
from functools import partial

from channels.layers import get_channel_layer
from django.db import Error as DatabaseError

from imgo_site.conf import conf
from imgo_site.database_clock import DatabaseClock
from imgo_site.database_threads import Users, cluster_threads
from imgo_site.errors import Unavailable
from imgo_site.process_parts import process
from push.bus import publish
from push.bus.envelope import close_envelope
from push.bus.group_names import key_group, node_group, room_group
from push.bus.layers import forget_watcher, watch_gaps
from push.hooks.client import HookClient
from push.metrics import definitions as metrics
from push.models import Node as NodeRow
from push.models import WebhookCursor
from push.node import reach_counts, read_reports
from push.node.cluster_jobs import ClusterJobs
from push.node.coalescer import write_to_all
from push.node.device_thread import DeviceThread
from push.node.gap_recovery import GapRecovery
from push.node.hub import Hub
from push.node.publish_limits import PublishLimits
from push.node.receipts import Receipts
from push.node.room_membership import RoomMembership
from push.node.room_sizes import RoomSizes
from push.node.rounds import Rounds
from push.node.runtime import Runtime, finish
from push.node.webhook_thread import WebhookThread
from push.online.lease_watch import READ_EVERY
from push.online.online_keys import RESEND_EVERY, WRITE_EVERY, OnlineKeys
from push.online.room_visits import RoomVisits
from push.presence.node_presence import NodePresence
from push.presence.select import open_presence
from push.registry.base import Entry, NodeEntry
from push.registry.select import open_registry
from push.session.paced_link import Pacer
from push.session.session import Session
from push.session.session_log import FLUSH_EVERY, SessionLog
from push.session.session_metrics import SessionFigures
from push.session.session_records import SessionEvent
from push.status.instance import Instance
from push.wire import CloseCode

logger = logging.getLogger(__name__)

CLOSE_SPACING = 0.5  # seconds between two closes while a node drains, at most
STOP_TIMEOUT = 5.0  # seconds beyond DRAIN_SECONDS for all of `Node.stop`
ROUNDS_TIMEOUT = 1.0  # seconds of them for the rounds and the cluster's jobs to end
DRAINED_TIMEOUT = 2.5  # seconds of them that the last writes of closed sessions may take
THREADS_TIMEOUT = 0.5  # seconds of them for database calls that nobody awaits any more
DISMISSED_TIMEOUT = 1.0  # seconds of them for removing sessions from the registry
STOPPING = "The server is stopping; come back in a moment."
DRAINED = "This server takes no sessions for now; come back, or to another."


def own_name() -> str:
    """Return the name of the node of these settings."""
    return conf.NODE_NAME or f"{socket.gethostname()}:{conf.HTTP_PORT}"


def groups_of(session: Session) -> list[str]:
    """Return the groups that a session is in, without the group of all sessions."""
    names = (session.key, session.identity.alias) if session.identity.alias else (session.key,)
    return [*map(key_group, names), *map(room_group, session.rooms)]


class Node:
    """Holder of sessions, and owner of all that serves them.

    `instance`: its health and caches are this node's.
    `name`: the name of its row in the database, which other running nodes must not have.
    """

    def __init__(self, instance: Instance, name: str) -> None:
        self.id = secrets.token_hex(4)
        self.name = name
        self.health = instance.health
        self.guard = instance.guard
        self.hub = Hub(get_channel_layer(), self.id)
        self.hub.on_drain = self.drain_on_order
        self.hub.on_undrain = self.undrain
        self.registry = open_registry()
        self.rooms = RoomSizes(self.hub, self.registry, self.id)
        self.presence = NodePresence(
            self.hub,
            self.id,
            open_presence(self.id),
            lambda sessions, notice: write_to_all(sessions, notice, self.hub.written),
            partial(cluster_threads.run, NodeRow.objects.live_numbers),
        )
        self.acknowledger = read_reports.reporting_acknowledger(self.hub.background)
        self.receipts = Receipts(self.hub, self.acknowledger, self.rooms)
        self.gap_recovery = GapRecovery(self.hub, self.acknowledger)
        self.runtime = Runtime()
        self.clock = DatabaseClock()
        self.hub.now = self.clock.now
        self.pacer = Pacer()
        self.publish_limits = PublishLimits(time.monotonic)
        self.hooks = HookClient()
        self.session_log = SessionLog(self.name, self.clock.now)
        has_events = conf.EVENT_KEYS or conf.EVENT_ROOMS
        self.online = OnlineKeys(self.name, self._openings) if has_events else None
        room_visits: RoomVisits | None = None
        if self.online is not None and conf.EVENT_ROOMS:
            room_visits = RoomVisits(self.online, self.name, self.clock.now)
        self.rounds = Rounds(self)
        self.cluster_jobs = ClusterJobs(self.hub, instance.rooms)
        self.webhooks = WebhookThread()
        self.devices = DeviceThread()
        self.entries: dict[str, Entry] = {}  # of all sessions in the registry, by their ids
        self.membership = RoomMembership(
            self.hub, self.registry, self.presence, self.entries, room_visits
        )
        self._counter = 0
        self.is_draining = False
        self._is_stopping = False

    async def start(self) -> None:
        """Announce the node, start receiving, and start its tasks. Raises what a part raises."""
        row = await cluster_threads.run(NodeRow.objects.announce, self.name)
        if conf.WEBHOOKS:  # before there are sessions, whose events it is to have
            await cluster_threads.run(WebhookCursor.objects.begin)
        await self.clock.renew()
        await self.registry.start(self._entry(row.pk))
        try:
            await self.hub.start()
        except BaseException:
            await self._leave_registry()
            raise
        try:
            await self.presence.start(row.pk)
        except BaseException:
            await self.hub.stop()
            await self._leave_registry()
            raise
        publish.use_loop(asyncio.get_running_loop())
        process.get(Users).begin()
        process.get(SessionFigures).begin(self.hub)
        watch_gaps(self.hub.layer, self)
        self.runtime.keep("acknowledger", self.acknowledger.run)
        self.runtime.repeat("reach", self.hub.reach_counts.flush, reach_counts.FLUSH_EVERY)
        self.runtime.repeat("presence", self.presence.round, self.presence.every)
        self.runtime.repeat("session records", self.session_log.flush, FLUSH_EVERY)
        if self.online is not None:
            self.runtime.repeat("online keys", self.online.write, WRITE_EVERY)
            self.runtime.repeat("online lease", self.online.beat, conf.NODE_LEASE / 3)
            self.runtime.repeat("keys of lost nodes", self.online.reap, READ_EVERY)
            self.runtime.repeat("dropped online events", self.online.resend, RESEND_EVERY)
        self.rounds.start()
        self.cluster_jobs.start()
        self.webhooks.start()
        self.devices.start()
        self.health.watch(self.failing)

    def _entry(self, number: int) -> NodeEntry:
        """Return this node's entry for the registry. `number`: the primary key of its row."""
        since = self.clock.now()
        return NodeEntry(self.id, self.name, number, since, address=conf.NODE_ADDRESS)

    async def drain(self) -> None:
        """Accept no more sessions, and close the present ones one after the other.

        Sessions are closed with a code that tells clients to reconnect. The closes are spread over
        `DRAIN_SECONDS`, so that clients do not all reconnect at once. `undrain` ends a drain.
        """
        self.is_draining = True
        self.health.draining()
        sessions = list(self.hub.sessions.values())
        spacing = min(CLOSE_SPACING, conf.DRAIN_SECONDS / max(1, len(sessions)))
        begin = time.monotonic()
        for place, session in enumerate(sessions, 1):
            session.disconnect(CloseCode.GOING_AWAY)
            await asyncio.sleep(max(0.0, begin + place * spacing - time.monotonic()))
            if not self.is_draining:
                return

    async def drain_on_order(self) -> None:
        """Drain on an operator's order, and log it. `undrain` reverses it."""
        count, begin = len(self.hub.sessions), time.monotonic()
        logger.info("node %s: an operator started a drain, closing %d sessions", self.name, count)
        await self.drain()
        if self.is_draining:
            logger.info("node %s is drained, after %.1f s", self.name, time.monotonic() - begin)

    async def undrain(self) -> None:
        """Accept sessions again after a drain on order; do nothing if the node is stopping."""
        if self.is_draining and not self._is_stopping:
            self.is_draining = False
            self.health.undrained()
            logger.info("node %s accepts sessions again", self.name)

    async def stop(self) -> None:
        """Drain, finish pending writes, and leave the registry.

        Ends within `DRAIN_SECONDS` + `STOP_TIMEOUT` seconds, even if a service does not answer.
        Receipts that cannot be written by then are lost, and their messages are delivered again.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + conf.DRAIN_SECONDS + STOP_TIMEOUT
        sessions = list(self.hub.sessions.values())
        self._is_stopping = True
        self.health.stopping()
        self.health.forget(self.failing)
        await self.drain()
        rounds_end = min(deadline, loop.time() + ROUNDS_TIMEOUT)
        await asyncio.gather(self.rounds.stop(rounds_end), self.cluster_jobs.stop(rounds_end))
        senders = (self.webhooks.stop(deadline), self.devices.stop(deadline))
        senders_end = asyncio.gather(*senders)
        links = [session.link.drained() for session in sessions]
        await finish(asyncio.gather(*links), loop.time() + DRAINED_TIMEOUT, "reading by clients")
        dismissals = asyncio.gather(*(self.dismiss(session) for session in sessions))
        await finish(dismissals, loop.time() + DISMISSED_TIMEOUT, "taking sessions out")
        forget_watcher(self.hub.layer, self)
        await finish(self.hub.stop(), deadline, "the hub")
        process.get(SessionFigures).end(self.hub)
        await self.runtime.stop(deadline)
        publish.leave_loop(loop)
        await asyncio.gather(
            finish(self.acknowledger.stop(), deadline, "writing receipts"),
            finish(self.hub.reach_counts.flush(), deadline, "writing the reach of messages"),
            finish(self.session_log.flush(), deadline, "writing session records"),
            finish(self._leave_online(), deadline, "leaving the table of online keys"),
            finish(self.hooks.close(), deadline, "closing connections to the backend"),
            finish(self._leave_registry(), deadline, "leaving the registry"),
            finish(self.presence.stop(), deadline, "leaving the rooms with presence"),
            finish(self.hub.layer_groups.leave_all(), deadline, "leaving the channel layer"),
            finish(senders_end, deadline, "the senders of webhooks and notifications"),
        )
        metrics.RECEIPTS_LOST.labels("stop").inc(self.acknowledger.waiting)
        await finish(process.get(Users).end(THREADS_TIMEOUT), deadline, "the database threads")

    def failing(self) -> list[str]:
        """Return the names of this node's tasks that fail repeatedly."""
        parts = (self, self.rounds, self.cluster_jobs, self.webhooks, self.devices)
        return [name for part in parts for name in part.runtime.failing()]

    def layer_lost(self) -> None:
        """Hold the messages of all keys: with the layer's connection lost, some may be missed."""
        self.gap_recovery.begin()

    def layer_regained(self) -> None:
        """Recover missed messages: the layer has joined all groups again."""
        self.rounds.layer_regained()
        self.hub.streams.layer_regained()
        self.gap_recovery.end()
        self.hub.background.run(self._return_to_registry())

    async def _return_to_registry(self) -> None:
        """Connect to the registry again, and renew this node's entries.

        An outage that broke the layer's connection may have broken the registry's, or have erased
        the registry.
        """
        try:
            await self.registry.reconnect()
            await self.rounds.renew()
        except (Unavailable, DatabaseError) as error:
            logger.warning("could not update the registry, retrying at the next renewal: %s", error)

    async def _leave_registry(self) -> None:
        self.entries.clear()  # the remaining sessions leave with the node
        try:
            await self.registry.stop()
        except Exception as error:  # noqa: BLE001 - the lease expires
            logger.warning("the node could not leave the registry: %s", error)

    async def _leave_online(self) -> None:
        if self.online is not None:
            await self.online.stop()

    def _openings(self) -> Iterator[tuple[str, SessionEvent]]:
        """Yield the key of each open session, with its opening."""
        for name, session in self.hub.sessions.items():
            if session.was_opened and (entry := self.entries.get(name)) is not None:
                yield entry.key, self.session_log.event_of(entry)
        if self.membership.room_visits is not None:
            yield from self.membership.room_visits.openings()

    def new_session_id(self) -> str:
        """Return an id that no other session of any node has."""
        self._counter += 1
        return f"{self.id}-{self._counter}"

    # Sessions

    async def admit(
        self, session: Session, entry: Entry, rooms: list[str], later: Collection[str] = ()
    ) -> None:
        """Add a session to the registry, the hub and its rooms.

        `later`: rooms of those whose groups the session enters later (`push/node/stream_joins.py`).
        `dismiss` undoes this, also if it raises or is cancelled.

        Raises `TooManySessions` or `Unavailable`.
        """
        self._check_not_draining()
        evict = conf.SESSION_CAP_POLICY == "close_oldest"
        evicted = await self.registry.add(entry, conf.MAX_SESSIONS_PER_KEY, evict=evict)
        self.entries[session.id] = entry
        for oldest in evicted:
            await self._close_elsewhere(oldest)
        self._check_not_draining()  # `stop` dismisses only the sessions that it finds in the hub
        session.rooms.update(rooms)
        groups = groups_of(session)
        if later:
            apart = set(map(room_group, later))
            groups = [group for group in groups if group not in apart]
        await self.hub.add(session, groups)
        if rooms and session.id in self.entries:
            await self.registry.join(entry, rooms)
            await self.presence.enter(session, rooms)
        if session.id not in self.entries:
            await self.registry.remove(entry, rooms)
            raise Unavailable(STOPPING)
        self.membership.record_visits(session, rooms)

    def _check_not_draining(self) -> None:
        """Raise `Unavailable` if this node accepts no more sessions."""
        if self.is_draining:
            raise Unavailable(STOPPING if self._is_stopping else DRAINED)

    async def _close_elsewhere(self, entry: Entry) -> None:
        order = close_envelope(node_group(entry.node), [entry.id], CloseCode.REPLACED)
        await publish.send([order])

    def record_opened(self, session: Session) -> None:
        """Record that a session's auth frame has been answered."""
        if (entry := self.entries.get(session.id)) is not None:
            session.was_opened = True
            event = self.session_log.opened(entry)
            if self.online is not None:
                self.online.opened(entry.key, event)

    async def dismiss(self, session: Session) -> None:
        """Remove a session from the hub and the registry.

        Never raises. If the registry is unavailable, the session stays in it for a while.
        """
        session.is_closed = True
        self.hub.remove(session, groups_of(session))
        entry = self.entries.pop(session.id, None)
        self.membership.dismissed(session)
        if entry is not None:
            if session.was_opened:
                event = self.session_log.closed(entry, session.close_code)
                if self.online is not None:
                    self.online.closed(entry.key, event)
            try:
                await self.registry.remove(entry, session.rooms)
            except Exception as error:  # noqa: BLE001
                logger.warning("could not remove a session from the registry: %s", error)
