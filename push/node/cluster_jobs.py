"""Jobs for the whole cluster: one node at a time runs each.

You need no Celery beat or cron. Every node tries each job regularly. A row in the database (`Duty`)
or the lock of a partition decides which node runs it.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial

from kombu.exceptions import OperationalError as BrokerError

from imgo_site.conf import conf
from imgo_site.database_threads import cluster_threads
from imgo_site.deployment import has_workers
from imgo_site.names import DASHBOARD_ROOM
from imgo_site.postgres.limits import limited
from offline import (
    conservation,
    key_devices,
    outbox_queue,
    partitions,
    repartitioning,
    replacement,
    retention,
    settlement,
    stream_retention,
)
from offline.outbox_queue import Busy
from push.bus import publish
from push.bus.group_names import room_group
from push.devices import notices
from push.fanout import drain
from push.metrics import definitions as metrics
from push.models import Canary, Dedupe, Duty, OnlineState, SessionRecord, WebhookCursor
from push.node import due_pushes
from push.node.hub import Hub
from push.node.runtime import Runtime, SupervisedTask, run_once
from push.status import snapshot
from push.tasks import canary, enqueue, queue_of
from push.webhooks import outbox as webhook_outbox

logger = logging.getLogger(__name__)

DUE_EVERY = 0.25  # seconds between two searches for due pushes, in an index
REPARTITION_EVERY = 1.0  # seconds between two checks of a change that its command has left
SWEEP_EVERY_MIN = 1.0  # seconds between two sweeps, at least
PRUNE_EVERY = 30.0  # seconds between two deletions of old rows
PRUNE_ONLINE_EVERY = 86_400.0  # seconds: it reads the state of every key that was ever online
BALANCE_EVERY = 60.0  # seconds
BALANCE_LATEST = 100_000  # messages that the balance of the metrics covers


class ClusterJobs:
    """The cluster's jobs as one node tries them, on a runtime of their own.

    `hub`: the node's, to find out whether one of its sessions is a dashboard's.
    `rooms`: the instance's cache, for the snapshots.
    """

    def __init__(self, hub: Hub, rooms: snapshot.RoomsCache) -> None:
        self._hub = hub
        self._rooms = rooms
        self.runtime = Runtime()

    def start(self) -> None:
        """Start the jobs. Needs a running loop."""
        jobs = [
            (self.send_due, DUE_EVERY),
            (self.repartition, REPARTITION_EVERY),
            (self.sweep, max(SWEEP_EVERY_MIN, conf.SWEEP_AFTER / 2)),
            (self.prune, PRUNE_EVERY),
            (self.balance, BALANCE_EVERY / 2),
            (self.sample, snapshot.SAMPLE_EVERY / 2),
            (self.inform, snapshot.EVERY),
        ]
        if has_workers():
            jobs.append((self.send_canaries, conf.CANARY_INTERVAL / 2))
        for job, every in jobs:
            self.runtime.repeat(job.__name__, job, every)

    async def warm_up(self) -> None:
        """Run the jobs whose first run is slow, before there are sessions to delay.

        The first task opens the connection to the broker, 30 ms on the event loop's core. Django
        compiles its first statements.
        """
        await run_once(SupervisedTask("sample", self.sample), snapshot.SAMPLE_EVERY)
        if has_workers():
            await run_once(
                SupervisedTask("send_canaries", self.send_canaries), conf.CANARY_INTERVAL
            )

    async def stop(self, deadline: float = float("inf")) -> None:
        """End all jobs by `deadline` (loop time)."""
        await self.runtime.stop(deadline)

    async def sweep(self) -> None:
        """Fan out overdue messages: their task was lost, or no worker takes tasks."""
        for partition in await cluster_threads.run(_overdue):
            try:
                count = await cluster_threads.run(_drain_now, partition)
            except Busy:
                continue  # another process drains it
            if count:
                metrics.SWEPT.inc(count)
                logger.warning(
                    "no worker fanned out %d messages of partition %d in time; this node did",
                    count,
                    partition,
                )

    async def send_due(self) -> None:
        """Store the scheduled pushes that are due, and wake the workers of their partitions.

        A batch that is not full is the last one of this turn. Pushes that become due meanwhile wait
        for the next turn, because few large batches cost less than many small ones.
        """
        has_more = True
        while has_more:
            due, has_more = await cluster_threads.run(due_pushes.store)
            await self._fan_out(due)

    async def repartition(self) -> None:
        """Complete a change of the number of partitions, also one whose command was killed."""
        progress = await cluster_threads.run(repartitioning.advance)
        if progress is not None and progress.is_open:
            logger.info("there are %d partitions now", progress.partitions)
            await self._fan_out(range(progress.partitions))

    @staticmethod
    async def _fan_out(due: Collection[int]) -> None:
        if has_workers():
            if due:
                await asyncio.to_thread(enqueue, dict.fromkeys(due, ""))
            return
        for partition in sorted(due):
            with suppress(Busy):  # the other drain, or the sweep, sends them
                await cluster_threads.run(_drain_now, partition)

    async def send_canaries(self) -> None:
        """Enqueue a canary task for each partition that is due one."""
        due = await cluster_threads.run(_due_canaries)
        if due:
            await asyncio.to_thread(_send_canaries, due)

    async def prune(self) -> None:
        """Settle expired messages, and delete records that are past their time, in batches."""
        if await cluster_threads.run(Duty.objects.claim, "prune", PRUNE_EVERY / 2):
            while count := await cluster_threads.run(settlement.expire_batch):
                metrics.DROPS.labels("expired").inc(count)
            last = await cluster_threads.run(stream_retention.prune)
            while last:
                last = await cluster_threads.run(stream_retention.prune, last)
            for delete_batch in _PRUNED:
                while await cluster_threads.run(delete_batch):
                    pass
            await cluster_threads.run(_measure_streams)
            await self._prune_online()

    async def _prune_online(self) -> None:
        if await cluster_threads.run(Duty.objects.claim, "prune online", PRUNE_ONLINE_EVERY):
            key = await cluster_threads.run(OnlineState.objects.prune)
            while key:
                key = await cluster_threads.run(OnlineState.objects.prune, key)

    async def balance(self) -> None:
        """Compute the balance of the latest messages, for the metrics of all processes."""
        if await cluster_threads.run(Duty.objects.claim, "balance", BALANCE_EVERY):
            await cluster_threads.run(_strike_balance)

    async def sample(self) -> None:
        """Store a sample for the dashboard's plots of the last minutes."""
        every = snapshot.SAMPLE_EVERY
        if await cluster_threads.run(Duty.objects.claim, snapshot.SAMPLES, every * 0.95):
            totals = await asyncio.to_thread(snapshot.totals)
            # Not retried: the sample might be stored twice.
            await cluster_threads.run_once(snapshot.add_sample, totals)

    async def inform(self) -> None:
        """Send a snapshot to the dashboards if this node has one of them and claims the job."""
        if not self._hub.groups.get(room_group(DASHBOARD_ROOM)):
            return
        if await cluster_threads.run(Duty.objects.claim, "dashboard", snapshot.EVERY * 0.75):
            of_registry = partial(snapshot.of_registry, self._rooms)
            live = await asyncio.to_thread(snapshot.assemble, of_registry)
            stored = await cluster_threads.run(snapshot.assemble, snapshot.of_database)
            problems = live["problems"] + stored["problems"]
            picture = {**live, **stored, "problems": problems}
            await publish.send([snapshot.envelope(picture)])


def _overdue() -> list[int]:
    with limited():
        return outbox_queue.overdue_partitions(conf.SWEEP_AFTER)


def _due_canaries() -> list[int]:
    return Canary.objects.due(partitions.queues_needed(), conf.CANARY_INTERVAL)


def _prune_messages() -> int:
    return retention.prune_batch(WebhookCursor.objects.limit_of_pruning())


def _forget_devices() -> int:
    forgotten = key_devices.forget_batch()
    metrics.DROPS.labels(key_devices.FORGOTTEN).inc(forgotten.dropped)
    return forgotten.devices


def _measure_streams() -> None:
    """Store the bytes of all streams for the metrics: the sum reads every stream."""
    Duty.objects.filter(name="prune").update(result={"stream_bytes": stream_retention.total_size()})


def _prune_streams_to_size() -> int:
    return stream_retention.prune_to_size(conf.STREAMS_MAX)


# Each deletes one batch of what is past its time, and returns how many it has deleted.
_PRUNED: tuple[Callable[[], int], ...] = (
    _prune_messages,
    replacement.prune_batch,
    _prune_streams_to_size,
    webhook_outbox.forget_parked,
    notices.forget,
    _forget_devices,
    Dedupe.objects.forget,
    SessionRecord.objects.prune,
)


def _drain_now(partition: int) -> int:
    return drain(partition, wait=False)


def _send_canaries(partitions: list[int]) -> None:
    try:
        for n in partitions:
            canary.apply_async((n,), queue=queue_of(n), expires=conf.CANARY_INTERVAL)
    except (BrokerError, OSError, AttributeError) as error:
        # kombu raises AttributeError for a channel whose connection was lost between two steps.
        logger.warning("could not send a canary, the broker cannot be reached: %s", error)


def _strike_balance() -> None:
    balance = conservation.balance_of_latest(BALANCE_LATEST)
    Duty.objects.filter(name="balance").update(result=balance.as_dict())
    if balance.missing:
        logger.error("%d deliveries are missing: run manage.py conserve", balance.missing)
