"""Storing of messages, and the query for a transaction's outcome."""

from collections.abc import Mapping, Sequence

from django.db import connection

from imgo_site.conf import conf
from imgo_site.postgres.outcome import Outcome, find_out
from offline import device_locks
from offline.sql import dialect
from offline.values import DedupeTable, NewMessage, Stored


def insert(
    messages: Sequence[NewMessage],
    dedupe: DedupeTable | None = None,
    begin: str = "",
) -> Stored:
    """Insert messages, their pending rows, and their outbox rows.

    On Postgres it takes one round trip, and more if a key has the scope `each`: its devices are
    locked before. On SQLite, call it inside a transaction.

    `dedupe`: None ignores dedupe ids; with a table, a message whose dedupe id its caller used in
    the window is not stored again. The same dedupe id must not occur twice in `messages`. `begin`:
    SQL statements that run before, in the same round trip. `dedupe` and `begin` need Postgres.
    """
    if not messages:
        return Stored([], [], conf.PARTITIONS)
    devices: Mapping[str, Sequence[str]] = {}
    if keys := device_locks.keys_to_lock(messages):
        if begin:
            with connection.cursor() as cursor:
                cursor.execute(begin)
            begin = ""
        devices = device_locks.lock(keys)
    return dialect().insert(messages, dedupe, begin, devices)


def find_outcome(stored: Stored) -> Outcome:
    """Query whether a transaction has committed, after the answer to its COMMIT was lost."""
    new = [
        message_id for message_id, is_new in zip(stored.ids, stored.is_new, strict=True) if is_new
    ]
    if not new:
        return Outcome.COMMITTED  # by the transactions that stored the messages
    if stored.trace is None:
        return Outcome.UNKNOWN
    return find_out(stored.trace, _PROOF, [new[0], stored.at] * 3)


# The first new row may be that of a scheduled push, which may be due meanwhile.
_PROOF = """
    SELECT 1 FROM offline_message WHERE id = %s AND created_at = %s
    UNION ALL SELECT 1 FROM offline_scheduledpush WHERE id = %s AND created_at = %s
    UNION ALL SELECT 1 FROM offline_duepush WHERE id = %s AND created_at = %s
"""
