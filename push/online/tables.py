"""Tables of online events: leases of nodes, keys that nodes hold, and each key's state.

A key in `EVENT_KEYS` has a row of `OnlineKey` for each node that holds sessions of it. Its row of
`OnlineState` says whether there is such a row, and has the number of the key's last event. Rooms in
`EVENT_ROOMS` have such rows too, with a mark before their names (`push/webhooks/endpoints.py`).
"""

from datetime import timedelta
from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from imgo_site.names import NAME_MAX

KEEP = 366 * 86_400.0  # seconds that the state of a key that is offline is kept
PRUNE_PAGE = 5_000  # states that one statement examines


class OnlineNode(models.Model):
    """Lease of a node. Its keys are removed when it has been silent for too long.

    `beat`: grows while the node lives.
    `cluster`: which database it was taken in. After a failover the node takes a new lease.
    `is_stopped`: the node has ended in order; its keys stay for `PRESENCE_GRACE`.
    `is_ended`: the node's keys are being removed, and it may write no more under this lease.
    """

    id = models.CharField(max_length=32, primary_key=True)
    name = models.CharField(max_length=255)
    beat = models.BigIntegerField(default=0)
    cluster = models.CharField(max_length=64)
    is_stopped = models.BooleanField(default=False)
    is_ended = models.BooleanField(default=False)

    class Meta:
        app_label = "push"

    def __str__(self) -> str:
        return f"lease of {self.name}"


class OnlineKey(models.Model):
    """A key of which a node holds a session, or held one within `PRESENCE_GRACE`.

    `node`: the id of the node's lease, without a foreign key: each insert would lock its row.
    """

    pk = models.CompositePrimaryKey("node", "key")
    node = models.CharField(max_length=32)
    key = models.CharField(max_length=NAME_MAX + 1)

    class Meta:
        app_label = "push"
        indexes: ClassVar = [models.Index(fields=["key"], name="online_key")]

    def __str__(self) -> str:
        return f"{self.key} at {self.node}"


class OnlineStateManager(models.Manager["OnlineState"]):
    """Manager that deletes the states of keys that were not seen for long."""

    def prune(self, after: str = "") -> str:
        """Delete old states among the next page of keys; return its last key, "" at the end.

        `after`: the last key of the page before.
        """
        keys = list(
            self.filter(key__gt=after).order_by("key").values_list("key", flat=True)[:PRUNE_PAGE]
        )
        limit = Now() - timedelta(seconds=KEEP)
        self.filter(key__in=keys, is_online=False, at__lt=limit).delete()
        return keys[-1] if len(keys) == PRUNE_PAGE else ""


class OnlineState(models.Model):
    """Whether a key is online, and its last event. The row is locked by whoever changes that.

    `number`: grows by one with each event. The first is the database's Unix time in milliseconds,
    so that it is higher than those of a row that was deleted, or lost in a failover.
    `at`: when the key's first session opened, or its last one ended.
    `cluster`: the database in which the last event was stored.
    `is_unreported`: the webhook outbox was full when the last event was stored.
    """

    key = models.CharField(max_length=NAME_MAX + 1, primary_key=True)
    number = models.BigIntegerField()
    is_online = models.BooleanField()
    at = models.DateTimeField()
    cluster = models.CharField(max_length=64)
    is_unreported = models.BooleanField(default=False)

    objects: ClassVar[OnlineStateManager] = OnlineStateManager()

    class Meta:
        app_label = "push"
        indexes: ClassVar = [
            models.Index(fields=["key"], name="online_unreported", condition=Q(is_unreported=True))
        ]

    def __str__(self) -> str:
        return f"{self.key}: {'online' if self.is_online else 'offline'}"
