"""Stores pushes in a transaction of their own, and finds out its outcome.

On Postgres that takes two round trips: one begins the transaction and stores, the other commits.
Nothing is stored until COMMIT is sent. If the answer to COMMIT is lost, the outcome of the
transaction is queried on a new connection.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from django.db import Error as DatabaseError
from django.db import connection, transaction
from psycopg.pq import TransactionStatus

from imgo_site.conf import conf
from imgo_site.errors import OutcomeUnknown
from imgo_site.postgres.connection import Connection, is_cut
from imgo_site.postgres.outcome import Outcome
from offline import replacement
from offline.store import find_outcome, insert
from offline.values import DedupeTable, NewMessage, Stored
from push.devices import notices
from push.metrics import definitions as metrics
from push.models import Dedupe

logger = logging.getLogger(__name__)

ATTEMPTS = 5  # connections to try, if they turn out to be cut before anything is stored
SHORTEST = 1.0  # seconds that a statement gets even after the deadline
# Share of the time after which Postgres ends a statement itself. The connection then stays usable.
SERVER_SHARE = 0.9

# SET LOCAL ends with the transaction, so it also works behind a pooler in transaction mode. The
# second limit is for a process that hangs between the two round trips: it must not keep its dedupe
# ids locked.
BEGIN = (
    "BEGIN; SET LOCAL statement_timeout = {timeout:d}; "
    "SET LOCAL idle_in_transaction_session_timeout = {timeout:d};"
)


def store(messages: Sequence[NewMessage]) -> Stored:
    """Store messages, and commit unless the caller has begun a transaction.

    Raises `DatabaseError` if nothing was stored; `OutcomeUnknown` if that is not known.
    """
    if connection.vendor != "postgresql":
        return _store_rows(messages)
    dedupe = DedupeTable(Dedupe._meta.db_table, conf.DEDUPE_WINDOW)
    if connection.in_atomic_block or not connection.get_autocommit():
        # After a failed statement Postgres rolls back, even if the caller handles the error.
        with transaction.mark_for_rollback_on_error(using=connection.alias):
            return _insert(messages, dedupe)
    try:
        stored = _begin(messages, dedupe)
        _commit(stored)
    finally:
        _limit(getattr(connection, "statement_limit", None))
    return stored


def _store_rows(messages: Sequence[NewMessage]) -> Stored:
    """Store messages with the ORM, for SQLite, which has one writer at a time."""
    with transaction.atomic():
        by = messages[0].by
        earlier = Dedupe.objects.known(by, [new.dedupe_id for new in messages if new.dedupe_id])
        new = [message for message in messages if message.dedupe_id not in earlier]
        inserted = insert(new)
        ids = iter(inserted.ids)  # in the order of `new`
        is_new = [message.dedupe_id not in earlier for message in messages]
        stored = [
            next(ids) if is_new[n] else earlier[one.dedupe_id] for n, one in enumerate(messages)
        ]
        Dedupe.objects.bulk_create(
            Dedupe(by=by, dedupe_id=one.dedupe_id, message_id=stored[n])
            for n, one in enumerate(messages)
            if is_new[n] and one.dedupe_id
        )
        notices.add(messages, stored, is_new)
        outcome = Stored(stored, is_new, inserted.partitions)
        ended = replacement.apply(messages, outcome)
    return replace(outcome, ended=ended)


def _insert(messages: Sequence[NewMessage], dedupe: DedupeTable, begin: str = "") -> Stored:
    """Insert messages and what devices are to show of them, and end the pushes they replace.

    `begin`: see `insert`.
    """
    stored = insert(messages, dedupe, begin)
    notices.add(messages, stored.ids, stored.is_new)
    if not any(message.collapse_key for message in messages):
        return stored
    with _atomic_block():
        return replace(stored, ended=replacement.apply(messages, stored))


@contextmanager
def _atomic_block() -> Iterator[None]:
    """Let the ORM use the transaction that `BEGIN` has begun as its own atomic block.

    It would otherwise begin another one, which the connection refuses. `_commit` and `_roll_back`
    end the transaction, not the ORM.
    """
    if connection.in_atomic_block:
        yield
        return
    connection.in_atomic_block, connection.autocommit = True, False
    try:
        yield
    finally:
        connection.in_atomic_block, connection.autocommit = False, True
        connection.needs_rollback = False


def _begin(messages: Sequence[NewMessage], dedupe: DedupeTable) -> Stored:
    """Begin a transaction and store messages in it. Replace a connection that turns out cut."""
    deadline = time.monotonic() + conf.DATABASE_TIMEOUT
    for attempt in range(1, ATTEMPTS + 1):
        try:
            connection.ensure_connection()
            left = max(SHORTEST, deadline - time.monotonic())
            _limit(left)
            begin = BEGIN.format(timeout=int(left * SERVER_SHARE * 1000))
            return _insert(messages, dedupe, begin)
        except BaseException as error:
            _roll_back()
            # COMMIT was not sent, so a retry cannot store the messages twice.
            is_over = attempt == ATTEMPTS or time.monotonic() > deadline
            if is_over or not is_cut(error.__cause__):
                raise
            connection.close()
    raise AssertionError("unreachable")


def _commit(stored: Stored) -> None:
    """Commit; if the answer is lost, query the outcome.

    Raises `DatabaseError` if the commit has certainly failed; `OutcomeUnknown` if it may have
    succeeded.
    """
    raw = connection.connection
    try:
        with connection.wrap_database_errors:
            raw.commit()
    except DatabaseError as error:
        if not raw.closed and raw.info.transaction_status != TransactionStatus.ACTIVE:
            _roll_back()
            raise  # the server has answered that it failed
        connection.close()
        outcome = find_outcome(stored)
        metrics.LOST_COMMITS.labels(outcome.value).inc()
        logger.warning(
            "lost the answer to a commit (%s); outcome of the transaction: %s",
            error,
            outcome.value,
        )
        if outcome is Outcome.ABORTED:
            raise
        if outcome is Outcome.UNKNOWN:
            raise OutcomeUnknown(has_dedupe_id=False) from error
    except BaseException:
        connection.close()  # in the middle of a commit
        raise


def _limit(seconds: float | None) -> None:
    if isinstance(connection.connection, Connection):
        connection.connection.limit = seconds


def _roll_back() -> None:
    """Roll the transaction back; close the connection if that fails."""
    raw = connection.connection
    try:
        if raw is not None and not raw.closed:
            with connection.wrap_database_errors:
                raw.rollback()
            return
    except DatabaseError as error:
        logger.info("a rollback failed: %s", error)
    connection.close()
