"""Scheduled pushes: accepted, and due later. When one is due, it is stored like a new push.

One transaction inserts the message with its pending and outbox rows, deletes the scheduled row, and
inserts a `DuePush`, by which the id that was answered names the message. So each scheduled push
becomes exactly one message, whatever dies meanwhile.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from django.db import connection, transaction
from django.db.models.functions import Now

from offline import replacement, store
from offline.models import Message, ScheduledPush
from offline.outbox_queue import Busy
from offline.partitions import hashes_of, partitions_of
from offline.sql import chunks, dialect
from offline.values import NewMessage

BATCH = 200  # pushes of one transaction, each with a body
LOCK = -1  # names the lock of the schedule, beside those of the partitions


class Due(NamedTuple):
    """One scheduled push that was stored as a message."""

    id: int
    message_id: int
    origin: str
    partitions: set[int]
    late: float  # seconds from when it was due


class StoredPushes(NamedTuple):
    """Due pushes that were stored, and how many deliveries had been replaced, by reason."""

    due: list[Due]
    ended: Mapping[str, int]


def is_due() -> bool:
    """Return whether a push is due. It reads one row of an index."""
    with connection.cursor() as cursor:
        cursor.execute(_IS_DUE.format(now=dialect().now()))
        row = cursor.fetchone()
    return bool(row and row[0])


def store_due() -> StoredPushes:
    """Store the first `BATCH` pushes that are due, in order of (due, id); return them.

    Raises:
        Busy: another process stores due pushes. Two at once could store them out of order.
    """
    with dialect().partition_lock(LOCK, wait=False) as is_held, transaction.atomic():
        if not is_held:
            raise Busy
        dialect().prefer_indexes()
        rows = lock_due()
        if not rows:
            return StoredPushes([], {})
        messages = [_message(row) for row in rows]
        stored = store.insert(messages)
        pairs = list(zip(rows, stored.ids, strict=True))
        _name_messages(pairs)
        rows_due = [(row, new, i) for (row, i), new in zip(pairs, messages, strict=True)]
        ended = replacement.apply_due(rows_due)
        for chunk in chunks(rows):
            ScheduledPush.objects.filter(pk__in=[row.pk for row in chunk]).delete()
    due = [
        Due(row.pk, i, row.origin, partitions_of(new.hashes, stored.partitions), _lateness(row))
        for row, new, i in rows_due
    ]
    return StoredPushes(due, ended)


def _name_messages(pairs: Sequence[tuple[Any, int]]) -> None:
    """Insert which push became which message. The ORM takes ten times as long to build this."""
    for chunk in chunks(pairs):
        rows = ", ".join(["(%s, %s)"] * len(chunk))
        values = [number for row, message_id in chunk for number in (row.pk, message_id)]
        with connection.cursor() as cursor:
            cursor.execute(_NAME.format(rows=rows), values)


def lock_due() -> list[Any]:
    """Return the first `BATCH` pushes that are due, locked. Call it in a transaction."""
    due = ScheduledPush.objects.filter(due_at__lte=Now()).order_by("due_at", "pk")
    return list(due.annotate(now=Now()).select_for_update()[:BATCH])


def _message(row: Any) -> NewMessage:
    keys = tuple(row.keys or ())
    return NewMessage(
        body=bytes(row.body),
        # From when it was due. A push that expired before a node could store it has none left.
        ttl=row.ttl - _lateness(row),
        audience=row.audience,
        keys=keys,
        room=row.room,
        stored=row.stored,
        op=row.op,
        is_json=row.is_json,
        by=row.by,
        ensure=row.ensure,
        speed=row.speed,
        origin=row.origin,
        hashes=hashes_of(keys if row.audience == Message.Audience.KEYS else (row.room,)),
        exclude=row.exclude,
        collapse_key=row.collapse_key,
        version=row.version,
    )


def _lateness(row: Any) -> float:
    seconds: float = (row.now - row.due_at).total_seconds()
    return max(0.0, seconds)


_NAME = """
    WITH named (id, message_id) AS (VALUES {rows})
    INSERT INTO offline_duepush (id, message_id, due_at, created_at)
    SELECT s.id, n.message_id, s.due_at, s.created_at
    FROM named n JOIN offline_scheduledpush s ON s.id = n.id
"""
_IS_DUE = "SELECT due_at <= {now} FROM offline_scheduledpush ORDER BY due_at, id LIMIT 1"
