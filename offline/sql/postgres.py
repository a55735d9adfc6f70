"""Dialect of Postgres, with the server's locks and time, and arrays as parameters for many rows."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import msgspec
from django.db import OperationalError, connection, transaction
from django.db.models import Expression
from django.db.models.expressions import RawSQL

from imgo_site.postgres.limits import limited
from offline.sql import postgres_insert, postgres_pages, postgres_receipts
from offline.sql.base import Dialect, PageKind
from offline.sql.postgres_insert import ACCEPTING, LOCK_CLASS
from offline.values import DedupeTable, DeviceReceipt, NewMessage, Receipt, Stored

COUNTED_FACTOR = 10  # `keys_over_limit` stops counting at this many times the limit
LOCK_WAIT = 10  # seconds for another drain of the same partition to end
IDLE_MAX = "8s"  # Postgres ends the transaction of a drain whose process hangs this long


class PostgresDialect(Dialect):
    """Statements for Postgres."""

    # Expressions

    def now(self) -> str:
        return "statement_timestamp()"

    def seconds_since(self, column: str) -> str:
        return f"CAST(extract(epoch FROM statement_timestamp() - {column}) AS double precision)"

    def time_before(self, seconds: float) -> str:
        return f"statement_timestamp() - interval '{float(seconds)} seconds'"

    def cluster_identity(self) -> str:
        # pg_control_checkpoint tells the timeline only after the next checkpoint.
        return (
            "(SELECT system_identifier::text || '.' "
            "|| left(pg_walfile_name(pg_current_wal_lsn()), 8) FROM pg_control_system())"
        )

    def transaction_id(self) -> str:
        return "(SELECT pg_current_xact_id()::text::bigint)"

    def row_xmin(self) -> Expression:
        return RawSQL("xmin::text::bigint", [])

    def transaction_bounds(self) -> tuple[int, int]:
        with connection.cursor() as cursor:
            cursor.execute(_BOUNDS)
            first, following = cursor.fetchone()
            return first, following

    def read_time(self, value: Any) -> datetime:
        time: datetime = value
        return time

    def share_lock(self) -> str:
        return "FOR KEY SHARE"  # which a change of `seen_at` does not wait for

    # Storing

    def insert(
        self,
        messages: Sequence[NewMessage],
        dedupe: DedupeTable | None,
        begin: str,
        devices: Mapping[str, Sequence[str]],
    ) -> Stored:
        return postgres_insert.insert(messages, dedupe, begin, devices)

    # The outbox

    @contextmanager
    def partition_lock(self, partition: int, *, wait: bool) -> Iterator[bool]:
        # On a silent connection the drain must fail early enough for another one to do its work.
        with limited(), transaction.atomic(), connection.cursor() as cursor:
            # The transaction holds the lock, and ends with the process.
            name = f"{LOCK_CLASS}, {int(partition)}"
            cursor.execute(
                f"SET LOCAL lock_timeout = '{LOCK_WAIT}s'; "
                f"SET LOCAL idle_in_transaction_session_timeout = '{IDLE_MAX}'; "
                f"SELECT pg_try_advisory_xact_lock({name})"
            )
            while cursor.nextset():
                pass
            is_held = bool(cursor.fetchone()[0])
            if not is_held and wait:
                is_held = self._wait_for_lock(cursor, name)
            yield is_held

    @staticmethod
    def _wait_for_lock(cursor: Any, name: str) -> bool:
        """Wait for an advisory lock; return whether it was acquired within `LOCK_WAIT` seconds."""
        try:
            with limited(LOCK_WAIT):
                cursor.execute(f"SELECT pg_advisory_xact_lock({name})")
        except OperationalError as error:
            if type(error.__cause__).__name__ == "LockNotAvailable":  # psycopg's
                return False
            raise
        return True

    def accepting_transactions(self) -> set[str]:
        with connection.cursor() as cursor:
            cursor.execute(_ACCEPTING_TRANSACTIONS, [LOCK_CLASS, ACCEPTING % 2**32])
            return {name for (name,) in cursor.fetchall()}

    def prefer_indexes(self) -> None:
        with connection.cursor() as cursor:
            # A plan that sorts all the same seems so dear that Postgres would compile it first.
            cursor.execute(
                "SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off; SET LOCAL jit = off"
            )

    def partition_ages(self) -> dict[int, float]:
        with connection.cursor() as cursor:
            cursor.execute(_PARTITION_AGES)
            return dict(cursor.fetchall())

    # Settlement

    def record_receipts(self, receipts: Sequence[Receipt], *, again: bool) -> int:
        text = msgspec.json.encode(receipts).decode()
        with connection.cursor() as cursor:
            cursor.execute(postgres_receipts.statement(again=again), [text])
            count: int = cursor.fetchone()[0]
            return count

    def record_device_receipts(self, receipts: Sequence[DeviceReceipt], *, again: bool) -> set[int]:
        text = msgspec.json.encode(receipts).decode()
        with connection.cursor() as cursor:
            cursor.execute(postgres_receipts.device_statement(again=again), [text])
            return {place - 1 for (place,) in cursor.fetchall()}

    def keys_over_limit(self, keys: list[str], limit: int) -> dict[str, int]:
        with connection.cursor() as cursor:
            cursor.execute(_CROWDED, [keys, limit * COUNTED_FACTOR + 1, limit])
            return dict(cursor.fetchall())

    # Replay

    def filter_pending(self, pairs: list[tuple[int, str]]) -> set[tuple[int, str]]:
        with connection.cursor() as cursor:
            cursor.execute(_AMONG, [[i for i, _ in pairs], [key for _, key in pairs]])
            return set(cursor.fetchall())

    def pages_query(self, kind: PageKind, size: int, age: float) -> str:
        return postgres_pages.pages_query(kind, size, age)

    def device_pages_query(self, kind: PageKind, size: int, age: float) -> str:
        return postgres_pages.pages_query(kind, size, age, of_devices=True)


_BOUNDS = """
    SELECT pg_snapshot_xmin(now)::text::bigint, pg_snapshot_xmax(now)::text::bigint
    FROM pg_current_snapshot() AS now
"""
_ACCEPTING_TRANSACTIONS = """
    SELECT virtualtransaction FROM pg_locks
    WHERE locktype = 'advisory' AND classid = %s AND objid = %s AND objsubid = 2
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_PARTITION_AGES = f"""
    WITH RECURSIVE {postgres_pages.FIRSTS}
    SELECT partition,
           CAST(extract(epoch FROM statement_timestamp() - created_at) AS double precision)
    FROM firsts ORDER BY partition
"""  # noqa: S608 - constants

_CROWDED = """
    SELECT wanted.key, counted.count FROM unnest(%s::text[]) AS wanted (key) CROSS JOIN LATERAL (
        SELECT count(*) FROM (
            SELECT 1 FROM offline_pending p WHERE p.key = wanted.key ORDER BY p.message_id LIMIT %s
        ) AS rows_found
    ) counted
    WHERE counted.count > %s
"""
_AMONG = """
    SELECT p.message_id, p.key FROM unnest(%s::bigint[], %s::text[]) AS wanted (message_id, key)
    CROSS JOIN LATERAL (
        SELECT message_id, key FROM offline_pending
        WHERE message_id = wanted.message_id AND key = wanted.key OFFSET 0
    ) p
"""
