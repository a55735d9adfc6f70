"""Models: nodes, dedupe ids, the cluster's jobs (duties), and canaries of the workers.

Those of session records, online keys, devices and webhooks are beside the code that writes them.
"""

from datetime import UTC, datetime, timedelta
from typing import ClassVar

from django.db import models
from django.db.models.functions import Now
from django.utils import timezone

from imgo_site.conf import conf
from push.devices.tables import Device, Notice, Notification
from push.online.tables import OnlineKey, OnlineNode, OnlineState
from push.session.session_records import SessionRecord
from push.webhooks.tables import WebhookBatch, WebhookCursor, WebhookEvent

__all__ = [
    "Canary", "Dedupe", "Device", "Duty", "Node", "Notice", "Notification", "OnlineKey",
    "OnlineNode", "OnlineState", "SessionRecord", "WebhookBatch", "WebhookCursor", "WebhookEvent",
]  # fmt: skip

FORGET_BATCH = 500  # rows of one DELETE
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class NodeManager(models.Manager["Node"]):
    """Manager that announces nodes."""

    def announce(self, name: str) -> "Node":
        """Record that the node of this name is alive now, and return its row.

        The row, and so the node's number, is kept for good.
        """
        row, _ = self.update_or_create(name=name, defaults={"last_seen": Now()})
        row.refresh_from_db(fields=["last_seen"])
        return row

    def live_numbers(self) -> list[int]:
        """Return the numbers of the nodes that were announced within `NODE_LEASE`."""
        limit = Now() - timedelta(seconds=conf.NODE_LEASE)
        return list(self.filter(last_seen__gt=limit).values_list("pk", flat=True))


class Node(models.Model):
    """A process that holds sessions. The primary key is imgo's server id."""

    name = models.CharField(max_length=255, unique=True)
    first_seen = models.DateTimeField(default=timezone.now, editable=False)
    last_seen = models.DateTimeField(default=timezone.now, editable=False)

    objects: ClassVar[NodeManager] = NodeManager()

    class Meta:
        # For the dashboard. Its permission to revoke tokens is `accounts.delete_token`.
        permissions: ClassVar = [
            ("view_dashboard", "Can look at the dashboard"),
            ("push_message", "Can push messages in the dashboard"),
            ("kick_session", "Can close sessions in the dashboard"),
            ("drain_node", "Can drain nodes in the dashboard"),
        ]

    def __str__(self) -> str:
        return self.name


class DedupeManager(models.Manager["Dedupe"]):
    """Manager that finds dedupe ids and deletes old ones."""

    def known(self, by: str, dedupe_ids: list[str]) -> dict[str, int]:
        """Return dedupe id → message id for those that this caller used within the window.

        Delete older ones, so that they can be used again.
        """
        if not dedupe_ids:
            return {}
        limit = Now() - timedelta(seconds=conf.DEDUPE_WINDOW)
        rows = self.filter(by=by, dedupe_id__in=dedupe_ids)
        rows.filter(created_at__lte=limit).delete()
        return dict(rows.values_list("dedupe_id", "message_id"))

    def forget(self) -> int:
        """Delete one batch of rows that are older than the window; return the number of rows."""
        due = self.overdue().order_by("created_at")
        ids = list(due.values_list("pk", flat=True)[:FORGET_BATCH])
        return self.filter(pk__in=ids).delete()[0] if ids else 0

    def overdue(self) -> "models.QuerySet[Dedupe]":
        """Return the rows that are older than the window."""
        return self.filter(created_at__lte=Now() - timedelta(seconds=conf.DEDUPE_WINDOW))


class Dedupe(models.Model):
    """A dedupe id that a caller has used, and the message of that push."""

    by = models.CharField(max_length=100)
    dedupe_id = models.CharField(max_length=255)
    message_id = models.BigIntegerField()
    created_at = models.DateTimeField(db_default=Now(), db_index=True)

    objects: ClassVar[DedupeManager] = DedupeManager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["by", "dedupe_id"], name="dedupe_once"),
        ]

    def __str__(self) -> str:
        return f"{self.by}: {self.dedupe_id}"


class DutyManager(models.Manager["Duty"]):
    """Manager that lets one node at a time run a job of the cluster."""

    def claim(self, name: str, seconds: float) -> bool:
        """Return whether the caller must run the job now; other claims then fail for `seconds`."""
        self.bulk_create([Duty(name=name, until=EPOCH)], ignore_conflicts=True)
        now_on = self.filter(name=name, until__lte=Now())
        return now_on.update(until=Now() + timedelta(seconds=seconds)) == 1


class Duty(models.Model):
    """A job of the cluster, and the time until which it is claimed."""

    name = models.CharField(max_length=40, primary_key=True)
    until = models.DateTimeField()
    result = models.JSONField(null=True)  # for jobs that have one

    objects: ClassVar[DutyManager] = DutyManager()

    class Meta:
        verbose_name_plural = "duties"

    def __str__(self) -> str:
        return self.name


class CanaryManager(models.Manager["Canary"]):
    """Manager that records canaries, and reports how long each worker has been silent."""

    def due(self, partitions: int, interval: float) -> list[int]:
        """Return the partitions whose canary is due, and record these canaries as sent.

        `partitions`: number of partitions.
        `interval`: seconds between two canaries of a partition.
        """
        rows = [Canary(partition=n, sent_at=EPOCH) for n in range(partitions)]
        self.bulk_create(rows, ignore_conflicts=True)
        self.filter(partition__gte=partitions).delete()
        now = Now()
        due = []
        for partition in range(partitions):
            row = self.filter(partition=partition, sent_at__lte=now - timedelta(seconds=interval))
            if row.update(sent_at=now):
                due.append(partition)
        return due

    def heard(self, partition: int) -> None:
        """Record that a worker took a canary from this partition's queue."""
        self.filter(partition=partition).update(heard_at=Now())

    def silence(self, asked_within: float) -> dict[int, float]:
        """Return partition → seconds since a worker last took a canary.

        In normal operation that is at most the interval of canaries. It grows while no worker takes
        tasks. Partitions without a canary sent in the last `asked_within` seconds are left out.
        """
        limit = timedelta(seconds=asked_within)
        rows = self.annotate(now=Now()).filter(sent_at__gt=Now() - limit)
        return {
            row.partition: (row.now - (row.heard_at or row.first_at)).total_seconds()
            for row in rows.order_by("partition")
        }


class Canary(models.Model):
    """When a canary was last sent to one partition's queue, and when one was last taken from it."""

    partition = models.IntegerField(primary_key=True)
    first_at = models.DateTimeField(db_default=Now())
    sent_at = models.DateTimeField()
    heard_at = models.DateTimeField(null=True)

    objects: ClassVar[CanaryManager] = CanaryManager()

    class Meta:
        verbose_name_plural = "canaries"

    def __str__(self) -> str:
        return f"partition {self.partition}"
