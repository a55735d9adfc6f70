"""Dialect of SQLite, with threads' locks and Django's clock: it has one process, and one writer."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Any

from django.db import connection
from django.db.models import Count, Expression, Min, Value
from django.utils import timezone

from imgo_site.conf import conf
from offline.models import Message, Outbox, Pending, ScheduledPush
from offline.partitions import current, partitions_of
from offline.sql import sqlite_pages, sqlite_receipts
from offline.sql.base import CHUNK, Dialect, PageKind, chunks
from offline.sql.sqlite_pages import time_literal
from offline.values import DedupeTable, DeviceReceipt, NewMessage, Receipt, Stored


class SqliteDialect(Dialect):
    """Statements for SQLite."""

    def __init__(self) -> None:
        self._locks: dict[int, Lock] = {}  # by partition: SQLite has no advisory locks

    # Expressions

    def now(self) -> str:
        return time_literal(timezone.now())

    def seconds_since(self, column: str) -> str:
        return f"(julianday({self.now()}) - julianday({column})) * 86400"

    def time_before(self, seconds: float) -> str:
        return time_literal(timezone.now() - timedelta(seconds=seconds))

    def cluster_identity(self) -> str:
        return "'sqlite'"

    def transaction_id(self) -> str:
        return "0"

    def row_xmin(self) -> Expression:
        return Value(0)

    def transaction_bounds(self) -> tuple[int, int]:
        return 0, 0

    def read_time(self, value: Any) -> datetime:
        time: datetime = value  # in UTC without a zone, as Django stores it
        return time.replace(tzinfo=UTC)

    def share_lock(self) -> str:
        return ""  # one transaction writes at a time

    # Storing

    def insert(
        self,
        messages: Sequence[NewMessage],
        dedupe: DedupeTable | None,
        begin: str,
        devices: Mapping[str, Sequence[str]],
    ) -> Stored:
        assert dedupe is None, "dedupe ids need Postgres"
        assert not begin, "statements before need Postgres"
        now, spread = timezone.now(), current()
        later = {n: due for n, new in enumerate(messages) if (due := _due_at(new, now)) > now}
        scheduled = _schedule([(messages[n], due) for n, due in later.items()], now)
        at_once = [new for n, new in enumerate(messages) if n not in later]
        rows = [_message(new, now, devices) for new in at_once]
        Message.objects.bulk_create(rows, batch_size=CHUNK)
        pairs = list(zip(rows, at_once, strict=True))
        Pending.objects.bulk_create(
            (
                Pending(message=row, key=key, expires_at=row.expires_at, device=device)
                for row, new in pairs
                for key, device in new.receivers(devices)
            ),
            batch_size=CHUNK,
        )
        Outbox.objects.bulk_create(
            (
                Outbox(
                    message=row,
                    partition=partition,
                    partitions=spread.partitions,
                    generation=spread.generation,
                    created_at=now,
                    origin=new.origin,
                    exclude=new.exclude,
                )
                for row, new in pairs
                for partition in partitions_of(new.hashes, spread.partitions)
            ),
            batch_size=CHUNK,
        )
        ids = iter([row.pk for row in rows])
        later_ids = iter(scheduled)
        in_order = [next(later_ids if n in later else ids) for n in range(len(messages))]
        return Stored(in_order, [True] * len(messages), spread.partitions)

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

    def accepting_transactions(self) -> set[str]:
        return set()  # one that read the number before a change can write nothing any more

    def prefer_indexes(self) -> None:
        pass  # as it does

    def partition_ages(self) -> dict[int, float]:
        rows = Outbox.objects.filter(parked_at=None).order_by().values("partition")
        firsts = rows.annotate(first=Min("created_at")).values_list("partition", "first")
        now = timezone.now()
        return {partition: (now - first).total_seconds() for partition, first in firsts}

    # Settlement

    def record_receipts(self, receipts: Sequence[Receipt], *, again: bool) -> int:  # noqa: ARG002
        return sqlite_receipts.record_receipts(receipts)

    def record_device_receipts(
        self,
        receipts: Sequence[DeviceReceipt],
        *,
        again: bool,  # noqa: ARG002
    ) -> set[int]:
        return sqlite_receipts.record_device_receipts(receipts)

    def keys_over_limit(self, keys: list[str], limit: int) -> dict[str, int]:
        crowded: dict[str, int] = {}
        for chunk in chunks(keys):
            rows = Pending.objects.filter(key__in=chunk).values("key")
            counts = rows.annotate(count=Count("pk")).filter(count__gt=limit)
            crowded.update(counts.values_list("key", "count"))
        return crowded

    # Replay

    def filter_pending(self, pairs: list[tuple[int, str]]) -> set[tuple[int, str]]:
        pending: set[tuple[int, str]] = set()
        with connection.cursor() as cursor:
            for chunk in chunks(pairs):
                cursor.execute(
                    "SELECT message_id, key FROM offline_pending "  # noqa: S608 - placeholders
                    f"WHERE (message_id, key) IN (VALUES {_marks(chunk)})",
                    _values(chunk),
                )
                pending.update(cursor.fetchall())
        return pending

    def pages_query(self, kind: PageKind, size: int, age: float) -> str:
        return sqlite_pages.pages_query(kind, size, age)

    def device_pages_query(self, kind: PageKind, size: int, age: float) -> str:
        return sqlite_pages.pages_query(kind, size, age, of_devices=True)


def _due_at(new: NewMessage, now: datetime) -> datetime:
    if new.send_at is not None:
        return new.send_at
    return now + timedelta(seconds=new.send_in or 0)


def _schedule(pairs: Sequence[tuple[NewMessage, datetime]], now: datetime) -> list[int]:
    """Store messages with the times at which they are due; return their ids."""
    ids = _reserve_ids(len(pairs)) if pairs else range(0)
    rows = [
        ScheduledPush(
            pk=pk,
            due_at=due,
            created_at=now,
            audience=new.audience,
            room=new.room,
            keys=list(new.keys) if new.audience == Message.Audience.KEYS else None,
            stored=new.stored,
            op=new.op,
            body=new.body,
            is_json=new.is_json,
            by=new.by,
            ensure=new.ensure,
            speed=new.speed,
            ttl=new.ttl,
            origin=new.origin,
            exclude=new.exclude,
            collapse_key=new.collapse_key,
            version=new.version,
        )
        for pk, (new, due) in zip(ids, pairs, strict=True)
    ]
    ScheduledPush.objects.bulk_create(rows, batch_size=CHUNK)
    return list(ids)


def _reserve_ids(count: int) -> range:
    """Take ids of messages that no message will get."""
    name = Message._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute("UPDATE sqlite_sequence SET seq = seq + %s WHERE name = %s", [count, name])
        if not cursor.rowcount:  # there has been no message yet
            cursor.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (%s, %s)", [name, count])
        cursor.execute("SELECT seq FROM sqlite_sequence WHERE name = %s", [name])
        (last,) = cursor.fetchone()
    return range(last - count + 1, last + 1)


def _message(new: NewMessage, now: datetime, devices: Mapping[str, Sequence[str]]) -> Message:
    return Message(
        audience=new.audience,
        room=new.room,
        keys=list(new.keys) if new.audience == Message.Audience.KEYS else None,
        stored=new.stored,
        op=new.op,
        body=new.body,
        is_json=new.is_json,
        by=new.by,
        sender=new.sender,
        ensure=new.ensure,
        speed=new.speed,
        recipients=len(new.receivers(devices)),
        created_at=now,
        expires_at=now + timedelta(seconds=new.ttl),
        keep_until=now + timedelta(seconds=max(new.ttl, conf.RECORD_KEEP)),
        exclude=new.exclude,
        collapse_key=new.collapse_key,
        version=new.version,
    )


def _marks(pairs: Sequence[tuple[int, str]]) -> str:
    return ", ".join(["(%s, %s)"] * len(pairs))


def _values(pairs: Sequence[tuple[int, str]]) -> list[int | str]:
    return [value for pair in pairs for value in pair]
