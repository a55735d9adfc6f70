"""SQLite: one process, one writer at a time, so that locks are threads' and clocks are ours."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Lock
from typing import Any

from django.db import connection
from django.db.models import Min
from django.utils import timezone

from offline.models import Outbox
from offline.sql.base import Dialect


class SqliteDialect(Dialect):
    """The statements for SQLite."""

    def __init__(self) -> None:
        self._locks: dict[int, Lock] = {}  # by partition: SQLite has no advisory locks

    # Expressions

    def now(self) -> str:
        return _literal(timezone.now())

    def seconds_since(self, column: str) -> str:
        return f"(julianday({self.now()}) - julianday({column})) * 86400"

    def transaction_id(self) -> str:
        return "0"

    def read_time(self, value: Any) -> datetime:
        found: datetime = value  # in UTC, as Django stores it and without a zone
        return found.replace(tzinfo=UTC)

    # The outbox

    @contextmanager
    def partition_lock(self, partition: int, *, wait: bool) -> Iterator[bool]:
        lock = self._locks.setdefault(partition, Lock())
        is_held = lock.acquire(blocking=wait)
        try:
            yield is_held
        finally:
            if is_held:
                lock.release()

    def partition_ages(self) -> dict[int, float]:
        rows = Outbox.objects.filter(parked_at=None).order_by().values("partition")
        firsts = rows.annotate(first=Min("created_at")).values_list("partition", "first")
        now = timezone.now()
        return {partition: (now - first).total_seconds() for partition, first in firsts}


def _literal(time: datetime) -> str:
    """Return SQL for a time as Django stores it."""
    return f"'{connection.ops.adapt_datetimefield_value(time)}'"
