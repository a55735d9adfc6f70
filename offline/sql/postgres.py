"""Dialect of Postgres, with the server's locks and time, and arrays as parameters for many rows."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from django.db import OperationalError, connection, transaction
from django.db.models import Expression
from django.db.models.expressions import RawSQL

from imgo_site.postgres.limits import limited
from offline.sql import postgres_insert, postgres_pages
from offline.sql.base import Dialect, PageKind
from offline.values import DedupeTable, NewMessage, Receipt, Stored

COUNTED_FACTOR = 10  # `keys_over_limit` stops counting at this many times the limit
LOCK_CLASS = 0x696D_676F  # "imgo": the first half of our advisory locks' names
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

    # Storing

    def insert(
        self,
        messages: Sequence[NewMessage],
        partitions: int,
        dedupe: DedupeTable | None,
        begin: str,
    ) -> Stored:
        return postgres_insert.insert(messages, partitions, dedupe, begin)

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

    def prefer_indexes(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")

    def partition_ages(self) -> dict[int, float]:
        with connection.cursor() as cursor:
            cursor.execute(_PARTITION_AGES)
            return dict(cursor.fetchall())

    # Settlement

    def record_receipts(self, receipts: Sequence[Receipt], *, again: bool) -> int:
        columns = [list(column) for column in zip(*receipts, strict=True)]
        with connection.cursor() as cursor:
            cursor.execute(_RECORD_AGAIN if again else _RECORD, columns)
            count: int = cursor.fetchone()[0]
            return count

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


_BOUNDS = """
    SELECT pg_snapshot_xmin(now)::text::bigint, pg_snapshot_xmax(now)::text::bigint
    FROM pg_current_snapshot() AS now
"""
_PARTITION_AGES = f"""
    WITH RECURSIVE {postgres_pages.FIRSTS}
    SELECT partition,
           CAST(extract(epoch FROM statement_timestamp() - created_at) AS double precision)
    FROM firsts ORDER BY partition
"""  # noqa: S608 - constants

# Rows are locked in one order, so that two nodes that settle the same rows cannot deadlock.
_RECORD_TEMPLATE = """
    WITH given AS (
        SELECT * FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::text[], %s::float8[])
            WITH ORDINALITY AS rows (message_id, key, kind, session, age, place)
    ),
    owed AS (
        SELECT p.id FROM offline_pending p
        JOIN (SELECT DISTINCT message_id, key FROM given WHERE kind <> 'sent') g
            USING (message_id, key)
        ORDER BY p.id FOR UPDATE OF p
    ),
    gone AS (
        DELETE FROM offline_pending p USING owed WHERE p.id = owed.id
        RETURNING p.message_id, p.key
    ),
    settling AS (
        SELECT min(place) AS place FROM given JOIN gone USING (message_id, key)
        WHERE kind <> 'sent' GROUP BY message_id, key
    ),
    recorded AS (
        INSERT INTO offline_event (message_id, key, kind, session, reason, at)
        SELECT message_id, key, CASE WHEN s.place IS NULL THEN 'sent' ELSE kind END, session, '',
               statement_timestamp() - age * interval '1 second'
        FROM given LEFT JOIN settling s USING (place)
        WHERE {condition}
        ORDER BY given.place
    )
    SELECT count(*) FROM gone
"""
_RECORD = _RECORD_TEMPLATE.format(condition="s.place IS NOT NULL OR kind <> 'acknowledged'")
# A statement of its own: the usual one need not search for recorded deliveries. Only a receipt
# that was written before finds its pending row gone and its session's delivery recorded.
_RECORD_AGAIN = _RECORD_TEMPLATE.format(
    condition="""s.place IS NOT NULL OR kind <> 'acknowledged' AND NOT EXISTS (
            SELECT 1 FROM offline_event e
            WHERE e.message_id = given.message_id AND e.key = given.key
                AND e.session = given.session AND e.kind IN ('sent', 'received')
        )"""
)
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
