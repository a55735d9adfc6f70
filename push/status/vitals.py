"""State of imgo's parts: the database, the layer, the workers and the outbox."""

from dataclasses import dataclass
from typing import Any

from django.db import Error as DatabaseError
from django.db import connection

from imgo_site.conf import conf
from imgo_site.deployment import has_workers
from imgo_site.errors import Unavailable
from imgo_site.estimates import EXACT_MAX, bounded_count, estimated_count
from offline import outbox_queue
from offline.models import Outbox, Pending
from push.bus import service_faults
from push.metrics import database_pool
from push.metrics import definitions as metrics
from push.models import Canary, Duty
from push.registry.select import get_registry
from push.status import readiness
from push.status.bounded_query import BoundedQuery
from push.status.health import Health, State
from push.webhooks.backlogs import backlogs, uncollected_seconds

DEAF_AFTER = 3  # canary intervals
COUNTED_MAX = 10_000  # pending rows that are counted, in some milliseconds; more are estimated


@dataclass(frozen=True)
class Waiting:
    """Messages that wait in the outbox."""

    count: int  # not fanned out yet, without parked ones
    oldest: float  # age of the oldest, seconds
    parked: int


def deaf_workers() -> list[int]:
    """Return the partitions from whose queues no worker has taken a canary for too long."""
    limit = DEAF_AFTER * conf.CANARY_INTERVAL
    return [n for n, seconds in Canary.objects.silence(limit).items() if seconds > limit]


def outbox() -> Waiting:
    """Return the state of the outbox: exact numbers up to `EXACT_MAX`, estimates above."""
    count = bounded_count(Outbox.objects.filter(parked_at=None).order_by("partition", "message"))
    if count > EXACT_MAX:
        count = max(count, estimated_count(Outbox))
    oldest = max(outbox_queue.partition_ages().values(), default=0.0)
    parked = bounded_count(Outbox.objects.exclude(parked_at=None).order_by("pk"))
    return Waiting(count, max(0.0, oldest), parked)


def pending() -> int:
    """Return the number of pending deliveries; above `COUNTED_MAX` an estimate, on Postgres."""
    count: int = Pending.objects.order_by()[: COUNTED_MAX + 1].count()
    if count > COUNTED_MAX and connection.vendor == "postgresql":
        table = Pending._meta.db_table
        with connection.cursor() as cursor:
            # Rows inserted and not deleted, by Postgres's statistics.
            cursor.execute(
                "SELECT n_live_tup FROM pg_stat_user_tables WHERE relid = %s::regclass", [table]
            )
            row = cursor.fetchone()
        count = max(count, row[0] if row else 0)
    return count


class Vitals:
    """Checks of what an instance needs; concurrent probes share the queries.

    `health`: the instance's.
    """

    def __init__(self, health: Health) -> None:
        self._health = health
        self.query_database = BoundedQuery(_database_checks)
        self.query_layer = BoundedQuery(_layer_check)
        self.query_broker = BoundedQuery(readiness.try_broker)
        self.query_gauges = BoundedQuery(_read_gauges)

    def report(self) -> tuple[bool, dict[str, Any]]:
        """Return whether the instance is ready, and the results of all checks, for `/readyz`.

        The checks do what a login and a push need, within `bounded_query.PATIENCE`. Deaf workers
        and an unavailable broker do not make an instance unready: nodes send overdue messages,
        only later.
        """
        checks: dict[str, Any] = {"process": self._health.state.value}
        is_ready = self._health.state is State.READY
        for query in (self.query_database, self.query_layer, self.query_broker):
            query.begin()
        try:
            checks |= self.query_database()
        except DatabaseError as error:
            checks["database"], is_ready = service_faults.of_database(error), False
        except TimeoutError:
            checks["database"], is_ready = "does not answer", False
        try:
            checks["layer"] = self.query_layer()
        except TimeoutError:
            checks["layer"] = "does not answer"
        is_ready = is_ready and checks["layer"] == "ok"
        checks |= self._slower_parts()
        fine = {"ok", "in this process"}
        is_fine = is_ready and all(value in fine for value in checks.values())
        status = "ok" if is_fine else "degraded" if is_ready else "unavailable"
        return is_ready, {"status": status, "checks": checks}

    def _slower_parts(self) -> dict[str, str]:
        """Return the faults that slow the instance down without making it unready."""
        faults = {}
        try:
            broker = self.query_broker()
        except TimeoutError:
            broker = "does not answer"
        if broker != "ok":
            faults["broker"] = broker
        if failing := self._health.failing():
            faults["tasks"] = f"failing: {', '.join(failing)}"
        return faults

    def refresh_metrics(self) -> None:
        """Update the gauges of the whole installation. Never raises."""
        try:
            self.query_gauges()
            metrics.DATABASE_UP.set(1)
        except (DatabaseError, TimeoutError):
            metrics.DATABASE_UP.set(0)
        database_pool.update()


def _database_checks() -> dict[str, str]:
    readiness.try_database()
    deaf = deaf_workers()
    checks = {"database": "ok"}
    if not has_workers():
        checks["workers"] = "in this process"
    else:
        names = ", ".join(map(str, deaf))
        checks["workers"] = f"nobody takes tasks for partition {names}" if deaf else "ok"
    if parked := outbox().parked:
        checks["outbox"] = f"{parked} messages are parked"
    return checks


def _layer_check() -> str:
    try:
        readiness.try_layer(get_registry())
    except Unavailable as error:
        return error.message.removeprefix("Redis ").removesuffix(".")
    return "ok"


def _read_gauges() -> None:
    limit = DEAF_AFTER * conf.CANARY_INTERVAL
    for partition, seconds in Canary.objects.silence(limit).items():
        metrics.WORKER_SILENCE.labels(str(partition)).set(seconds)
        metrics.WORKER_DEAF.labels(str(partition)).set(seconds > limit)
    metrics.PENDING.set(pending())
    waiting = outbox()
    metrics.OUTBOX.set(waiting.count)
    metrics.OUTBOX_AGE.set(waiting.oldest)
    metrics.OUTBOX_PARKED.set(waiting.parked)
    if conf.WEBHOOKS:
        _read_webhook_gauges()
    duties = Duty.objects.filter(name__in=("prune", "balance"))
    results = dict(duties.values_list("name", "result"))
    if pruned := results.get("prune"):
        metrics.STREAM_BYTES.set(pruned["stream_bytes"])
    if balance := results.get("balance"):
        _set_balance(balance)


def _set_balance(balance: dict[str, Any]) -> None:
    for name in ("accepted", "pending", "missing"):
        metrics.BALANCE.labels(name, "").set(balance[name])
    for name, count in balance["settled"].items():
        kind, _, reason = name.partition(":")
        metrics.BALANCE.labels(kind, reason).set(count)


def _read_webhook_gauges() -> None:
    all_backlogs = backlogs()
    metrics.WEBHOOK_BACKLOG.set(sum(backlog.waiting for backlog in all_backlogs))
    metrics.WEBHOOK_PARKED.set(sum(backlog.parked for backlog in all_backlogs))
    oldest = max(backlog.oldest for backlog in all_backlogs)
    metrics.WEBHOOK_AGE.set(max(oldest, uncollected_seconds()))
