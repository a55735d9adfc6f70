"""Postgres: locks are the server's, times are the server's, arrays are parameters."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from django.db import OperationalError, connection, transaction

from imgo_site.postgres.limits import limited
from offline.pages import FIRSTS
from offline.sql.base import Dialect

LOCK_CLASS = 0x696D_676F  # "imgo": the first half of our advisory locks' names
LOCK_WAIT = 10  # seconds for another drain of the same partition to end
IDLE_MAX = "8s"  # Postgres ends the transaction of a drain whose process hangs this long


class PostgresDialect(Dialect):
    """The statements for Postgres."""

    # Expressions

    def now(self) -> str:
        return "statement_timestamp()"

    def seconds_since(self, column: str) -> str:
        return f"CAST(extract(epoch FROM statement_timestamp() - {column}) AS double precision)"

    def transaction_id(self) -> str:
        return "(SELECT pg_current_xact_id()::text::bigint)"

    def read_time(self, value: Any) -> datetime:
        found: datetime = value
        return found

    # The outbox

    @contextmanager
    def partition_lock(self, partition: int, *, wait: bool) -> Iterator[bool]:
        # On a silent link a drain must fail while others still can do its work in time.
        with limited(), transaction.atomic(), connection.cursor() as cursor:
            # It is held as long as the transaction, and the transaction as long as the process.
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
                is_held = self._waits_for_lock(cursor, name)
            yield is_held

    @staticmethod
    def _waits_for_lock(cursor: Any, name: str) -> bool:
        try:
            with limited(LOCK_WAIT):
                cursor.execute(f"SELECT pg_advisory_xact_lock({name})")
        except OperationalError as error:
            if type(error.__cause__).__name__ == "LockNotAvailable":  # psycopg's
                return False
            raise
        return True

    def partition_ages(self) -> dict[int, float]:
        with connection.cursor() as cursor:
            cursor.execute(_PARTITION_AGES)
            return dict(cursor.fetchall())


_PARTITION_AGES = f"""
    WITH RECURSIVE {FIRSTS}
    SELECT partition,
           CAST(extract(epoch FROM statement_timestamp() - created_at) AS double precision)
    FROM firsts ORDER BY partition
"""  # noqa: S608 - constants
