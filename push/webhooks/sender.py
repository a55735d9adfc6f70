"""Sender of webhooks: collects events, composes batches and sends them.

Each node with `WEBHOOKS` has one. A lease in the database lets only one of them work at a time. The
others query every second whether the lease has ended.

All state that matters is in the database. A kill at any moment repeats a request, and loses none.
"""

import asyncio
import logging
import secrets
import time
from typing import TYPE_CHECKING

from django.db import Error as DatabaseError
from django.db import transaction

from imgo_site.database_threads import CLUSTER_PATIENCE, OneDatabaseThread
from offline.event_feed import Horizon
from push.hooks.responses import client_class
from push.metrics import definitions as metrics
from push.webhooks import outbox
from push.webhooks.delivery import deliver
from push.webhooks.endpoints import Endpoint, endpoints
from push.webhooks.outbox import Outcome, Result
from push.webhooks.tables import LEASE, LeaseLost, WebhookBatch, WebhookCursor

if TYPE_CHECKING:
    from push.hooks.http import HttpClient

logger = logging.getLogger(__name__)

TICK = 0.5  # seconds between two searches for new events
STANDBY = 1.0  # seconds between two attempts to acquire the lease
RENEW = LEASE / 4  # seconds between two renewals of an idle sender
REMOVED_EVERY = 60.0  # seconds between two searches for rows of removed endpoints
IN_FLIGHT_MAX = 4  # batches of an endpoint that are sent at a time
COLLECT_ROUNDS = 10  # transactions of one step; further events wait for the next step
LAST_ANSWERS = 0.5  # seconds that a stopping sender waits for answers
LOG_EVERY = 10.0  # seconds between two log lines about one endpoint's failures


class Sender:
    """Sender of one node, for one event loop."""

    def __init__(self) -> None:
        self._owner = secrets.token_hex(8)
        self._threads = OneDatabaseThread("imgo-webhooks-database", CLUSTER_PATIENCE)
        self._work = _Work(self._owner)
        self._requests: dict[int, asyncio.Task[None]] = {}  # by the batch's primary key
        self._results: list[Result] = []
        self._wakeup = asyncio.Event()
        self._logged: dict[str, float] = {}

    async def run(self) -> None:
        """Work, or wait for the lease, until it is cancelled."""
        http = client_class()()
        try:
            while True:
                await self._turn(http)
        finally:
            await self._await_answers()
            await http.close()

    async def stop(self) -> None:
        """Store the results that are known, and end the lease. Call it after `run` has ended."""
        try:
            await self._threads.run(self._work.finish, self._results)
        except DatabaseError as error:
            logger.warning("the lease of webhooks ends by itself: %s", error)
        await asyncio.to_thread(self._threads.close, 1.0)

    async def _turn(self, http: "HttpClient") -> None:
        results, self._results = self._results, []
        self._wakeup.clear()
        try:
            batches = await self._threads.run(self._work.step, results, list(self._requests))
        except LeaseLost:
            logger.warning("another node sends webhooks now")
            self._cancel()
            return
        except DatabaseError as error:
            self._results = results + self._results
            logger.warning("webhooks wait, the database failed: %s", error)
            await asyncio.sleep(STANDBY)
            return
        except BaseException:
            self._results = results + self._results
            raise
        if batches is None:
            self._cancel()
            await asyncio.sleep(STANDBY)
            return
        for endpoint, batch in batches:
            task = asyncio.create_task(self._send(http, endpoint, batch))
            self._requests[batch.pk] = task
        try:
            async with asyncio.timeout(TICK):
                await self._wakeup.wait()
        except TimeoutError:
            pass

    async def _send(self, http: "HttpClient", endpoint: Endpoint, batch: WebhookBatch) -> None:
        try:
            result = await deliver(http, endpoint, batch)
            self._results.append(result)
            if result.error:
                self._log(endpoint, result)
        finally:
            self._requests.pop(batch.pk, None)
            self._wakeup.set()

    def _log(self, endpoint: Endpoint, result: Result) -> None:
        now = time.monotonic()
        if now - self._logged.get(endpoint.url, -LOG_EVERY) >= LOG_EVERY:
            self._logged[endpoint.url] = now
            logger.warning("a webhook to %s failed: %s", endpoint.url, result.error)

    def _cancel(self) -> None:
        """Cancel the requests: the node that has the lease repeats them."""
        for task in self._requests.values():
            task.cancel()
        self._results.clear()

    async def _await_answers(self) -> None:
        """Wait a moment for answers, then cancel the requests. They are repeated later."""
        tasks = list(self._requests.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=LAST_ANSWERS)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


class _Work:
    """The sender's part on the database thread. `step` and `finish` may be repeated."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._is_owner = False
        self._horizon = Horizon(time.monotonic)
        self._upto = 0  # events up to this id can be collected
        self._searched_at = self._renewed_at = self._removed_at = 0.0  # monotonic seconds

    def step(
        self, results: list[Result], in_flight: list[int]
    ) -> list[tuple[Endpoint, WebhookBatch]] | None:
        """Store results, collect, compose; return what must be sent, None without the lease.

        Raises `LeaseLost` if another node has acquired the lease.
        """
        if not self._hold():
            return None
        self._settle(results)
        self._collect()
        self._park_removed()
        batches = []
        for endpoint in endpoints():
            batches += self._batches(endpoint, in_flight)
        return batches

    def finish(self, results: list[Result]) -> None:
        """Store results, and end the lease."""
        if self._is_owner:
            try:
                self._settle(results)
            except LeaseLost:
                return
            WebhookCursor.objects.release(self._owner)

    def _hold(self) -> bool:
        now = time.monotonic()
        if self._is_owner and now - self._renewed_at < RENEW:
            return True
        was_owner, self._is_owner = self._is_owner, WebhookCursor.objects.hold(self._owner)
        self._renewed_at = now
        if was_owner and not self._is_owner:
            raise LeaseLost
        if self._is_owner and not was_owner:
            logger.info("this node sends webhooks now")
            self._horizon, self._upto = Horizon(time.monotonic), 0
        return self._is_owner

    def _require(self) -> None:
        """Lock the lease in the present transaction. Raises `LeaseLost`."""
        try:
            WebhookCursor.objects.require(self._owner)
        except LeaseLost:
            self._is_owner = False
            raise
        self._renewed_at = time.monotonic()

    def _settle(self, results: list[Result]) -> None:
        if not results:
            return
        with transaction.atomic():
            self._require()
            outcomes = [outbox.settle(result) for result in results]
        for outcome, result in zip(outcomes, results, strict=True):
            metrics.WEBHOOK_DELIVERIES.labels(outcome.value).inc()
            if outcome is Outcome.PARKED:
                batch = result.batch
                logger.error(
                    "webhook %d to %s with %d events is parked: %s",
                    batch.pk, batch.endpoint, batch.size, result.error,
                )  # fmt: skip

    def _collect(self) -> None:
        now = time.monotonic()
        if now - self._searched_at >= TICK:
            self._searched_at = now
            self._upto = max(self._upto, self._horizon.advance())
        if self._upto <= (WebhookCursor.objects.position() or 0):
            return
        for _ in range(COLLECT_ROUNDS):
            try:
                has_more = outbox.collect(self._owner, self._upto)
            except LeaseLost:
                self._is_owner = False
                raise
            if not has_more:
                break

    def _park_removed(self) -> None:
        now = time.monotonic()
        if self._removed_at and now - self._removed_at < REMOVED_EVERY:
            return
        with transaction.atomic():
            self._require()
            count = outbox.park_removed()
        if count:
            logger.error("%d events for endpoints that WEBHOOKS does not have are parked", count)
        else:
            self._removed_at = now

    def _batches(
        self, endpoint: Endpoint, in_flight: list[int]
    ) -> list[tuple[Endpoint, WebhookBatch]]:
        """Return the batches of one endpoint that must be sent now; compose some if there are few.

        `in_flight`: primary keys of batches of all endpoints.
        """
        rows = WebhookBatch.objects.filter(pk__in=in_flight, endpoint=endpoint.url)
        free = IN_FLIGHT_MAX - (rows.count() if in_flight else 0)
        if free <= 0:
            return []
        batches = outbox.due(endpoint, in_flight, free)
        if len(batches) < free and outbox.has_events(endpoint):
            with transaction.atomic():
                self._require()
                composed = outbox.compose(endpoint, free - len(batches))
            if composed:
                batches = outbox.due(endpoint, in_flight, free)
        return [(endpoint, batch) for batch in batches]
