"""Messages as they were accepted.

The id comes from the database, which all nodes and API processes share: ids sort by the time of
acceptance whatever the processes' clocks say, and stay below 2**53, so that a JavaScript number
holds them. Times are the database's too, for the same reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar

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
    `partitions`: those that its fan-out is part of. `dedupe_id`: "" for none.
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
    dedupe_id: str = ""


class MessageManager(models.Manager["Message"]):
    """Stores messages and forgets them again."""

    def store(self, messages: Sequence[NewMessage], partitions: int = 1) -> list[int]:
        """Insert messages, what is pending, and what is to be fanned out.

        Returns the ids, in the order of `messages`. `partitions`: how many there are. Call it
        inside a transaction, unless the database is Postgres: there it is one statement.
        """
        if connection.vendor == "postgresql":
            from offline.store import insert

            return insert(messages, partitions).ids if messages else []
        from offline.models import Outbox
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
                recipients=recipients_of(new),
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

    def prune(self) -> int:
        """Forget one batch of messages whose time is over, and their records; returns how many."""
        from offline.events import Event
        from offline.models import Outbox, Reach

        due = self.filter(keep_until__lte=Now()).order_by("keep_until")
        ids = list(due.values_list("pk", flat=True)[:PRUNE_BATCH])
        events = Event.objects.filter(message_id__in=ids).values("pk")
        while ids and Event.objects.filter(pk__in=events[:EVENT_BATCH]).delete()[0]:
            pass  # each a transaction of its own: others get their turn in between
        with transaction.atomic():
            Outbox.objects.filter(message__in=ids).delete()
            Reach.objects.filter(message_id__in=ids).delete()
            self.filter(pk__in=ids).delete()
        return len(ids)


def recipients_of(new: NewMessage) -> int:
    """Return for how many keys the message becomes pending."""
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
