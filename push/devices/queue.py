"""Queue of notifications: a claim is committed before a notification is sent, its outcome after.

A process that dies in between has sent the notification or not. The claim's lease ends, and the
notification is sent again with the same Topic, apns-id or collapse key. So a device that got both
shows one. What closes a shown notification goes the same way.
"""

import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone

from imgo_site.ack_scope import each_of
from imgo_site.conf import conf
from imgo_site.names import printable
from imgo_site.postgres.limits import limit_idle
from offline.models import Event, Pending
from push.devices.closings import still_shown
from push.devices.jobs import Job, Outcome, Result
from push.devices.tables import CLOSING_PROVIDERS, Device, Notification
from push.metrics import definitions as metrics

LEASE_MARGIN = 20.0  # seconds that a lease is longer than the time to send
# Seconds until a notification is sent again: the first, the longest. A provider may fail for a day.
BACKOFF = (2.0, 600.0)
FAULT = "error"  # reason of a failure that is a bug of ours
FAULTS_MAX = 8  # attempts after which such a notification is given up
RETRY_AFTER_MAX = 3_600.0  # seconds that a provider's Retry-After can ask for
GIVEN_UP = "given_up"
REASON_MAX = 40  # characters: fits the event's column
PROVIDER_ID_MAX = 200  # characters: fits the event's column
WAITING, CLOSING = Notification.State.WAITING, Notification.State.CLOSING


def has_work(providers: Sequence[str]) -> bool:
    """Return whether a notification of one of these providers is to be sent or closed now."""
    return Notification.objects.filter(provider__in=providers, next_at__lte=Now()).exists()


def claim(provider: str, limit: int) -> list[Job]:
    """Claim up to `limit` notifications of a provider, and return those to be sent or closed.

    A notification whose key has settled the message meanwhile is deleted, and so is that of a
    device which has another owner. One that is shown is deleted when its message expires.
    """
    with transaction.atomic():
        limit_idle()
        due = Notification.objects.filter(provider=provider, next_at__lte=Now())
        rows: list[Any] = list(
            due.order_by("next_at", "pk")
            .select_related("device", "notice")
            .annotate(now=Now())
            .select_for_update(skip_locked=True, of=("self",))[:limit]
        )
        to_send = _still_pending([row for row in rows if row.state == WAITING])
        to_send |= still_shown([row for row in rows if row.state == CLOSING])
        over = [row.pk for row in rows if row.pk not in to_send]
        if over:
            Notification.objects.filter(pk__in=over).delete()
        Notification.objects.filter(pk__in=list(to_send)).update(
            next_at=Now() + timedelta(seconds=conf.NOTIFY_TIMEOUT + LEASE_MARGIN),
            attempts=F("attempts") + 1,
        )
    stopped = sum(row.state == WAITING and row.pk not in to_send for row in rows)
    metrics.NOTIFICATIONS.labels(provider, "stopped").inc(stopped)
    return [_job(row) for row in rows if row.pk in to_send]


def _still_pending(rows: Sequence[Any]) -> set[int]:
    """Return the primary keys of the notifications whose message is pending for their key."""
    if not rows:
        return set()
    pending = Pending.objects.filter(
        message__in={row.message_id for row in rows},
        key__in={row.key for row in rows},
        expires_at__gt=Now(),
    )
    pairs = set(pending.values_list("message_id", "key")) - _acknowledged(rows)
    return {
        row.pk for row in rows if (row.message_id, row.key) in pairs and row.device.key == row.key
    }


def _acknowledged(rows: Sequence[Any]) -> set[tuple[int, str]]:
    """Return the (message id, key) that a device of a key with the scope `each` has acknowledged.

    For others the message is pending still. The user has seen it all the same.
    """
    keys = each_of(row.key for row in rows)
    if not keys:
        return set()
    events = Event.objects.filter(
        message__in={row.message_id for row in rows},
        key__in=keys,
        kind__in=(Event.Kind.ACKNOWLEDGED, Event.Kind.RECEIVED),
    )
    return set(events.values_list("message_id", "key"))


def _job(row: Any) -> Job:
    return Job(
        pk=row.pk,
        attempt=row.attempts + 1,
        message_id=row.message_id,
        key=row.key,
        device_id=row.device_id,
        provider=row.provider,
        address=row.device.address,
        content=json.loads(row.notice.content),
        ttl=max(1, int((row.expires_at - row.now).total_seconds())),
        closes=row.state == CLOSING,
    )


def settle(results: Sequence[tuple[Job, Result]]) -> None:
    """Record outcomes. It may be repeated: an outcome counts once, while its row exists."""
    if not results:
        return
    with transaction.atomic():
        limit_idle()
        rows = Notification.objects.filter(pk__in={job.pk for job, _ in results})
        # Locked in one order, so that two processes do not wait for each other.
        locked = rows.select_for_update().order_by("pk")
        steps = {row.pk: row for row in locked.only("attempts", "state")}
        ended: dict[int, tuple[Job, Result]] = {}
        for job, result in results:
            step = steps.get(job.pk)
            if step is None or step.state != _state_of(job) or job.pk in ended:
                continue  # recorded before
            pause = _pause(job.attempt, result)
            if result.outcome is not Outcome.RETRY or _is_given_up(job, result, pause):
                ended[job.pk] = job, result
            elif job.attempt == step.attempts:  # else another process has claimed it since
                next_at = Now() + timedelta(seconds=pause)
                Notification.objects.filter(pk=job.pk).update(next_at=next_at)
                metrics.NOTIFICATIONS.labels(job.provider, "retried").inc()
        _end(list(ended.values()))
    for job, result in ended.values():
        metrics.NOTIFICATIONS.labels(job.provider, _label(job, result)).inc()


def _state_of(job: Job) -> Notification.State:
    return CLOSING if job.closes else WAITING


def _is_given_up(job: Job, result: Result, pause: float) -> bool:
    """Return whether a failed notification is not sent again.

    That is when its message will have expired by then: until then the provider may recover.
    """
    return pause >= job.ttl or (result.reason == FAULT and job.attempt >= FAULTS_MAX)


_LABELS = {
    Outcome.SENT: "sent",
    Outcome.GONE: "gone",
    Outcome.REJECTED: "rejected",
    Outcome.RETRY: GIVEN_UP,
}


def _label(job: Job, result: Result) -> str:
    """Return the outcome for the metric."""
    if job.closes:
        return "closed" if result.outcome is Outcome.SENT else "close_failed"
    return _LABELS[result.outcome]


def _is_shown(job: Job, result: Result) -> bool:
    """Return whether the device shows the notification now, and can be made to close it."""
    is_taken = result.outcome is Outcome.SENT and not job.closes
    return is_taken and job.provider in CLOSING_PROVIDERS


def _end(ended: Sequence[tuple[Job, Result]]) -> None:
    """End the steps of notifications, record their events, and update their devices."""
    Event.objects.bulk_create([_event(job, result) for job, result in ended])
    shown = {job.pk for job, result in ended if _is_shown(job, result)}
    if shown:
        Notification.objects.filter(pk__in=shown).update(
            state=Notification.State.SHOWN, next_at=F("expires_at"), attempts=0
        )
    over = [job.pk for job, _ in ended if job.pk not in shown]
    Notification.objects.filter(pk__in=over).delete()
    sent = {job.device_id for job, result in ended if result.outcome is Outcome.SENT}
    Device.objects.filter(pk__in=sent, failures__gt=0).update(failures=0)
    for job, result in ended:
        device = Device.objects.filter(pk=job.device_id)
        if result.outcome is Outcome.GONE:
            # Not a device that was registered again after the provider had lost it.
            if (gone_at := _time_of(result.gone_at)) is not None:
                device = device.filter(last_seen__lte=gone_at)
            device.filter(address=job.address).delete()
        elif result.outcome is not Outcome.SENT:
            device.update(failures=F("failures") + 1)


def _time_of(seconds: float | None) -> datetime | None:
    """Return a Unix time from a provider as a time; None without one, or if it is none."""
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, tz=UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _event(job: Job, result: Result) -> Event:
    is_sent = result.outcome is Outcome.SENT
    kind = Event.Kind.NOTIFIED if is_sent else Event.Kind.NOTIFY_FAILED
    reason = GIVEN_UP if result.outcome is Outcome.RETRY else result.reason
    return Event(
        message_id=job.message_id,
        key=job.key,
        kind=Event.Kind.NOTIFY_CLOSED if job.closes else kind,
        session=str(job.device_id),
        # Texts of a provider's answer. One that cannot be stored would hold up all other outcomes.
        reason=printable(reason[:REASON_MAX]),
        provider_id=printable(result.provider_id[:PROVIDER_ID_MAX]),
        at=timezone.now(),
    )


def _pause(attempt: int, result: Result) -> float:
    """Return the seconds until a failed notification is sent again."""
    pause = min(BACKOFF[0] * 2.0 ** (attempt - 1), BACKOFF[1])
    pause *= random.uniform(0.75, 1.25)  # noqa: S311 - so that notifications do not retry in step
    return max(pause, min(result.retry_after, RETRY_AFTER_MAX))
