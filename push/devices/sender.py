"""Sender of notifications: turns due notices into notifications, and sends and closes those.

Each node with a provider has one. They need no lease: the rows that one has locked or claimed are
not the others'. All state that matters is in the database.
"""

import asyncio
import logging
import time
from typing import Any

from django.db import Error as DatabaseError

from imgo_site.conf import conf
from imgo_site.database_threads import CLUSTER_PATIENCE, OneDatabaseThread
from push.devices import notices, queue
from push.devices.addresses import configured
from push.devices.closings import Watch
from push.devices.jobs import Job, NoAnswer, Outcome, Result
from push.devices.providers.base import Provider
from push.devices.providers.select import make

logger = logging.getLogger(__name__)

TICK = 0.5  # seconds between two searches for due notices and notifications
OUTAGE_PAUSE = 1.0  # seconds after a failure of the database
EXPAND_ROUNDS = 10  # parts of notices in one step; further ones wait for the next step
LAST_ANSWERS = 0.5  # seconds that a stopping sender waits for answers
LOG_EVERY = 10.0  # seconds between two log lines about one provider's failures


class Lane:
    """One provider of a sender: what it sends at the moment, and how much it may send.

    It has a token bucket of `NOTIFY_RATE` a second, and `NOTIFY_CONCURRENCY` places.
    """

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.tasks: set[asyncio.Task[None]] = set()
        self._paused_until = 0.0  # monotonic seconds
        self._tokens = float(conf.NOTIFY_RATE)
        self._filled_at = time.monotonic()
        self._logged_at = float("-inf")

    @property
    def free(self) -> int:
        """Number of notifications that may be claimed now."""
        now = time.monotonic()
        self._tokens += (now - self._filled_at) * conf.NOTIFY_RATE
        self._tokens = min(self._tokens, float(conf.NOTIFY_RATE))
        self._filled_at = now
        if now < self._paused_until:
            return 0
        return max(0, min(conf.NOTIFY_CONCURRENCY - len(self.tasks), int(self._tokens)))

    def use(self, count: int) -> None:
        """Take `count` tokens of the bucket."""
        self._tokens -= count

    async def send(self, job: Job) -> Result:
        """Send one notification. Raises only if it is cancelled, or for a bug."""
        try:
            async with asyncio.timeout(conf.NOTIFY_TIMEOUT):
                result = await self.provider.send(job)
        except TimeoutError:
            result = Result(Outcome.RETRY, "timeout")
        except NoAnswer as error:
            result = Result(Outcome.RETRY, error.reason)
        if result.pauses:
            pause = min(result.retry_after, queue.RETRY_AFTER_MAX)
            # A longer pause may be under way: requests that were sent before it are answered later.
            self._paused_until = max(self._paused_until, time.monotonic() + pause)
        if result.outcome is not Outcome.SENT:
            self._log(job, result)
        return result

    def _log(self, job: Job, result: Result) -> None:
        """Log a failure, without the address."""
        now = time.monotonic()
        if now - self._logged_at >= LOG_EVERY:
            self._logged_at = now
            logger.warning(
                "%s has not taken the notification of message %d to device %d: %s (%s)",
                job.provider, job.message_id, job.device_id, result.reason, result.outcome.value,
            )  # fmt: skip


class NotificationSender:
    """Sender of one node, for one event loop."""

    def __init__(self) -> None:
        self._threads = OneDatabaseThread("imgo-devices-database", CLUSTER_PATIENCE)
        self._lanes: dict[str, Lane] = {}
        self._results: list[tuple[Job, Result]] = []
        self._watch = Watch()
        self._wakeup = asyncio.Event()

    async def run(self) -> None:
        """Work until it is cancelled."""
        self._lanes = {name: Lane(make(name)) for name in configured()}
        try:
            while True:
                await self._turn()
        finally:
            await self._await_answers()
            for lane in self._lanes.values():
                await lane.provider.close()

    async def stop(self) -> None:
        """Store the outcomes that are known. Call it after `run` has ended."""
        try:
            await self._threads.run(queue.settle, self._results)
        except DatabaseError as error:
            logger.warning("notifications without an outcome are sent again: %s", error)
        await asyncio.to_thread(self._threads.close, 1.0)

    async def _turn(self) -> None:
        results, self._results = self._results, []
        self._wakeup.clear()
        free = {name: lane.free for name, lane in self._lanes.items()}
        try:
            jobs = await self._threads.run(step, results, free, self._watch)
        except DatabaseError as error:
            self._results = results + self._results
            logger.warning("notifications wait, the database failed: %s", error)
            await asyncio.sleep(OUTAGE_PAUSE)
            return
        except BaseException:
            self._results = results + self._results
            raise
        for job in jobs:
            lane = self._lanes[job.provider]
            lane.use(1)
            task = asyncio.create_task(self._send(lane, job))
            lane.tasks.add(task)
            task.add_done_callback(lane.tasks.discard)
        try:
            async with asyncio.timeout(TICK):
                await self._wakeup.wait()
        except TimeoutError:
            pass

    async def _send(self, lane: Lane, job: Job) -> None:
        try:
            result = await lane.send(job)
        except Exception:
            # A bug. The lease ends, and the attempts are counted, so it does not go on for ever.
            logger.exception("the notification of message %d was not sent", job.message_id)
            result = Result(Outcome.RETRY, queue.FAULT)
        self._results.append((job, result))  # the list of this moment: each turn makes another one
        self._wakeup.set()

    async def _await_answers(self) -> None:
        """Wait a moment for answers, then cancel the requests. They are repeated later."""
        tasks: list[asyncio.Task[Any]] = [t for lane in self._lanes.values() for t in lane.tasks]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=LAST_ANSWERS)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def step(results: list[tuple[Job, Result]], free: dict[str, int], watch: Watch) -> list[Job]:
    """Store outcomes, find what is due or must be closed, and claim; return what must be sent.

    `free`: by provider, how many may be claimed. It may be repeated: claims whose answer was lost
    are sent after their lease.
    """
    queue.settle(results)
    if notices.is_due():
        for _ in range(EXPAND_ROUNDS):
            if not notices.expand():
                break
    watch.step()
    ready = {name: count for name, count in free.items() if count}
    if not ready or not queue.has_work(list(ready)):
        return []
    return [job for name, count in ready.items() for job in queue.claim(name, count)]
