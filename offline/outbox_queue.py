"""Outbox: messages that are committed and not fanned out yet, a queue for each partition.

A row is written in the transaction that stores its message, and deleted when the message has been
sent to its groups. A task is only a wake-up. Each drain of a partition sends all its rows in order
of id, including those of lost tasks.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import msgspec
from django.db import connection
from django.db.models import F
from django.utils import timezone

from offline.models import ERROR_MAX, Outbox
from offline.partitions import possible_partitions
from offline.sql import chunks, dialect
from offline.values import OutboxMessage, OutboxRow

ATTEMPTS_MAX = 5  # failed attempts to send a message; then it is parked


class Busy(Exception):
    """Another process drains the partition."""


@contextmanager
def draining(partition: int, *, wait: bool) -> Iterator[None]:
    """Lock a partition: rows that are read inside are sent by no other process or thread.

    `wait`: wait for another drain to end, on Postgres at most 10 seconds.

    Raises:
        Busy: another drain has the partition.
    """
    with dialect().partition_lock(partition, wait=wait) as is_held:
        if not is_held:
            raise Busy
        yield


@contextmanager
def draining_all_of(name: str) -> Iterator[None]:
    """Lock, as `draining` does, all partitions that may have rows of a key or a room."""
    with ExitStack() as stack:
        for partition in sorted(possible_partitions(name)):
            stack.enter_context(draining(partition, wait=True))
        yield


def read_page(partition: int, after: int, size: int) -> list[OutboxRow]:
    """Return the first rows of a partition after the message `after`, with their messages.

    This is raw SQL, because the ORM takes as long to build this query as the database to run it.
    """
    sql = _PAGE.format(
        now=dialect().now(),
        age=dialect().seconds_since("m.created_at"),
        generation=dialect().transaction_id(),
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, [partition, after, size])
        return [_from_row(row) for row in cursor.fetchall()]


def delete_rows(rows: Sequence[OutboxRow]) -> None:
    """Delete rows that were sent, or that need not be sent."""
    for chunk in chunks(rows):
        with connection.cursor() as cursor:
            marks = ", ".join(["%s"] * len(chunk))
            cursor.execute(
                f"DELETE FROM offline_outbox WHERE id IN ({marks})",  # noqa: S608 - placeholders
                [row.pk for row in chunk],
            )


def record_failure(row: OutboxRow, error: Exception) -> bool:
    """Count a failed attempt to send a row; return whether the row is parked now.

    A row is parked after `ATTEMPTS_MAX` failed attempts.
    """
    parks = row.attempts + 1 >= ATTEMPTS_MAX
    Outbox.objects.filter(pk=row.pk).update(
        attempts=F("attempts") + 1,
        error=f"{type(error).__name__}: {error}"[:ERROR_MAX],
        parked_at=timezone.now() if parks else None,
    )
    return parks


def overdue_partitions(age: float) -> list[int]:
    """Return the partitions whose first row has waited for more than `age` seconds."""
    return [partition for partition, waited in partition_ages().items() if waited > age]


def partition_ages() -> dict[int, float]:
    """Return, for each partition with rows to fan out, the age of the first one in seconds.

    The first row is the one with the lowest message id. The cost is one index look-up a partition,
    however many rows there are.
    """
    return dialect().partition_ages()


_decode_keys = msgspec.json.Decoder(list[str]).decode
_PAGE = """
    SELECT o.id, o.partition, o.partitions, o.attempts, m.expires_at <= {now},
           {age}, o.origin, o.exclude, {generation},
           m.id, m.audience, m.room, m.keys, m.stored, m.op, m.body, m.is_json, m.ensure,
           m.speed, m.sender, m.collapse_key, m.created_at
    FROM offline_outbox o JOIN offline_message m ON m.id = o.message_id
    WHERE o.partition = %s AND o.parked_at IS NULL AND o.message_id > %s
      AND o.generation <= (SELECT coalesce(max(generation), 0) FROM offline_partitioning
                           WHERE opened_at IS NOT NULL)
    ORDER BY o.message_id LIMIT %s
"""


def _from_row(columns: tuple[Any, ...]) -> OutboxRow:
    pk, partition, partitions, attempts, is_late, age, *columns_left = columns
    origin, exclude, generation, message_id, audience, room, keys, *columns_left = columns_left
    stored, op, body, is_json, ensure, speed, sender, collapse_key, created = columns_left
    message = OutboxMessage(
        message_id,
        audience,
        room,
        _decode_keys(keys) if keys else None,
        bool(stored),
        op,
        bytes(body),
        bool(is_json),
        bool(ensure),
        speed,
        sender,
        collapse_key,
        dialect().read_time(created),
    )
    return OutboxRow(
        pk,
        message,
        partition,
        partitions,
        attempts,
        bool(is_late),
        float(age),
        origin,
        exclude,
        generation,
    )
