"""Rounds of a node: periodic jobs for its own sessions and for its registration in the cluster.

One round serves all sessions, instead of a timer for each. Jobs for the whole cluster are in
`push/node/cluster_jobs.py`.
"""

import asyncio
import heapq
import logging
import time
from contextlib import suppress
from typing import Protocol, TypeVar

from accounts.revalidation import revoked
from imgo_site.conf import conf
from imgo_site.database_clock import DatabaseClock
from imgo_site.database_threads import cluster_threads, session_threads
from imgo_site.errors import Unavailable
from offline import key_devices
from offline.node_io import Acknowledger
from push.bus.layers import reconnect
from push.hooks.client import HookClient
from push.metrics import definitions as metrics
from push.models import Node as NodeRow
from push.node import process_list, room_sizes
from push.node.hub import Hub
from push.node.missed_messages import recover
from push.node.room_sizes import RoomSizes
from push.node.runtime import Runtime
from push.registry.base import Entry, ProcessEntry, Registry
from push.session.outgoing import Kind
from push.session.session import Session
from push.wire import CloseCode

logger = logging.getLogger(__name__)

T = TypeVar("T")

WAITING_MAX = 1_000  # sessions whose unsent bytes are reported
TICK = 1.0  # seconds between two rounds of the most frequent jobs
COMMENT_EVERY = 25.0  # seconds between two comments to a session of Server-Sent Events
COMMENT_SPREAD = 5.0  # seconds over which those of all sessions are written
COMMENT = b":\n\n"
REPLAY_MEMORY = 300.0  # seconds that a live copy of a replayed message may take to arrive
DEVICES_EVERY = 600.0  # seconds between two records that a device is connected
ECHO_EVERY = 2.0  # seconds
ECHO_TIMEOUT = 15.0  # seconds without an echo after which the layer's connection counts as dead
SILENCE_MAX = 5.0  # seconds without any message after which it does, too; a busy node gets others


class RoundsNode(Protocol):
    """The parts of a node that its rounds use."""

    id: str
    name: str
    hub: Hub
    registry: Registry
    rooms: RoomSizes
    acknowledger: Acknowledger
    clock: DatabaseClock
    hooks: HookClient
    entries: dict[str, Entry]
    is_draining: bool


class Rounds:
    """Rounds of one node, on a runtime of their own."""

    def __init__(self, node: RoundsNode) -> None:
        self._node = node
        self._hub = node.hub
        self.runtime = Runtime()
        self._since = time.time()  # Unix time, seconds
        self._reconnected = 0.0  # monotonic seconds
        self._to_audit: list[str] = []
        self._to_comment: list[Session] = []
        self._comment_size = 0
        self._next_comments = 0.0  # monotonic seconds
        self._audit_size = 0
        self._to_revalidate: list[Session] = []
        self._revalidate_size = 0

    def start(self) -> None:
        """Start the rounds. Needs a running loop."""
        self._hub.echoes.last = self._hub.last_heard = asyncio.get_running_loop().time()
        rounds = [
            (self.close_silent, max(TICK, min(5.0, conf.HEARTBEAT_TIMEOUT / 10))),
            (self.comment, TICK),
            (self.leave_groups, TICK),
            (self.renew, conf.NODE_LEASE / 3),
            (self.announce, conf.NODE_LEASE / 3),
            (self.audit, TICK),
            (self.audit_streams, conf.AUDIT_INTERVAL),
            (self.echo, ECHO_EVERY),
            (self.report, TICK),
            (self.count_rooms, room_sizes.EVERY),
            (self.announce_process, process_list.RENEW_EVERY),
            (self.refresh_devices, min(DEVICES_EVERY, conf.DEVICE_TTL / 4)),
        ]
        if conf.REVALIDATE_INTERVAL:
            rounds.append((self.revalidate, TICK))
        for duty, every in rounds:
            self.runtime.repeat(duty.__name__, duty, every)

    async def stop(self, deadline: float = float("inf")) -> None:
        """End all rounds by `deadline` (loop time)."""
        await self.runtime.stop(deadline)

    # For its sessions

    async def close_silent(self) -> None:
        """Close sessions that sent no frame for too long, and those whose identity has expired.

        A client of Server-Sent Events sends no frames: see `comment`. Also let older sessions
        forget their replayed messages.
        """
        oldest = asyncio.get_running_loop().time() - conf.HEARTBEAT_TIMEOUT
        now = self._node.clock.now()
        for session in list(self._hub.sessions.values()):
            if session.last_seen < oldest and session.kind is not Kind.EVENTS:
                session.disconnect(CloseCode.HEARTBEAT_TIMEOUT)
            elif session.expires_at is not None and session.expires_at <= now:
                session.disconnect(CloseCode.EXPIRED)
            elif session.opened < now - REPLAY_MEMORY:
                session.forget_replayed()

    async def comment(self) -> None:
        """Write a comment to a slice of the sessions of Server-Sent Events.

        It keeps proxies from closing a quiet stream. If a client has vanished, its bytes are not
        acknowledged, and the kernel ends the connection.
        """
        now = asyncio.get_running_loop().time()
        if not self._to_comment and now >= self._next_comments:
            self._next_comments = now + COMMENT_EVERY
            sessions = self._hub.sessions.values()
            self._to_comment = [session for session in sessions if session.kind is Kind.EVENTS]
            self._comment_size = _slice_of(len(self._to_comment), COMMENT_SPREAD)
        for session in _take(self._to_comment, self._comment_size):
            if session.was_opened and not session.is_closed and not session.link.waiting:
                session.link.write(COMMENT)

    async def revalidate(self) -> None:
        """Check a slice of the identities again, and close sessions of those that were revoked."""
        if not self._to_revalidate:
            self._to_revalidate = list(self._hub.sessions.values())
            self._revalidate_size = _slice_of(len(self._to_revalidate), conf.REVALIDATE_INTERVAL)
        due = _take(self._to_revalidate, self._revalidate_size)
        examined = [s.identity for s in due if not s.is_closed]
        if examined:
            revoked_ids = {
                id(identity) for identity in await session_threads.run(revoked, examined)
            }
            for session in due:
                if id(session.identity) in revoked_ids:
                    session.disconnect(CloseCode.REVOKED)

    async def refresh_devices(self) -> None:
        """Record that the devices of the sessions here are connected."""
        sessions = self._hub.sessions.values()
        pairs = {
            (session.key, session.device) for session in sessions if session.device is not None
        }
        if pairs:
            await cluster_threads.run(key_devices.refresh, pairs)

    async def audit(self) -> None:
        """Deliver long-pending messages of a slice of the keys, whatever the cause of the delay."""
        if not self._to_audit:
            self._to_audit = list({s.key for s in self._hub.sessions.values()})
            self._audit_size = _slice_of(len(self._to_audit), conf.AUDIT_INTERVAL)
        keys = _take(self._to_audit, self._audit_size)
        if keys:
            await recover(self._hub, self._node.acknowledger, keys)

    async def audit_streams(self) -> None:
        """Deliver what the streams of this node's rooms have and this node has not."""
        metrics.STREAM_TAIL_BYTES.set(self._hub.streams.size)
        await self._hub.streams.check()

    # For its registration

    async def leave_groups(self) -> None:
        """Leave the layer's groups that have been empty for a while."""
        await self._hub.layer_groups.leave_empty(conf.GROUP_LINGER)

    async def renew(self) -> None:
        """Renew the lease.

        After a lost lease every entry is written again. That may restore the entry of a session
        that was dismissed meanwhile, so such entries are removed once more.
        """
        node, sessions = self._node, self._hub.sessions
        entries = [
            (entry, sessions[name].rooms)
            for name, entry in node.entries.items()
            if name in sessions
        ]
        await node.registry.renew(len(node.entries), entries)
        for entry, rooms in entries:
            if entry.id not in node.entries:
                await node.registry.remove(entry, rooms)

    async def announce(self) -> None:
        """Record in the database that the node is alive, and renew the clock.

        This is a round of its own, because an outage of the database must not cost the lease.
        """
        await cluster_threads.run(NodeRow.objects.announce, self._node.name)
        await self._node.clock.renew()

    async def report(self) -> None:
        """Report messages written to sessions, and unsent bytes, for the dashboard."""
        sessions = self._hub.sessions.values()
        waiting = {session.id: session.link.waiting for session in sessions if session.link.waiting}
        most = heapq.nlargest(WAITING_MAX, waiting, key=waiting.__getitem__)
        rows = {name: waiting[name] for name in most}
        with suppress(Unavailable):  # `renew` reports it, less often
            await self._node.registry.report(
                self._hub.written.deliveries, rows, is_draining=self._node.is_draining
            )

    async def announce_process(self) -> None:
        """Renew the process's entry in the dashboard's list, with its counters."""
        node = self._node
        hooks = node.hooks.figures()
        entry = ProcessEntry(node.id, "node", node.name, self._since, hooks=hooks)
        writing = asyncio.ensure_future(
            asyncio.to_thread(process_list.announce, entry, node.registry)
        )
        try:
            with suppress(Unavailable):  # `renew` reports it, less often
                await asyncio.shield(writing)
        except asyncio.CancelledError:
            # Written after the node has left, the entry would come back: let the write end first.
            await asyncio.wait([writing])
            raise

    async def count_rooms(self) -> None:
        """Query the number of other nodes' sessions in the rooms of goim's clients."""
        with suppress(Unavailable):
            await self._node.rooms.refresh()

    def layer_regained(self) -> None:
        """Restart the measured silence: Redis has just confirmed all subscriptions."""
        self._reconnected = asyncio.get_running_loop().time()

    async def echo(self) -> None:
        """Send a message to this node through the layer; reconnect if none has come back."""
        now = asyncio.get_running_loop().time()
        hub, since = self._hub, now - self._reconnected
        silence = min(since, now - max(hub.last_heard, hub.echoes.last))
        if silence > SILENCE_MAX or min(since, now - hub.echoes.last) > ECHO_TIMEOUT:
            logger.warning("the channel layer is silent, connecting to it again")
            metrics.LAYER_RECONNECTS.labels("silent").inc()
            self._reconnected = now
            await reconnect(self._hub.layer)
        await self._hub.echoes.send(ECHO_EVERY / 2)


def _slice_of(count: int, interval: float) -> int:
    """Return how many of `count` items a round handles, to handle all within `interval` seconds."""
    return -(-count // max(1, int(interval / TICK)))


def _take(left: list[T], count: int) -> list[T]:
    """Remove the last `count` items from a list and return them."""
    taken = left[-count:] if count else []
    del left[len(left) - len(taken) :]
    return taken
