"""Tables of the app: the project outbox, the leases of its lanes, and ids of received webhooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any
from zlib import crc32

from django.db import models
from django.db.models import (
    DateTimeField,
    DurationField,
    Exists,
    ExpressionWrapper,
    F,
    OuterRef,
    Q,
    Value,
)
from django.db.models.functions import Now
from django.utils import timezone

from imgo_client import Push
from imgo_client.frames import to_json

LANES = 16  # part of the rows' meaning: a change would reorder pushes that wait
NAME_MAX = 255  # characters of a key or room
ERROR_MAX = 500  # characters of an error that a row keeps


def lane_of(name: str) -> int:
    """Return the lane of a key's or a room's pushes."""
    return crc32(name.encode()) % LANES


class DatabaseNow(Now):
    """The database's time. On MySQL in UTC, which does not jump twice a year."""

    def as_mysql(self, compiler: Any, connection: Any, **context: Any) -> Any:  # noqa: D102
        return self.as_sql(compiler, connection, template="UTC_TIMESTAMP(6)", **context)


class OutboxQuerySet(models.QuerySet["Outbox"]):
    """Queries and transitions of outbox rows."""

    def waiting(self) -> OutboxQuerySet:
        """Return rows that are not parked."""
        return self.filter(parked_at=None)

    def parked(self) -> OutboxQuerySet:
        """Return rows that the server has refused for good."""
        return self.filter(parked_at__isnull=False)

    def record_failure(self, error: str) -> int:
        """Count a failed attempt of these rows; they stay where they are."""
        return self.update(attempts=F("attempts") + 1, error=error[:ERROR_MAX])

    def park(self, error: str) -> int:
        """Park these rows: later rows of their lanes go on."""
        now = timezone.now()
        values = {"attempts": F("attempts") + 1, "error": error[:ERROR_MAX], "parked_at": now}
        return self.waiting().update(**values)

    def send_again(self) -> int:
        """Let these parked rows be sent. They keep their ids, and go before later rows."""
        return self.parked().update(parked_at=None, error="")

    def prune(self, seconds: float) -> int:
        """Delete rows that were parked longer ago; return how many."""
        before = timezone.now() - timedelta(seconds=seconds)
        # With the lane, the index of due rows finds them.
        deleted, _ = self.filter(lane__in=range(LANES), parked_at__lt=before).delete()
        return deleted


class Outbox(models.Model):
    """One push that a transaction of the project has committed and no relay has delivered yet.

    `push_id` is what the call returned, and the push's dedupe id unless the call named one. The
    primary key is a number of its own, because rows of one lane are sent in the order of calls.
    """

    class Target(models.TextChoices):
        """Kinds of recipients."""

        KEY = "key"
        KEYS = "keys"
        ROOM = "room"
        ALL = "all"
        CANCEL = "stop"  # no push: `name` is the dedupe id of the push that is to be cancelled

    sequence = models.BigAutoField(primary_key=True)
    # Not a UUIDField: that has another type on MariaDB since Django 5.0, which breaks upgrades.
    push_id = models.CharField("id", max_length=32, unique=True, editable=False)
    lane = models.PositiveSmallIntegerField()
    target = models.CharField(max_length=4, choices=Target.choices)
    name = models.CharField(max_length=NAME_MAX, blank=True)  # the key or room
    keys = models.JSONField(null=True)  # of a push to many
    body = models.BinaryField()  # JSON text: the column's character set must not matter
    options = models.JSONField(default=dict)  # arguments of `imgo_client.Push` beside these
    created_at = models.DateTimeField(default=timezone.now)
    attempts = models.PositiveIntegerField(default=0)
    error = models.CharField(max_length=ERROR_MAX, blank=True)
    parked_at = models.DateTimeField(null=True)

    objects = OutboxQuerySet.as_manager()

    class Meta:
        verbose_name = "push"
        verbose_name_plural = "outbox"
        ordering = ("sequence",)
        indexes = (models.Index(fields=["lane", "parked_at", "sequence"], name="imgo_client_due"),)

    def __str__(self) -> str:
        return f"{self.push_id} to {self.target} {self.name}".rstrip()

    @classmethod
    def of(cls, push: Push, push_id: str) -> Outbox:
        """Return an unsaved row for a push."""
        options = {
            "ttl": push.ttl,
            "store": None if push.store else False,
            "op": None if push.op == Push.op else push.op,
            "ensure": push.ensure or None,
            "send_at": push.send_at,
            "exclude": list(push.exclude) or None,
            "collapse_key": push.collapse_key or None,
            "version": push.version,
            "notify": None if push.notify is None else dict(push.notify),
            "notify_after": push.notify_after,
            "dedupe_id": None if push.dedupe_id == push_id else push.dedupe_id,
        }
        keys = None if push.keys is None else list(push.keys)
        name = push.key or push.room or ""
        kinds = {cls.Target.KEY: push.key, cls.Target.KEYS: keys, cls.Target.ROOM: push.room}
        targets = [kind for kind, value in kinds.items() if value is not None]
        return cls(
            push_id=push_id,
            # Many keys cannot be in order with each of their own pushes: the first decides.
            lane=lane_of(keys[0] if keys else name),
            target=targets[0] if targets else cls.Target.ALL,
            name=name,
            keys=keys,
            body=push.body,
            options={key: value for key, value in options.items() if value is not None},
        )

    def as_push(self) -> Push | None:
        """Return the push to send, None if the row is damaged."""
        targets: dict[str, dict[str, Any]] = {
            self.Target.KEY: {"key": self.name},
            self.Target.KEYS: {"keys": self.keys},
            self.Target.ROOM: {"room": self.name},
            self.Target.ALL: {"all": True},
        }
        try:
            options = {"dedupe_id": self.push_id, **self.options, **targets[self.target]}
            return Push(bytes(self.body), **options)
        except (KeyError, TypeError, ValueError):
            return None


class LaneQuerySet(models.QuerySet["Lane"]):
    """Leases of lanes, by the database's time."""

    def create_missing(self) -> None:
        """Create the rows of all lanes that have none."""
        self.bulk_create([Lane(number=number) for number in range(LANES)], ignore_conflicts=True)

    def free_for(self, owner: str) -> LaneQuerySet:
        """Return the lanes that this owner may lease."""
        return self.filter(Q(owner=owner) | Q(until=None) | Q(until__lte=DatabaseNow()))

    def with_waiting(self) -> LaneQuerySet:
        """Return the lanes that have rows to send."""
        rows = Outbox.objects.using(self.db).waiting().filter(lane=OuterRef("number"))
        return self.filter(Exists(rows))

    def lease(self, owner: str, numbers: Sequence[int], seconds: float) -> list[int]:
        """Lease those of these lanes that are free, by one UPDATE; return them."""
        until = ExpressionWrapper(
            DatabaseNow() + Value(timedelta(seconds=seconds), output_field=DurationField()),
            output_field=DateTimeField(),
        )
        lanes = self.filter(number__in=numbers)
        if lanes.free_for(owner).update(owner=owner, until=until) == len(numbers):
            return list(numbers)
        # Another relay got there first.
        return list(lanes.filter(owner=owner).values_list("number", flat=True))

    def release(self, owner: str, numbers: Iterable[int]) -> int:
        """End this owner's leases of these lanes. A lease that another owner has taken stays."""
        return self.filter(owner=owner, number__in=numbers).update(owner="", until=None)


class Lane(models.Model):
    """Lease of one lane: the relay `owner` may send its rows `until` then."""

    number = models.PositiveSmallIntegerField(primary_key=True)
    owner = models.CharField(max_length=32, blank=True)
    until = models.DateTimeField(null=True)

    objects = LaneQuerySet.as_manager()

    def __str__(self) -> str:
        return f"lane {self.number}"


class DeliveryQuerySet(models.QuerySet["Delivery"]):
    """Queries of received ids."""

    def prune(self, seconds: float) -> int:
        """Delete ids that were received longer ago; return how many."""
        deleted, _ = self.filter(
            received_at__lt=timezone.now() - timedelta(seconds=seconds)
        ).delete()
        return deleted


class Delivery(models.Model):
    """Id of a webhook or of the hook `receive` that was handled, with the answer of the latter.

    It is a row and not a cache entry: it commits together with what the webhook's receivers wrote,
    so a webhook whose handling failed can come again, and one that was handled is never repeated.
    """

    webhook_id = models.CharField(max_length=NAME_MAX, primary_key=True)
    received_at = models.DateTimeField(default=timezone.now, db_index=True)
    answer = models.BinaryField(null=True)  # JSON text; None: without a body

    objects = DeliveryQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "deliveries"

    def __str__(self) -> str:
        return self.webhook_id

    def keep_answer(self, value: Any) -> None:
        """Store the answer, for a repetition; None needs no store.

        Raises TypeError or ValueError if JSON cannot express it.
        """
        if value is not None:
            self.answer = to_json(value).encode()
            self.save(update_fields=["answer"])
