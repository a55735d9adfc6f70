"""The tables of what is owed to whom, and of what became of it."""

from typing import Any, ClassVar

from django.db import models
from django.utils import timezone

from imgo_site.origin import ORIGIN_MAX
from offline.events import Event
from offline.messages import Message, NewMessage
from offline.pendings import Pending, PendingMessage

__all__ = [
    "ERROR_MAX", "Event", "Message", "NewMessage", "Outbox", "Pending", "PendingMessage", "Reach",
]  # fmt: skip

ERROR_MAX = 500  # characters kept of an error


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

    # Of a row that `outbox_queue.read_page` returned, by the database's time:
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
