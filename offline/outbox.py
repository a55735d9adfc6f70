"""The outbox: messages that are committed and not fanned out yet.

A row is written in the transaction that stores its message, and deleted when the message has been
sent to its groups. Tasks only say that there is something to do: whoever drains a partition sends
all that is there, in order of id, and so makes good for whatever was lost before.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Lock
from typing import Any, ClassVar

from django.db import OperationalError, connection, models, transaction
from django.db.models import F, Min
from django.utils import timezone

from imgo_site.origin import ORIGIN_MAX
from imgo_site.postgres.limits import limited
from offline.messages import CHUNK, Message
from offline.pages import FIRSTS

ATTEMPTS_MAX = 5  # of a message that cannot be sent; then it is parked
ERROR_MAX = 500  # characters kept of an error
LOCK_CLASS = 0x696D_676F  # "imgo": the first half of our advisory locks' names
LOCK_WAIT = 10  # seconds for another drain of the same partition to end
IDLE_MAX = "8s"  # a drain whose process hangs this long gives its lock back

_locks: dict[int, Lock] = {}  # where the database has none


class Busy(Exception):
    """Another process drains the partition."""


class OutboxManager(models.Manager["Outbox"]):
    """What is to be fanned out, by partition."""

    @contextmanager
    def draining(self, partition: int, *, wait: bool) -> Iterator[None]:
        """Have a partition to oneself: what is read inside, nobody else is sending.

        Raises `Busy` when somebody else has it, with `wait` only after a while.
        """
        if connection.vendor != "postgresql":
            lock = _locks.setdefault(partition, Lock())
            if not lock.acquire(blocking=wait):
                raise Busy
            try:
                yield
            finally:
                lock.release()
            return
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
            if not cursor.fetchone()[0]:
                if not wait:
                    raise Busy
                try:
                    with limited(LOCK_WAIT):
                        cursor.execute(f"SELECT pg_advisory_xact_lock({name})")
                except OperationalError as error:
                    if type(error.__cause__).__name__ == "LockNotAvailable":  # psycopg's
                        raise Busy from error
                    raise
            yield

    def page(self, partition: int, after: int, size: int) -> list["Outbox"]:
        """The first rows of a partition behind the message `after`, with their messages.

        In SQL, because the ORM takes as long to write this query as the database to answer it.
        """
        now = "statement_timestamp()"
        age = f"extract(epoch FROM {now} - m.created_at)"
        generation = "(SELECT pg_current_xact_id()::text::bigint)"
        if connection.vendor != "postgresql":
            now = f"'{connection.ops.adapt_datetimefield_value(timezone.now())}'"
            age = f"(julianday({now}) - julianday(m.created_at)) * 86400"
            generation = "0"
        with connection.cursor() as cursor:
            cursor.execute(
                _PAGE.format(now=now, age=age, generation=generation), [partition, after, size]
            )
            return [_from_row(row) for row in cursor.fetchall()]

    def done(self, rows: "list[Outbox]") -> None:
        """These were sent, or need not be."""
        for start in range(0, len(rows), CHUNK):
            ids = [row.pk for row in rows[start : start + CHUNK]]
            with connection.cursor() as cursor:
                marks = ", ".join(["%s"] * len(ids))
                cursor.execute(f"DELETE FROM offline_outbox WHERE id IN ({marks})", ids)  # noqa: S608

    def failed(self, row: "Outbox", error: Exception) -> bool:
        """This one could not be sent; after `ATTEMPTS_MAX` times it is parked: True."""
        parks = row.attempts + 1 >= ATTEMPTS_MAX
        self.filter(pk=row.pk).update(
            attempts=F("attempts") + 1,
            error=f"{type(error).__name__}: {error}"[:ERROR_MAX],
            parked_at=timezone.now() if parks else None,
        )
        return parks

    def overdue(self, age: float) -> list[int]:
        """Return the partitions that have something to send for more than `age` seconds."""
        return [one for one, seconds in self.waiting().items() if seconds > age]

    def waiting(self) -> dict[int, float]:
        """Return the partitions that have something to send, and for how many seconds.

        The age is that of the first message, whose id is the lowest. It costs an index look-up a
        partition, however much there is.
        """
        if connection.vendor != "postgresql":
            rows = self.filter(parked_at=None).order_by().values("partition")
            firsts = rows.annotate(first=Min("created_at")).values_list("partition", "first")
            now = timezone.now()
            return {partition: (now - first).total_seconds() for partition, first in firsts}
        with connection.cursor() as cursor:
            cursor.execute(_WAITING.format(firsts=FIRSTS))
            return dict(cursor.fetchall())


class Outbox(models.Model):
    """A message that has to be fanned out to one partition's keys, to a room, or to everyone."""

    message = models.ForeignKey(Message, on_delete=models.DO_NOTHING, db_constraint=False)
    partition = models.IntegerField()
    partitions = models.IntegerField(help_text="How many there were when it was accepted.")
    created_at = models.DateTimeField(default=timezone.now)
    attempts = models.IntegerField(default=0)
    error = models.CharField(max_length=ERROR_MAX, blank=True)
    parked_at = models.DateTimeField(null=True, blank=True)
    origin = models.CharField(
        max_length=ORIGIN_MAX,
        blank=True,
        db_default="",  # for processes of the version before, while they are being replaced
        help_text="The request that it came with, and its span.",
    )

    span: Any = None  # of the fan-out under way, when it is traced

    objects: ClassVar[OutboxManager] = OutboxManager()

    # Of a row of a `page`, by the database's time:
    is_late = False  # the message had expired
    age = 0.0  # seconds from its acceptance
    # The transaction that drains the partition; those of later drains are higher. 0: unknown.
    generation = 0

    class Meta:
        app_label = "offline"
        verbose_name_plural = "outbox"
        indexes: ClassVar = [
            models.Index(
                fields=["partition", "message"],
                name="outbox_to_send",
                condition=models.Q(parked_at=None),
            ),
            models.Index(
                fields=["id"], name="outbox_parked", condition=models.Q(parked_at__isnull=False)
            ),
        ]

    def __str__(self) -> str:
        return f"message {self.message_id} to partition {self.partition}"


_WAITING = """
    WITH RECURSIVE {firsts}
    SELECT partition,
           CAST(extract(epoch FROM statement_timestamp() - created_at) AS double precision)
    FROM firsts ORDER BY partition
"""
_PAGE = """
    SELECT o.id, o.partition, o.partitions, o.attempts, m.expires_at <= {now},
           {age}, o.origin, {generation},
           m.id, m.audience, m.room, m.keys, m.stored, m.op, m.body, m.is_json, m.ensure,
           m.speed, m.created_at
    FROM offline_outbox o JOIN offline_message m ON m.id = o.message_id
    WHERE o.partition = %s AND o.parked_at IS NULL AND o.message_id > %s
    ORDER BY o.message_id LIMIT %s
"""


def _from_row(found: tuple[Any, ...]) -> Outbox:
    pk, partition, partitions, attempts, is_late, age, origin, generation, *message = found
    message_id, audience, room, keys, stored, op, body, is_json, ensure, speed, created = message
    if isinstance(created, str):  # SQLite has no type for times
        created = datetime.fromisoformat(created).replace(tzinfo=UTC)
    row = Outbox(
        pk=pk, partition=partition, partitions=partitions, attempts=attempts, origin=origin
    )
    row.is_late = bool(is_late)
    row.age = float(age)
    row.generation = generation
    row.message = Message(
        pk=message_id,
        audience=audience,
        room=room,
        keys=json.loads(keys) if keys else None,
        stored=bool(stored),
        op=op,
        body=bytes(body),
        is_json=bool(is_json),
        ensure=bool(ensure),
        speed=speed,
        created_at=created,
    )
    return row
