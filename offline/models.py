"""Tables of messages, the keys they are pending for, their outbox, and their events.

A message's id comes from the database, which all nodes and API processes share. So ids sort by the
time of acceptance, whatever the clocks of the processes are. Ids stay below 2**53, so that a
JavaScript number can represent them. Times also come from the database's clock, for all processes.

An accepted (message, key) is pending until exactly one event settles it. One transaction deletes
the pending row and inserts that event. So accepted = settled + pending always holds.
"""

from typing import Any, ClassVar

from django.db import models
from django.db.models.functions import Now
from django.utils import timezone

from imgo_site.origin import ORIGIN_MAX

ERROR_MAX = 500  # characters kept of an error


class Message(models.Model):
    """Accepted push: one body, one id, for a key, many keys, a room or everyone."""

    class Audience(models.TextChoices):
        """Kind of a message's target."""

        KEYS = "keys"
        ROOM = "room"
        ALL = "all"

    audience = models.CharField(max_length=4, choices=Audience)
    room = models.CharField(max_length=255, blank=True)
    # All keys that it was pushed to. Those not settled yet have pending rows.
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

    class Meta:
        app_label = "offline"
        indexes: ClassVar = [models.Index(fields=["keep_until"], name="message_keep_until")]

    def __str__(self) -> str:
        return f"message {self.pk}"


class PendingManager(models.Manager["Pending"]):
    """Queries of pending rows."""

    def unexpired(self, key: str) -> "models.QuerySet[Pending]":
        """Return the rows that are pending for `key` now."""
        return self.filter(key=key, expires_at__gt=Now())


class Pending(models.Model):
    """Message that is not settled for a key yet. Settlement deletes the row."""

    message = models.ForeignKey(Message, on_delete=models.CASCADE, db_index=False)
    key = models.CharField(max_length=255)
    expires_at = models.DateTimeField(db_index=True)

    objects: ClassVar[PendingManager] = PendingManager()

    class Meta:
        app_label = "offline"
        verbose_name_plural = "pending"
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["message", "key"], name="pending_once"),
        ]
        indexes: ClassVar = [models.Index(fields=["key", "message"])]

    def __str__(self) -> str:
        return f"message {self.message_id} for {self.key}"


class Event(models.Model):
    """One step in the delivery of a message to a key."""

    class Kind(models.TextChoices):
        """Kind of a step. `SENT` may occur often; one of the others ends the (message, key)."""

        SENT = "sent"
        RECEIVED = "received", "received by the kernel of an open session"
        ACKNOWLEDGED = "acknowledged", "acknowledged by the client"
        EXPIRED = "expired"
        DROPPED = "dropped"

    message = models.ForeignKey(
        Message, on_delete=models.DO_NOTHING, db_constraint=False, related_name="events"
    )
    key = models.CharField(max_length=255)
    kind = models.CharField(max_length=12, choices=Kind)
    session = models.CharField(max_length=40, blank=True)
    reason = models.CharField(max_length=40, blank=True)
    at = models.DateTimeField()

    class Meta:
        app_label = "offline"
        indexes: ClassVar = [models.Index(fields=["key", "message"], name="event_key")]

    def __str__(self) -> str:
        return f"message {self.message_id} for {self.key}: {self.kind}"


SENT, ACKNOWLEDGED = str(Event.Kind.SENT), str(Event.Kind.ACKNOWLEDGED)
RECEIVED = str(Event.Kind.RECEIVED)


class Outbox(models.Model):
    """Message that waits for fan-out to one partition's keys, to a room, or to everyone."""

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
        db_default="",  # for processes of the previous version during an update
        help_text="The request that it came with, and its span.",
    )

    span: Any = None  # trace span of the fan-out in progress; None if it is not traced

    # Set by `outbox_queue.read_page`, by the database's time:
    is_late = False  # whether the message had expired
    age = 0.0  # seconds since the message was accepted
    # Number of the transaction that drains the partition; later drains have higher numbers.
    # 0: unknown.
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


class Reach(models.Model):
    """Sessions and nodes that were reported for one message to a room or to everyone."""

    message_id = models.BigIntegerField(primary_key=True)
    sessions = models.IntegerField()
    nodes = models.IntegerField()

    class Meta:
        app_label = "offline"
        verbose_name_plural = "reach"

    def __str__(self) -> str:
        return f"message {self.message_id}: {self.sessions} sessions of {self.nodes} nodes"
