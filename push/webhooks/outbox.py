"""Webhook outbox: from events to batches, in order per key, with retries and parked batches.

A batch is composed once. Its events are deleted in the same transaction, so each event is in
exactly one batch. A batch holds no key of another open batch of its endpoint. So the events of a
key are sent one batch after the other, and a failing batch delays only its own keys.
"""

import logging
import random
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import chain
from json import dumps
from typing import Any, NamedTuple

import msgspec
from django.db import connection, transaction
from django.db.models import Sum
from django.db.models.functions import Now
from django.utils import timezone

from imgo_site.conf import conf
from imgo_site.process_parts import process
from offline import event_feed
from offline.models import Event
from push.metrics import definitions as metrics
from push.webhooks.endpoints import TYPES_OF_KINDS, Endpoint, endpoints
from push.webhooks.tables import ERROR_MAX, WebhookBatch, WebhookCursor, WebhookEvent

logger = logging.getLogger(__name__)

COLLECT_MAX = 1_000  # events that are collected in one transaction
BATCH_MAX = 100  # events of one batch
BATCH_BYTES = 256 * 1024  # of their data; one event may be larger
OPEN_MAX = 100  # open batches of an endpoint: above that, all of it fails, not a few batches
INSERT_CHUNK = 400  # rows of one statement
BACKOFF = (2.0, 600.0)  # seconds until a failed batch is sent again: the first pause, the longest
GIVE_UP_AFTER = 86_400.0  # seconds from the composition; a failure after that parks the batch
PARKED_KEEP = 30 * 86_400.0  # seconds
PARK_MAX = 50  # batches of removed endpoints in one transaction
PRUNE_BATCH = 100  # batches of one DELETE
COUNT_EVERY = 1.0  # seconds
LOG_EVERY = 10.0  # seconds between two log lines about dropped events
REMOVED = "the endpoint was removed from WEBHOOKS"


class Outcome(StrEnum):
    """Result of one attempt, or end of a batch."""

    DELIVERED = "delivered"
    FAILED = "failed"  # and sent again
    PARKED = "parked"


class Result(NamedTuple):
    """Result of one attempt. `is_final`: whether it is of no use to send the batch again."""

    batch: WebhookBatch
    error: str = ""  # "" for success
    is_final: bool = False


# Collecting


def collect(owner: str, upto: int) -> bool:
    """Copy events up to an id from the table of events to the endpoints that match them.

    Handles at most `COLLECT_MAX` events; returns whether there may be more. The cursor moves in the
    same transaction.

    Raises `LeaseLost`.
    """
    kinds = [kind for kind, name in TYPES_OF_KINDS.items() if _is_subscribed(name)]
    with transaction.atomic():
        WebhookCursor.objects.require(owner)
        position = WebhookCursor.objects.position() or 0
        if position >= upto:
            return False
        events = event_feed.read(position, upto, kinds, COLLECT_MAX)
        insert(
            row
            for event in events
            for row in rows_for(
                TYPES_OF_KINDS[event.kind],
                event.key,
                _members(event),
                event.at,
            )
        )
        is_last = len(events) < COLLECT_MAX
        WebhookCursor.objects.update(position=upto if is_last else events[-1].pk)
    return not is_last


def _members(event: Event) -> dict[str, Any]:
    is_of_device = event.kind in {Event.Kind.NOTIFIED, Event.Kind.NOTIFY_FAILED}
    members = {
        "id": str(event.message_id),
        "device" if is_of_device else "session": event.session,
        "reason": event.reason,
        "provider_id": event.provider_id,
    }
    if not is_of_device:
        members["device"] = event.device
    return {name: value for name, value in members.items() if value}


def _is_subscribed(name: str) -> bool:
    return any(name in endpoint.events for endpoint in endpoints())


def rows_for(name: str, key: str, members: dict[str, Any], at: datetime) -> list[WebhookEvent]:
    """Return a row for each endpoint that matches this event. Raises `ValueError` for NaN."""
    matching = [endpoint for endpoint in endpoints() if endpoint.matches(name, key)]
    if not matching:
        return []
    data = dumps({"key": key, **members}, separators=(",", ":"), allow_nan=False)
    return [
        WebhookEvent(endpoint=endpoint.url, type=name, key=key, data=data, at=at)
        for endpoint in matching
    ]


def insert(rows: Iterable[WebhookEvent]) -> None:
    """Insert events. Above `WEBHOOKS_MAX` they are dropped, which is counted and logged."""
    row_list = list(rows)
    if not row_list:
        return
    fits = process.get(_Quota).take(len(row_list))
    WebhookEvent.objects.bulk_create(row_list[:fits], batch_size=INSERT_CHUNK)
    process.get(_Drops).add(len(row_list[fits:]))


class KeyData(NamedTuple):
    """Key and JSON of one event, and its time in UTC as SQLite stores it."""

    key: str
    data: str
    at: str


def insert_alike(name: str, events: Sequence[KeyData]) -> list[str]:
    """Insert events of one type, in one statement an endpoint; return the keys of dropped ones.

    It takes a fraction of the time of `insert`, for many events at once.
    """
    dropped: list[str] = []
    for endpoint in endpoints():
        rows = [row for row in events if endpoint.matches(name, row.key)]
        fits = process.get(_Quota).take(len(rows)) if rows else 0
        if fits:
            values = [{"key": row.key, "data": row.data, "at": row.at} for row in rows[:fits]]
            part = msgspec.json.encode(values).decode()
            is_postgres = connection.vendor == "postgresql"
            with connection.cursor() as cursor:
                statement = _INSERT_POSTGRES if is_postgres else _INSERT_SQLITE
                cursor.execute(statement, [endpoint.url, name, part])
        dropped += [row.key for row in rows[fits:]]
    process.get(_Drops).add(len(dropped))
    return dropped


_INSERT = """
    INSERT INTO push_webhookevent (endpoint, type, key, data, at) SELECT %s, %s, {} WHERE true
"""
_INSERT_POSTGRES = _INSERT.format(
    "key, data, (at || '+00')::timestamptz "
    "FROM jsonb_to_recordset(%s::jsonb) AS g (key text, data text, at text)"
)
_INSERT_SQLITE = _INSERT.format(
    "json_extract(value, '$.key'), json_extract(value, '$.data'), json_extract(value, '$.at') "
    "FROM json_each(%s)"
)


def backlog() -> int:
    """Return the number of events that wait, in batches or not, without parked ones."""
    batched = WebhookBatch.objects.open().aggregate(events=Sum("size"))["events"] or 0
    return batched + WebhookEvent.objects.count()


class _Quota:
    """Counts the events that may still be inserted, with a query a second at most until it is full.

    Other processes insert too, so the limit may be exceeded by what they insert in a second.
    """

    def __init__(self) -> None:
        self._backlog = 0
        self._counted_at = -COUNT_EVERY  # monotonic seconds

    def take(self, count: int) -> int:
        """Return how many of `count` events may be inserted; the caller inserts them."""
        now = time.monotonic()
        is_full = self._backlog + count > conf.WEBHOOKS_MAX
        if is_full or now - self._counted_at >= COUNT_EVERY:
            self._backlog, self._counted_at = backlog(), now
        fits = min(count, max(0, conf.WEBHOOKS_MAX - self._backlog))
        self._backlog += fits
        return fits


class _Drops:
    """Counts dropped events, and logs them at most once in `LOG_EVERY` seconds."""

    def __init__(self) -> None:
        self._count = 0
        self._logged_at = 0.0  # monotonic seconds

    def add(self, count: int) -> None:
        if not count:
            return
        metrics.WEBHOOK_EVENTS_DROPPED.inc(count)
        self._count += count
        now = time.monotonic()
        if now - self._logged_at >= LOG_EVERY:
            logger.error(
                "%d events for webhooks were dropped: %d wait (WEBHOOKS_MAX)",
                self._count,
                conf.WEBHOOKS_MAX,
            )
            self._count, self._logged_at = 0, now


# Composing


def has_events(endpoint: Endpoint) -> bool:
    """Return whether events of an endpoint are in no batch yet."""
    return WebhookEvent.objects.filter(endpoint=endpoint.url).exists()


def compose(endpoint: Endpoint, count: int) -> int:
    """Compose up to `count` batches of the events of an endpoint; return how many.

    The caller holds the lease in a transaction.
    """
    open_batches = WebhookBatch.objects.open().filter(endpoint=endpoint.url)
    lists = list(open_batches.values_list("keys", flat=True)[:OPEN_MAX])
    blocked = set(chain.from_iterable(lists))
    count = min(count, OPEN_MAX - len(lists))
    if count <= 0:
        return 0
    waiting = WebhookEvent.objects.filter(endpoint=endpoint.url).order_by("pk")
    if blocked:
        waiting = waiting.exclude(key__in=blocked)
    rows = list(waiting[: count * BATCH_MAX])
    composed = 0
    while composed < count and (part := _next_batch(rows, blocked)):
        _store(endpoint.url, part, parked_because="")
        composed += 1
    return composed


def _next_batch(rows: list[WebhookEvent], blocked: set[str]) -> list[WebhookEvent]:
    """Remove and return the events of the next batch; block their keys for further batches."""
    part: list[WebhookEvent] = []
    rest: list[WebhookEvent] = []
    size = 0
    for place, row in enumerate(rows):
        if row.key in blocked:
            rest.append(row)
            continue
        size += len(row.data)
        if part and (len(part) == BATCH_MAX or size > BATCH_BYTES):
            rest += rows[place:]
            break
        part.append(row)
    blocked.update(row.key for row in part)
    rows[:] = rest
    return part


def _store(url: str, rows: Sequence[WebhookEvent], parked_because: str) -> None:
    """Insert a batch with these events, and delete them. `parked_because`: "" to send it."""
    now = timezone.now()
    WebhookBatch.objects.create(
        endpoint=url,
        body=batch_body((row.type, row.at, row.data) for row in rows),
        keys=sorted({row.key for row in rows}),
        size=len(rows),
        next_at=Now(),
        give_up_at=Now() + timedelta(seconds=GIVE_UP_AFTER),
        created_at=now,
        parked_at=now if parked_because else None,
        error=parked_because,
    )
    WebhookEvent.objects.filter(pk__in=[row.pk for row in rows]).delete()


def batch_body(events: Iterable[tuple[str, datetime, str]]) -> str:
    """Return the body of a batch. `events`: type, time and JSON of the data of each."""
    parts = ",".join(
        f'{{"type":"{name}","timestamp":"{_time(at)}","data":{data}}}' for name, at, data in events
    )
    return f'{{"type":"batch","timestamp":"{_time(timezone.now())}","events":[{parts}]}}'


def _time(moment: datetime) -> str:
    text = moment.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


# Results


def due(endpoint: Endpoint, in_flight: Sequence[int], count: int) -> list[WebhookBatch]:
    """Return up to `count` batches that must be sent now, without those in flight."""
    rows = WebhookBatch.objects.open().filter(endpoint=endpoint.url, next_at__lte=Now())
    return list(rows.exclude(pk__in=in_flight).order_by("pk")[:count])


def settle(result: Result) -> Outcome:
    """Delete a delivered batch; delay or park a failed one. It may be repeated."""
    batch = WebhookBatch.objects.filter(pk=result.batch.pk)
    if not result.error:
        batch.delete()
        return Outcome.DELIVERED
    error = result.error[:ERROR_MAX]
    attempts = result.batch.attempts + 1
    over = batch if result.is_final else batch.filter(give_up_at__lte=Now())
    if over.update(parked_at=Now(), error=error, attempts=attempts):
        return Outcome.PARKED
    delay = min(BACKOFF[0] * 2.0 ** min(attempts - 1, 30), BACKOFF[1])
    delay *= random.uniform(0.75, 1.25)  # noqa: S311 - so that batches do not retry in step
    batch.update(attempts=attempts, error=error, next_at=Now() + timedelta(seconds=delay))
    return Outcome.FAILED


def park_removed() -> int:
    """Park rows of endpoints that the settings do not have any more; return how many events.

    At most `PARK_MAX` batches of waiting events are parked at a time. The caller holds the lease in
    a transaction.
    """
    urls = [endpoint.url for endpoint in endpoints()]
    count = 0
    waiting = WebhookEvent.objects.exclude(endpoint__in=urls).order_by("pk")
    for _ in range(PARK_MAX):
        if not (rows := list(waiting[:BATCH_MAX])):
            break
        url = rows[0].endpoint
        part = [row for row in rows if row.endpoint == url]
        _store(url, part, parked_because=REMOVED)
        count += len(part)
    batches = WebhookBatch.objects.open().exclude(endpoint__in=urls)
    count += batches.aggregate(events=Sum("size"))["events"] or 0
    batches.update(parked_at=Now(), error=REMOVED)
    return count


def forget_parked() -> int:
    """Delete one batch of rows that were parked `PARKED_KEEP` seconds ago; return how many."""
    limit = Now() - timedelta(seconds=PARKED_KEEP)
    old = WebhookBatch.objects.filter(parked_at__lt=limit).order_by("parked_at")
    rows = dict(old.values_list("pk", "size")[:PRUNE_BATCH])
    if rows:
        WebhookBatch.objects.filter(pk__in=list(rows)).delete()
        events = sum(rows.values())
        metrics.WEBHOOK_EVENTS_DROPPED.inc(events)
        logger.error("%d parked events for webhooks were too old and are deleted", events)
    return len(rows)
