"""Nodes that have run, and the dedupe ids of pushes."""

from datetime import timedelta
from typing import ClassVar

from django.db import models
from django.utils import timezone

from imgo_site.conf import conf


class NodeManager(models.Manager["Node"]):
    """Announces nodes."""

    def announce(self, name: str) -> "Node":
        """Note that the node of this name is alive now; its row keeps its number for good."""
        row, _ = self.update_or_create(name=name, defaults={"last_seen": timezone.now()})
        return row


class Node(models.Model):
    """A process that holds sessions. The primary key is imgo's server id."""

    name = models.CharField(max_length=255, unique=True)
    first_seen = models.DateTimeField(default=timezone.now, editable=False)
    last_seen = models.DateTimeField(default=timezone.now, editable=False)

    objects: ClassVar[NodeManager] = NodeManager()

    def __str__(self) -> str:
        return self.name


class DedupeManager(models.Manager["Dedupe"]):
    """Finds and remembers dedupe ids."""

    def known(self, by: str, dedupe_ids: list[str]) -> dict[str, int]:
        """The message ids of those dedupe ids that this caller used within the window.

        Older ones are deleted, so that they can be used again.
        """
        if not dedupe_ids:
            return {}
        limit = timezone.now() - timedelta(seconds=conf.DEDUPE_WINDOW)
        rows = self.filter(by=by, dedupe_id__in=dedupe_ids)
        rows.filter(created_at__lte=limit).delete()
        return dict(rows.values_list("dedupe_id", "message_id"))

    def forget(self) -> int:
        """Delete what is older than the window; returns how many."""
        limit = timezone.now() - timedelta(seconds=conf.DEDUPE_WINDOW)
        return self.filter(created_at__lte=limit).delete()[0]


class Dedupe(models.Model):
    """A dedupe id that a caller has used, and the message that it stands for."""

    by = models.CharField(max_length=100)
    dedupe_id = models.CharField(max_length=255)
    message_id = models.BigIntegerField()
    created_at = models.DateTimeField(default=timezone.now, db_index=True)

    objects: ClassVar[DedupeManager] = DedupeManager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["by", "dedupe_id"], name="dedupe_once"),
        ]

    def __str__(self) -> str:
        return f"{self.by}: {self.dedupe_id}"
