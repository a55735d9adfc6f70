"""Messages as they were accepted.

The id comes from the database, which all nodes and API processes share: ids sort by the time of
acceptance whatever the processes' clocks say, and stay below 2**53, so that a JavaScript number
holds them. Times are the database's too, for the same reason.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

from django.db import connection, models, transaction
from django.db.models.functions import Now
from django.utils import timezone

from imgo_site.conf import conf

CHUNK = 400  # rows of one statement with parameters: below SQLite's limit of them
PRUNE_BATCH = 500  # messages of one DELETE, so that none holds locks for long
EVENT_BATCH = 5_000  # their events of one DELETE


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message that is to be stored.

    `keys`: all it goes to, each once; with `stored` it is pending for them. `ttl`: seconds.
    `partitions`: those that its fan-out is part of.
    """

    body: bytes
    ttl: float
    audience: str = "keys"
    keys: tuple[str, ...] = ()
    room: str = ""
    stored: bool = True
    op: int = 5
    is_json: bool = True
    by: str = ""
    ensure: bool = False
    speed: int = 0
    origin: str = ""
    partitions: tuple[int, ...] = (0,)


class MessageManager(models.Manager["Message"]):
    """Stores messages and forgets them again."""

    def store(self, messages: Sequence[NewMessage], partitions: int = 1) -> list[int]:
        """Insert messages, what is pending, and what is to be fanned out.

        Returns the ids, in the order of `messages`. `partitions`: how many there are. Call it
        inside a transaction, unless `is_one_statement`.
        """
        if self.is_one_statement:
            return self._insert_arrays(messages, partitions)
        from offline.outbox import Outbox
        from offline.pendings import Pending

        now = timezone.now()
        rows = [
            Message(
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
                recipients=_recipients(new),
                created_at=now,
                expires_at=now + timedelta(seconds=new.ttl),
                keep_until=now + timedelta(seconds=max(new.ttl, conf.RECORD_KEEP)),
            )
            for new in messages
        ]
        self.bulk_create(rows, batch_size=CHUNK)
        pairs = list(zip(rows, messages, strict=True))
        Pending.objects.bulk_create(
            (
                Pending(message=row, key=key, expires_at=row.expires_at)
                for row, new in pairs
                if new.stored
                for key in new.keys
            ),
            batch_size=CHUNK,
        )
        Outbox.objects.bulk_create(
            (
                Outbox(
                    message=row,
                    partition=partition,
                    partitions=partitions,
                    created_at=now,
                    origin=new.origin,
                )
                for row, new in pairs
                for partition in new.partitions
            ),
            batch_size=CHUNK,
        )
        return [row.pk for row in rows]

    @property
    def is_one_statement(self) -> bool:
        """Whether `store` is atomic by itself."""
        return connection.vendor == "postgresql"

    @staticmethod
    def _insert_arrays(messages: Sequence[NewMessage], partitions: int) -> list[int]:
        """All rows of all three tables in one statement, with one array a column.

        It takes a third of the time of `bulk_create`, and one way to the database instead of
        five. Ids are given in the order of the SELECT; what RETURNING's order is, is not promised.
        """
        numbered = list(enumerate(messages, 1))
        owed = [(n, key) for n, new in numbered if new.stored for key in new.keys]
        queued = [(n, partition, new.origin) for n, new in numbered for partition in new.partitions]
        columns: list[Any] = [
            conf.RECORD_KEEP,
            [new.audience for new in messages],
            [new.room for new in messages],
            [json.dumps(new.keys) if new.audience == "keys" else None for new in messages],
            [new.stored for new in messages],
            [new.op for new in messages],
            [new.body for new in messages],
            [new.is_json for new in messages],
            [new.by for new in messages],
            [new.ensure for new in messages],
            [new.speed for new in messages],
            [_recipients(new) for new in messages],
            [new.ttl for new in messages],
            [n for n, _ in owed],
            [key for _, key in owed],
            partitions,
            [n for n, _, _ in queued],
            [partition for _, partition, _ in queued],
            [origin for _, _, origin in queued],
        ]
        with connection.cursor() as cursor:
            cursor.execute(_INSERT, columns)
            return [row[0] for row in cursor.fetchall()]

    def prune(self) -> int:
        """Forget one batch of messages whose time is over, and their records; returns how many."""
        from offline.events import Event
        from offline.outbox import Outbox

        due = self.filter(keep_until__lte=Now()).order_by("keep_until")
        ids = list(due.values_list("pk", flat=True)[:PRUNE_BATCH])
        events = Event.objects.filter(message_id__in=ids).values("pk")
        while ids and Event.objects.filter(pk__in=events[:EVENT_BATCH]).delete()[0]:
            pass  # each a transaction of its own: others get their turn in between
        with transaction.atomic():
            Outbox.objects.filter(message__in=ids).delete()
            self.filter(pk__in=ids).delete()
        return len(ids)


def _recipients(new: NewMessage) -> int:
    return len(new.keys) if new.stored else 0


class Message(models.Model):
    """What was accepted: one body, one id, for a key, many keys, a room or everyone."""

    class Audience(models.TextChoices):
        """Whom a message is for."""

        KEYS = "keys"
        ROOM = "room"
        ALL = "all"

    audience = models.CharField(max_length=4, choices=Audience)
    room = models.CharField(max_length=255, blank=True)
    # All it was pushed to; the pending rows say who has not had it.
    keys = models.JSONField(null=True, blank=True)
    stored = models.BooleanField(default=False)
    op = models.IntegerField(default=5)
    body = models.BinaryField()
    is_json = models.BooleanField(default=True)
    by = models.CharField(max_length=100, blank=True, help_text="Who pushed it.")
    ensure = models.BooleanField(default=False, help_text="Waits for room instead of dropping.")
    speed = models.IntegerField(
        default=0, db_default=0, help_text="Sessions that it reaches in a second; 0: all at once."
    )
    recipients = models.IntegerField(default=0, help_text="Keys that it was made pending for.")
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField()
    keep_until = models.DateTimeField(help_text="When the message and its record are forgotten.")

    objects: ClassVar[MessageManager] = MessageManager()

    class Meta:
        app_label = "offline"
        indexes: ClassVar = [models.Index(fields=["keep_until"], name="message_keep_until")]

    def __str__(self) -> str:
        return f"message {self.pk}"


_INSERT = """
    WITH stored AS (
        INSERT INTO offline_message (audience, room, keys, stored, op, body, is_json, by,
                                     ensure, speed, recipients, created_at, expires_at, keep_until)
        SELECT audience, room, keys, stored, op, body, is_json, by, ensure, speed, recipients,
               statement_timestamp(),
               statement_timestamp() + ttl * interval '1 second',
               statement_timestamp() + greatest(ttl, %s) * interval '1 second'
        FROM unnest(%s::text[], %s::text[], %s::jsonb[], %s::boolean[], %s::integer[],
                    %s::bytea[], %s::boolean[], %s::text[], %s::boolean[], %s::integer[],
                    %s::integer[], %s::float8[])
             WITH ORDINALITY AS given (audience, room, keys, stored, op, body, is_json, by,
                                       ensure, speed, recipients, ttl, place)
        ORDER BY place RETURNING id, expires_at
    ),
    numbered AS (SELECT id, expires_at, row_number() OVER (ORDER BY id) AS place FROM stored),
    owed AS (
        INSERT INTO offline_pending (message_id, key, expires_at)
        SELECT id, key, expires_at
        FROM unnest(%s::bigint[], %s::text[]) AS wanted (place, key) JOIN numbered USING (place)
    ),
    queued AS (
        INSERT INTO offline_outbox (message_id, partition, partitions, created_at, attempts, error,
                                    origin)
        SELECT id, partition, %s, statement_timestamp(), 0, '', origin
        FROM unnest(%s::bigint[], %s::integer[], %s::text[]) AS parts (place, partition, origin)
        JOIN numbered USING (place)
    )
    SELECT id FROM numbered ORDER BY id
"""
