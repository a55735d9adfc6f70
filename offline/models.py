"""Tables of messages, the keys they are pending for, their outbox, and their events.

A message's id comes from the database, which all nodes and API processes share. So ids sort by the
time of acceptance, whatever the clocks of the processes are. Ids stay below 2**53, so that a
JavaScript number can represent them. Times also come from the database's clock, for all processes.

An accepted (message, key) is pending until exactly one event settles it. One transaction deletes
the pending row and inserts that event. So accepted = settled + pending always holds.

The tables of streams and of devices have modules of their own.
"""

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now
from django.utils import timezone

from imgo_site.push_origin import ORIGIN_MAX
from offline.device_tables import DEVICE_MAX, KeyDevice
from offline.stream_tables import NextEpoch, Stream

__all__ = [
    "ACKNOWLEDGED", "CANCELLED", "COLLAPSE_KEY_MAX", "ERROR_MAX", "EXCLUDE_LENGTH", "EXCLUDE_MAX",
    "RECEIVED", "REPLACED", "SENT", "STALE", "STEPS", "CollapseKey", "DuePush", "Event",
    "KeyDevice", "Message", "NextEpoch", "Outbox", "Pending", "Reach", "ScheduledPush", "Stream",
    "StreamMessage",
]  # fmt: skip

ERROR_MAX = 500  # characters kept of an error
COLLAPSE_KEY_MAX = 64  # characters of a collapse key
# Reasons for which a push is dropped before its time.
CANCELLED, REPLACED, STALE = "cancelled", "replaced", "stale"
EXCLUDE_MAX = 10  # sessions that a push may exclude
# Characters of their ids, joined by commas. An id has at most 40.
EXCLUDE_LENGTH = EXCLUDE_MAX * 41 - 1


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
    sender = models.CharField(
        max_length=255,
        blank=True,
        default="",
        db_default="",  # for processes of the previous version, and so that no row is rewritten
        help_text="Key of the client that has published it.",
    )
    ensure = models.BooleanField(default=False, help_text="Waits for room instead of dropping.")
    speed = models.IntegerField(
        default=0, db_default=0, help_text="Sessions that it reaches in a second; 0: all at once."
    )
    recipients = models.IntegerField(
        default=0, help_text="Keys that it was made pending for, or devices of them."
    )
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField()
    keep_until = models.DateTimeField(help_text="When the message and its record are forgotten.")
    cancelled_at = models.DateTimeField(null=True, blank=True)
    retracted_at = models.DateTimeField(
        null=True,
        blank=True,
        help_text="When its cancellation stored a retraction, or needed none.",
    )
    exclude = models.CharField(
        max_length=EXCLUDE_LENGTH,
        blank=True,
        default="",
        db_default="",
        help_text="Sessions that do not get it, separated by commas.",
    )
    collapse_key = models.CharField(
        max_length=COLLAPSE_KEY_MAX,
        blank=True,
        default="",
        db_default="",
        help_text="A newer push with the same one replaces it.",
    )
    version = models.BigIntegerField(null=True, blank=True)
    drop_reason = models.CharField(
        max_length=12,
        blank=True,
        default="",
        db_default="",
        help_text="Why a push to a room was dropped: replaced or stale.",
    )

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
    """Message that is not settled for a key yet. Settlement deletes the row.

    For a key with the scope `each` (`imgo_site/ack_scope.py`), each of its devices has a row.
    """

    message = models.ForeignKey(Message, on_delete=models.CASCADE, db_index=False)
    key = models.CharField(max_length=255)
    expires_at = models.DateTimeField(db_index=True)
    device = models.CharField(
        max_length=DEVICE_MAX,
        blank=True,
        default="",
        db_default="",  # for processes of the previous version, and so that no row is rewritten
        help_text="Device of the key that it is pending for; empty if its scope is not each.",
    )

    objects: ClassVar[PendingManager] = PendingManager()

    class Meta:
        app_label = "offline"
        verbose_name_plural = "pending"
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["message", "key", "device"], name="pending_device_once"
            ),
        ]
        indexes: ClassVar = [models.Index(fields=["key", "message"])]

    def __str__(self) -> str:
        return f"message {self.message_id} for {self.key}"


class Event(models.Model):
    """One step in the delivery of a message to a key."""

    class Kind(models.TextChoices):
        """Kind of a step.

        `SENT` and the kinds of notifications may occur often. One of the others ends the
        (message, key). `NOTIFY_CLOSED` with a reason: its provider has not taken what closes it.
        """

        SENT = "sent"
        RECEIVED = "received", "received by the kernel of an open session"
        ACKNOWLEDGED = "acknowledged", "acknowledged by the client"
        EXPIRED = "expired"
        DROPPED = "dropped"
        NOTIFIED = "notified", "taken by the provider of a device"
        NOTIFY_FAILED = "notify_failed", "not taken by the provider of a device"
        NOTIFY_CLOSED = "notify_closed", "closing of a shown notification"

    message = models.ForeignKey(
        Message, on_delete=models.DO_NOTHING, db_constraint=False, related_name="events"
    )
    key = models.CharField(max_length=255)
    kind = models.CharField(max_length=16, choices=Kind)
    session = models.CharField(
        max_length=40, blank=True, help_text="Session; of notifications, the device's number."
    )
    reason = models.CharField(max_length=40, blank=True)
    provider_id = models.CharField(
        max_length=200,
        blank=True,
        default="",
        db_default="",  # for processes of the previous version, and so that no row is rewritten
        help_text="The provider's name of a notification.",
    )
    device = models.CharField(
        max_length=DEVICE_MAX,
        blank=True,
        default="",
        db_default="",
        help_text="Device of the key; empty if its scope is not each.",
    )
    at = models.DateTimeField()

    class Meta:
        app_label = "offline"
        indexes: ClassVar = [models.Index(fields=["key", "message"], name="event_key")]

    def __str__(self) -> str:
        return f"message {self.message_id} for {self.key}: {self.kind}"


# Kinds that end nothing.
STEPS = (
    str(Event.Kind.SENT),
    str(Event.Kind.NOTIFIED),
    str(Event.Kind.NOTIFY_FAILED),
    str(Event.Kind.NOTIFY_CLOSED),
)
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
    exclude = models.CharField(
        max_length=EXCLUDE_LENGTH,
        blank=True,
        default="",
        db_default="",
        help_text="Sessions that do not get it, separated by commas.",
    )
    generation = models.IntegerField(
        default=0, db_default=0, help_text="Of the number of partitions: see Partitioning."
    )

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


class Partitioning(models.Model):
    """Number of partitions of one generation of the outbox; see `offline/repartitioning.py`."""

    generation = models.AutoField(primary_key=True)
    partitions = models.IntegerField()
    created_at = models.DateTimeField(db_default=Now())
    # Transactions that may still store messages of earlier generations; None before they are known.
    blockers = models.JSONField(null=True)
    opened_at = models.DateTimeField(null=True)  # since then its messages are fanned out

    class Meta:
        app_label = "offline"

    def __str__(self) -> str:
        return f"{self.partitions} partitions"


class ScheduledPush(models.Model):
    """Accepted push that is due later. Then it becomes a message with an id of its own.

    Its id comes from the sequence of the messages, so that one id never names two pushes. In this
    table, it has neither pending nor outbox rows.
    """

    id = models.BigIntegerField(primary_key=True)
    due_at = models.DateTimeField()
    created_at = models.DateTimeField()
    audience = models.CharField(max_length=4, choices=Message.Audience)
    room = models.CharField(max_length=255, blank=True)
    keys = models.JSONField(null=True, blank=True)
    stored = models.BooleanField()
    op = models.IntegerField()
    body = models.BinaryField()
    is_json = models.BooleanField()
    by = models.CharField(max_length=100, blank=True, help_text="Who pushed it.")
    ensure = models.BooleanField()
    speed = models.IntegerField()
    ttl = models.FloatField(help_text="Lifetime of the message from when it is due, seconds.")
    origin = models.CharField(max_length=ORIGIN_MAX, blank=True)
    exclude = models.CharField(max_length=EXCLUDE_LENGTH, blank=True)
    collapse_key = models.CharField(
        max_length=COLLAPSE_KEY_MAX, blank=True, default="", db_default=""
    )
    version = models.BigIntegerField(null=True, blank=True)

    class Meta:
        app_label = "offline"
        verbose_name_plural = "scheduled pushes"
        indexes: ClassVar = [models.Index(fields=["due_at", "id"], name="scheduled_due")]

    def __str__(self) -> str:
        return f"push {self.pk}, due at {self.due_at}"


class CollapseKey(models.Model):
    """The last push with a collapse key to a key or a room.

    `target`: "k" and the key, or "r" and the room. `push_id`: that of the message, or of the
    scheduled push until it is due; 0 while the first one is being accepted. `version`: the highest.
    """

    target = models.CharField(max_length=256)
    name = models.CharField(max_length=COLLAPSE_KEY_MAX)
    push_id = models.BigIntegerField()
    version = models.BigIntegerField(null=True)
    keep_until = models.DateTimeField(db_index=True)

    class Meta:
        app_label = "offline"
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["target", "name"], name="collapse_key_once"),
        ]

    def __str__(self) -> str:
        return f"{self.name} of {self.target[1:]}"


class DuePush(models.Model):
    """Push that was scheduled, and the message that it became."""

    id = models.BigIntegerField(primary_key=True)
    message_id = models.BigIntegerField(unique=True)
    due_at = models.DateTimeField()
    created_at = models.DateTimeField(help_text="When it was accepted.")

    class Meta:
        app_label = "offline"
        verbose_name_plural = "due pushes"

    def __str__(self) -> str:
        return f"push {self.pk}, sent as message {self.message_id}"


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


class StreamMessage(models.Model):
    """One kept message of a stream, with a copy of its body: the message itself goes earlier.

    An empty body is a tombstone: see `offline/tombstones.py`.
    """

    stream = models.ForeignKey(Stream, on_delete=models.CASCADE, db_index=False)
    offset = models.BigIntegerField()
    message_id = models.BigIntegerField(unique=True)
    op = models.IntegerField()
    body = models.BinaryField()
    is_json = models.BooleanField()
    sender = models.CharField(max_length=255, blank=True, default="", db_default="")
    collapse_key = models.CharField(
        max_length=COLLAPSE_KEY_MAX, blank=True, default="", db_default=""
    )
    at = models.DateTimeField(help_text="When it got its offset.")

    class Meta:
        app_label = "offline"
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["stream", "offset"], name="stream_offset_once"),
        ]

    def __str__(self) -> str:
        return f"offset {self.offset} of stream {self.stream_id}"
