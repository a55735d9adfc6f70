"""Tables of webhooks: waiting events, batches, and how far the table of events was read."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from django.db import models, transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from imgo_site.conf import conf
from imgo_site.names import NAME_MAX
from imgo_site.postgres.limits import limit_idle
from offline import event_feed
from push.webhooks.endpoints import URL_MAX

ERROR_MAX = 500  # characters kept of an error
ONLY = 1  # the primary key of the one row of `WebhookCursor`
LEASE = 8.0  # seconds after which another node may send; an idle sender renews every 2 s
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class LeaseLost(Exception):
    """Another node sends now."""


class WebhookCursorManager(models.Manager["WebhookCursor"]):
    """Manager of the one row: the position in the table of events, and the sender's lease."""

    def begin(self) -> None:
        """Create the row if there is none, at the present end of the table of events."""
        if self.filter(pk=ONLY).exists():
            return
        row = WebhookCursor(pk=ONLY, position=event_feed.newest_id(), until=EPOCH)
        self.bulk_create([row], ignore_conflicts=True)

    def position(self) -> int | None:
        """Return the id of the last event that was collected; None before the first start."""
        return self.filter(pk=ONLY).values_list("position", flat=True).first()

    def limit_of_pruning(self) -> int | None:
        """Return the id above which events must be kept for webhooks; None without webhooks."""
        return self.position() if conf.WEBHOOKS else None

    def hold(self, owner: str) -> bool:
        """Acquire or renew the lease; return whether `owner` has it now."""
        mine_or_free = Q(owner=owner) | Q(until__lte=Now())
        until = Now() + timedelta(seconds=LEASE)
        return self.filter(mine_or_free, pk=ONLY).update(owner=owner, until=until) == 1

    def require(self, owner: str) -> None:
        """Renew the lease, and lock the row until the transaction ends.

        So a sender whose lease ended unnoticed changes nothing any more. A sender that hangs in its
        transaction loses it, and another node follows.

        Raises `LeaseLost`.
        """
        assert transaction.get_connection().in_atomic_block
        limit_idle()
        until = Now() + timedelta(seconds=LEASE)
        if not self.filter(pk=ONLY, owner=owner).update(until=until):
            raise LeaseLost

    def release(self, owner: str) -> None:
        """End the lease, if `owner` has it."""
        self.filter(pk=ONLY, owner=owner).update(owner="", until=EPOCH)


class WebhookCursor(models.Model):
    """How far the table of events was collected, and the lease of the sender."""

    position = models.BigIntegerField()
    owner = models.CharField(max_length=40, blank=True)
    until = models.DateTimeField()

    objects: ClassVar[WebhookCursorManager] = WebhookCursorManager()

    class Meta:
        app_label = "push"

    def __str__(self) -> str:
        return f"event {self.position}"


class WebhookEvent(models.Model):
    """One event for one endpoint that is in no batch yet. `data`: JSON, with the key."""

    endpoint = models.CharField(max_length=URL_MAX)
    type = models.CharField(max_length=40)
    key = models.CharField(max_length=NAME_MAX + 1)
    # Text, because clients may send what Postgres's JSON refuses, such as NUL.
    data = models.TextField()
    at = models.DateTimeField()

    class Meta:
        app_label = "push"
        indexes: ClassVar = [models.Index(fields=["endpoint", "id"], name="webhook_event_order")]

    def __str__(self) -> str:
        return f"{self.type} of {self.key}"


class WebhookBatchManager(models.Manager["WebhookBatch"]):
    """Queries of batches, and the steps that end or delay them."""

    def open(self) -> "models.QuerySet[WebhookBatch]":
        """Return the batches that are sent, or are to be sent again."""
        return self.filter(parked_at=None)

    def parked(self) -> "models.QuerySet[WebhookBatch]":
        """Return the batches that are sent no more unless someone asks for it."""
        return self.exclude(parked_at=None)

    def unpark(self, rows: "models.QuerySet[WebhookBatch]", seconds: float) -> int:
        """Send parked batches again, for up to `seconds`; return how many there were."""
        return rows.exclude(parked_at=None).update(
            parked_at=None,
            attempts=0,
            next_at=Now(),
            give_up_at=Now() + timedelta(seconds=seconds),
        )


class WebhookBatch(models.Model):
    """Composed request to an endpoint. Id and body stay the same however often it is sent."""

    uuid = models.UUIDField(default=uuid.uuid4, unique=True)
    endpoint = models.CharField(max_length=URL_MAX)
    body = models.TextField()
    keys = models.JSONField()
    size = models.IntegerField(help_text="Events in it.")
    attempts = models.IntegerField(default=0)
    next_at = models.DateTimeField(default=timezone.now)
    give_up_at = models.DateTimeField(help_text="A failure after this time parks it.")
    error = models.CharField(max_length=ERROR_MAX, blank=True, help_text="Of the last attempt.")
    created_at = models.DateTimeField(default=timezone.now)
    parked_at = models.DateTimeField(null=True, blank=True)

    objects: ClassVar[WebhookBatchManager] = WebhookBatchManager()

    class Meta:
        app_label = "push"
        verbose_name_plural = "webhook batches"
        indexes: ClassVar = [
            models.Index(
                fields=["endpoint", "id"], name="webhook_open", condition=Q(parked_at=None)
            ),
            models.Index(
                fields=["parked_at"],
                name="webhook_parked",
                condition=Q(parked_at__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"batch {self.pk} of {self.size} events"

    @property
    def message_id(self) -> str:
        """Return the header `webhook-id`."""
        return f"msg_{self.uuid.hex}"
