"""What a node does again and again: for its sessions, for its groups, and for all nodes together.

One round serves all sessions, instead of a timer for each. What is to be done once, however many
nodes there are, is a duty that one of them claims in the database.
"""

import asyncio
import heapq
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from kombu.exceptions import OperationalError as BrokerError

from accounts.revalidation import revoked
from imgo_site.conf import conf
from imgo_site.database_threads import cluster_threads, session_threads
from imgo_site.deployment import has_workers
from imgo_site.errors import Unavailable
from imgo_site.names import DASHBOARD_ROOM
from imgo_site.postgres.limits import limited
from offline import conservation, outbox_queue, retention, settlement
from offline.outbox_queue import Busy
from push import audience, metrics, process_list, publish, snapshot
from push.fanout import drain
from push.groups import room_group
from push.layers import reconnect
from push.models import Canary, Dedupe, Duty, SessionRecord
from push.models import Node as NodeRow
from push.recovery import recover
from push.registry import ProcessEntry
from push.runtime import Kept, Runtime, run_once
from push.session import Session, deliveries
from push.tasks import canary, queue_of
from push.wire import CloseCode

if TYPE_CHECKING:
    from push.node import Node

logger = logging.getLogger(__name__)

T = TypeVar("T")

WAITING_MAX = 1_000  # sessions of which it is said how many bytes wait for them
TICK = 1.0  # seconds between two rounds of what is most urgent
REPLAY_MEMORY = 300.0  # seconds that a live copy of a replayed message may be on its way
ECHO_EVERY = 2.0  # seconds
ECHO_TIMEOUT = 15.0  # seconds without an echo until the layer's connection is taken for dead
SILENCE_MAX = 5.0  # seconds without any message until then; a busy node hears others' ones
PRUNE_EVERY = 30.0  # seconds between deletions of what is over
BALANCE_EVERY = 60.0  # seconds
BALANCE_LATEST = 100_000  # messages that the balance of the metrics is about


class Upkeep:
    """The rounds of one node."""

    def __init__(self, node: "Node") -> None:
        self._node = node
        self._hub = node.hub
        self.runtime = Runtime()
        self._since = time.time()  # Unix time, seconds
        self._reconnected = 0.0  # monotonic seconds
        self._to_audit: list[str] = []
        self._audit_size = 0
        self._to_revalidate: list[Session] = []
        self._revalidate_size = 0

    def start(self) -> None:
        """Begin, on a runtime of its own; needs a running loop."""
        self._hub.last_echo = self._hub.last_heard = asyncio.get_running_loop().time()
        rounds = [
            (self.close_silent, max(TICK, min(5.0, conf.HEARTBEAT_TIMEOUT / 10))),
            (self.leave_groups, TICK),
            (self.renew, conf.NODE_LEASE / 3),
            (self.announce, conf.NODE_LEASE / 3),
            (self.sweep, max(TICK, conf.SWEEP_AFTER / 2)),
            (self.audit, TICK),
            (self.echo, ECHO_EVERY),
            (self.prune, PRUNE_EVERY),
            (self.balance, BALANCE_EVERY / 2),
            (self.sample, snapshot.SAMPLE_EVERY / 2),
            (self.inform, snapshot.EVERY),
            (self.report, TICK),
            (self.count_rooms, audience.EVERY),
            (self.announce_process, process_list.RENEW_EVERY),
        ]
        if conf.REVALIDATE_INTERVAL:
            rounds.append((self.revalidate, TICK))
        if has_workers():
            rounds.append((self.send_canaries, conf.CANARY_INTERVAL / 2))
        for one, every in rounds:
            self.runtime.repeat(one.__name__, one, every)

    async def warm_up(self) -> None:
        """Do once what takes long the first time, before there are sessions that would feel it.

        The first task makes the way to the broker (30 ms on the event loop's core), the first
        statements make Django compile them.
        """
        await run_once(Kept("sample", self.sample), snapshot.SAMPLE_EVERY)
        if has_workers():
            await run_once(Kept("send_canaries", self.send_canaries), conf.CANARY_INTERVAL)

    async def stop(self, deadline: float = float("inf")) -> None:
        """End all rounds, by `deadline` (loop time)."""
        await self.runtime.stop(deadline)

    # For its sessions

    async def close_silent(self) -> None:
        """Close sessions without a sign of life, and those whose identity has expired."""
        oldest = asyncio.get_running_loop().time() - conf.HEARTBEAT_TIMEOUT
        now = self._node.clock.now()
        for session in list(self._hub.sessions.values()):
            if session.last_seen < oldest:
                session.disconnect(CloseCode.HEARTBEAT_TIMEOUT)
            elif session.expires_at is not None and session.expires_at <= now:
                session.disconnect(CloseCode.EXPIRED)
            elif session.opened < now - REPLAY_MEMORY:
                session.forget_replayed()

    async def revalidate(self) -> None:
        """Look at a slice of the identities again, and close those that no longer stand."""
        if not self._to_revalidate:
            self._to_revalidate = list(self._hub.sessions.values())
            self._revalidate_size = _slice_of(len(self._to_revalidate), conf.REVALIDATE_INTERVAL)
        some = _take(self._to_revalidate, self._revalidate_size)
        looked_at = [s.identity for s in some if not s.is_closed]
        if looked_at:
            gone = {id(one) for one in await session_threads.run(revoked, looked_at)}
            for session in some:
                if id(session.identity) in gone:
                    session.disconnect(CloseCode.REVOKED)

    async def audit(self) -> None:
        """Look for what is pending for a slice of the keys, whatever the reason may be."""
        if not self._to_audit:
            self._to_audit = list({s.key for s in self._hub.sessions.values()})
            self._audit_size = _slice_of(len(self._to_audit), conf.AUDIT_INTERVAL)
        some = _take(self._to_audit, self._audit_size)
        if some:
            await recover(self._hub, self._node.acknowledger, some)

    # For its place among the others

    async def leave_groups(self) -> None:
        """Leave the layer's groups that have been empty for a while."""
        await self._hub.leave_empty(conf.GROUP_LINGER)

    async def renew(self) -> None:
        """Renew the lease.

        After a lost lease every entry is written again. A session that was dismissed meanwhile
        would come back to life by that, so its entry is removed once more.
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
        """Give a sign of life in the database, whose absence must not cost the lease."""
        await cluster_threads.run(NodeRow.objects.announce, self._node.name)
        await self._node.clock.renew()

    async def report(self) -> None:
        """Say how many messages were written to sessions, and what waits, for the dashboard."""
        sessions = self._hub.sessions.values()
        waiting = {one.id: one.link.waiting for one in sessions if one.link.waiting}
        most = heapq.nlargest(WAITING_MAX, waiting, key=waiting.__getitem__)
        rows = {name: waiting[name] for name in most}
        with suppress(Unavailable):  # `renew` says so, less often
            await self._node.registry.report(
                deliveries[0], rows, is_draining=self._node.is_draining
            )

    async def announce_process(self) -> None:
        """Renew the process's entry in the dashboard's list, with what it has counted."""
        node = self._node
        entry = ProcessEntry(node.id, "node", node.name, self._since)
        writing = asyncio.ensure_future(asyncio.to_thread(process_list.announce, entry))
        try:
            with suppress(Unavailable):  # `renew` reports it, less often
                await asyncio.shield(writing)
        except asyncio.CancelledError:
            # Written after the node has left, it would bring the entry back.
            await asyncio.wait([writing])
            raise

    async def count_rooms(self) -> None:
        """Count what other nodes have in the rooms of goim's clients."""
        with suppress(Unavailable):
            await self._node.rooms.look()

    def layer_regained(self) -> None:
        """Redis has just confirmed all subscriptions: the layer is not silent."""
        self._reconnected = asyncio.get_running_loop().time()

    async def echo(self) -> None:
        """Send a message to this node itself; when none comes back, connect to the layer anew."""
        now = asyncio.get_running_loop().time()
        hub, since = self._hub, now - self._reconnected
        silence = min(since, now - max(hub.last_heard, hub.last_echo))
        if silence > SILENCE_MAX or min(since, now - hub.last_echo) > ECHO_TIMEOUT:
            logger.warning("the channel layer is silent, connecting to it again")
            metrics.LAYER_RECONNECTS.labels("silent").inc()
            self._reconnected = now
            await reconnect(self._hub.layer)
        await self._hub.echo(ECHO_EVERY / 2)

    # For all nodes

    async def sweep(self) -> None:
        """Fan out what should have been long ago: its task was lost, or nobody takes tasks."""
        for partition in await cluster_threads.run(_overdue):
            try:
                count = await cluster_threads.run(_drain_now, partition)
            except Busy:
                continue  # somebody is at it
            if count:
                metrics.SWEPT.inc(count)
                logger.warning("a sweep sent %d messages of partition %d", count, partition)

    async def send_canaries(self) -> None:
        """Ask the workers for a sign of life."""
        due = await cluster_threads.run(Canary.objects.due, conf.PARTITIONS, conf.CANARY_INTERVAL)
        if due:
            await asyncio.to_thread(_send_canaries, due)

    async def prune(self) -> None:
        """Settle what has expired, and forget what is past its time, in batches."""
        if await cluster_threads.run(Duty.objects.claim, "prune", PRUNE_EVERY / 2):
            while count := await cluster_threads.run(settlement.expire_batch):
                metrics.DROPS.labels("expired").inc(count)
            while await cluster_threads.run(retention.prune_batch):
                pass
            while await cluster_threads.run(Dedupe.objects.forget):
                pass
            while await cluster_threads.run(SessionRecord.objects.prune):
                pass

    async def balance(self) -> None:
        """Strike the balance of the latest messages, for the metrics of all."""
        if await cluster_threads.run(Duty.objects.claim, "balance", BALANCE_EVERY):
            await cluster_threads.run(_strike_balance)

    async def sample(self) -> None:
        """Keep a sample for the dashboard's plots of the last minutes."""
        every = snapshot.SAMPLE_EVERY
        if await cluster_threads.run(Duty.objects.claim, snapshot.SAMPLES, every * 0.95):
            found = await asyncio.to_thread(snapshot.totals)
            # Not repeated: the sample would be kept twice.
            await cluster_threads.run_once(snapshot.add_sample, found)

    async def inform(self) -> None:
        """Send a picture to the dashboards, if this node has one of them and it is its turn."""
        if not self._hub.groups.get(room_group(DASHBOARD_ROOM)):
            return
        if await cluster_threads.run(Duty.objects.claim, "dashboard", snapshot.EVERY * 0.75):
            live = await asyncio.to_thread(snapshot.assemble, snapshot.of_registry)
            stored = await cluster_threads.run(snapshot.assemble, snapshot.of_database)
            problems = live["problems"] + stored["problems"]
            picture = {**live, **stored, "problems": problems}
            await publish.send([snapshot.envelope(picture)])


def _slice_of(count: int, interval: float) -> int:
    """How many of `count` a round takes so that all have a turn within `interval` seconds."""
    return -(-count // max(1, int(interval / TICK)))


def _take(left: list[T], count: int) -> list[T]:
    """Take the last `count` out of a list."""
    some = left[-count:] if count else []
    del left[len(left) - len(some) :]
    return some


def _overdue() -> list[int]:
    with limited():
        return outbox_queue.overdue_partitions(conf.SWEEP_AFTER)


def _drain_now(partition: int) -> int:
    return drain(partition, wait=False)


def _send_canaries(partitions: list[int]) -> None:
    try:
        for n in partitions:
            canary.apply_async((n,), queue=queue_of(n), expires=conf.CANARY_INTERVAL)
    except (BrokerError, OSError, AttributeError) as error:
        # AttributeError: of kombu, for a channel whose connection was lost between two steps.
        logger.warning("the broker cannot be reached for a canary: %s", error)


def _strike_balance() -> None:
    found = conservation.balance_of_latest(BALANCE_LATEST)
    Duty.objects.filter(name="balance").update(result=found.as_dict())
    if found.missing:
        logger.error("%d deliveries are unaccounted for: manage.py conserve", found.missing)
