"""Backlogs of webhooks, for commands and the dashboard: waiting and parked events."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from django.db.models import Count, Max, Min, Q, Sum
from django.db.models.functions import Now

from offline.models import Event
from push.webhooks.endpoints import TYPES_OF_KINDS, endpoints
from push.webhooks.tables import WebhookBatch, WebhookCursor, WebhookEvent


@dataclass
class Backlog:
    """State of one endpoint. `oldest`: age in seconds; 0 if nothing waits.

    `is_known`: whether the settings have it. `error`: the last one of a batch that is not
    delivered.
    """

    endpoint: str
    is_known: bool = True
    waiting: int = 0
    oldest: float = 0.0
    parked: int = 0
    error: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return asdict(self)


def backlogs() -> list[Backlog]:
    """Return the state of all endpoints of the settings, and of removed ones that have rows."""
    by_url = {endpoint.url: Backlog(endpoint.url) for endpoint in endpoints()}

    def of(url: str) -> Backlog:
        return by_url.setdefault(url, Backlog(url, is_known=False))

    events = WebhookEvent.objects.values("endpoint").order_by()
    for waiting in events.annotate(count=Count("pk"), first=Min("at"), now=Now()):
        backlog = of(waiting["endpoint"])
        backlog.waiting += waiting["count"]
        backlog.oldest = max(backlog.oldest, _seconds(waiting["first"], waiting["now"]))
    batches = WebhookBatch.objects.values("endpoint", is_parked=Q(parked_at__isnull=False))
    sums = batches.order_by().annotate(events=Sum("size"), first=Min("created_at"), now=Now())
    for row in sums:
        backlog = of(row["endpoint"])
        if row["is_parked"]:
            backlog.parked = row["events"]
        else:
            backlog.waiting += row["events"]
            backlog.oldest = max(backlog.oldest, _seconds(row["first"], row["now"]))
    for url, error in _errors():
        of(url).error = error
    return sorted(by_url.values(), key=lambda backlog: (not backlog.is_known, backlog.endpoint))


def _errors() -> list[tuple[str, str]]:
    """Return each URL that has failed batches, and the error of its newest one."""
    failed = WebhookBatch.objects.exclude(error="").values("endpoint").order_by()
    newest = failed.annotate(last=Max("pk")).values("last")
    return list(WebhookBatch.objects.filter(pk__in=newest).values_list("endpoint", "error"))


def uncollected_seconds() -> float:
    """Return the age of the oldest event that was not collected yet, in seconds."""
    position = WebhookCursor.objects.position()
    if position is None:
        return 0.0
    rows = Event.objects.filter(pk__gt=position, kind__in=list(TYPES_OF_KINDS)).order_by("pk")
    row = rows.annotate(now=Now()).values("at", "now").first()
    return _seconds(row["at"], row["now"]) if row else 0.0


def _seconds(begin: datetime | None, end: datetime) -> float:
    return max(0.0, (end - begin).total_seconds()) if begin else 0.0


def events_of(key: str, message_id: int) -> list[str]:
    """Return sentences about the events of one message that are not delivered yet."""
    part = f'"id":"{message_id}"'
    waiting = WebhookEvent.objects.filter(key=key, data__contains=part).order_by("pk")
    batches = WebhookBatch.objects.filter(body__contains=part).order_by("pk")
    return [
        *(f"The event {row.type} waits for the webhook {row.endpoint}." for row in waiting),
        *(_sentence(batch) for batch in batches if key in batch.keys),
    ]


def _sentence(batch: WebhookBatch) -> str:
    why = f": {batch.error}" if batch.error else ""
    if batch.parked_at is None:
        state = f"is not delivered yet, {batch.attempts} attempt(s) have failed{why}"
    else:
        state = f"is parked{why} ('manage.py webhooks retry {batch.pk}' sends it again)"
    return f"The webhook batch {batch.pk} to {batch.endpoint} with its event {state}."
