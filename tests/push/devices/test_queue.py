"""Notices and notifications in the database: when they are made, claimed, settled and forgotten."""

from dataclasses import replace
from datetime import timedelta

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from offline import conservation, settlement
from offline.models import ACKNOWLEDGED, Event
from offline.schedule import store_due
from offline.values import Receipt
from push import push_to_key, push_to_keys
from push.accept.accept import Push, accept_pushes
from push.accept.cancel import cancel_push
from push.devices import notices, queue
from push.devices.addresses import address_of
from push.devices.jobs import Outcome, Result
from push.devices.registration import register
from push.devices.tables import Device, Notice, Notification

from .conftest import CONTENT

pytestmark = pytest.mark.django_db

SENT = Result(Outcome.SENT, provider_id="m/1")


def notify_key(key: str = "u1", after: float = 0.0, **options) -> int:
    return push_to_key(key, 1, notify=CONTENT, notify_after=after, **options)


def claimed(limit: int = 10) -> list[queue.Job]:
    """Make the notifications that are due, and claim them."""
    while notices.expand():
        pass
    return queue.claim("webpush", limit)


def acknowledge(message_id: int, key: str = "u1") -> None:
    settlement.record_receipts([Receipt(message_id, key, ACKNOWLEDGED, "n-1")])


def events() -> list[tuple[str, str, str, str]]:
    rows = Event.objects.filter(kind__startswith="notif").order_by("pk")
    return list(rows.values_list("kind", "session", "reason", "provider_id"))


def test_pending_push_is_claimed_for_each_device(register_browser) -> None:
    devices = [register_browser("u1"), register_browser("u1")]
    register_browser("u2")
    message_id = notify_key()
    jobs = claimed()
    assert [(job.device_id, job.attempt) for job in jobs] == [(one.pk, 1) for one in devices]
    assert (jobs[0].message_id, jobs[0].key, jobs[0].content) == (message_id, "u1", CONTENT)
    assert 86_300 < jobs[0].ttl <= 86_400
    assert claimed() == []


@pytest.mark.parametrize(
    "result",
    [
        Result(Outcome.SENT, provider_id="m/\0"),
        Result(Outcome.REJECTED, "\ud800"),
        *(Result(Outcome.GONE, "gone", gone_at=at) for at in (float("nan"), float("inf"), 1e18)),
    ],
)
def test_outcome_with_an_odd_text_or_time_is_recorded(register_browser, result) -> None:
    register_browser("u1")
    notify_key()
    queue.settle([(job, result) for job in claimed()])
    ((kind, _, reason, provider_id),) = events()
    shown = {Outcome.SENT: ("notified", "", "m/?"), Outcome.REJECTED: ("notify_failed", "?", "")}
    assert (kind, reason, provider_id) == shown.get(result.outcome, ("notify_failed", "gone", ""))


def test_push_without_notify_executes_no_statement_more(register_browser) -> None:
    def statements(**options) -> int:
        with CaptureQueriesContext(
            connection,
        ) as found:
            push_to_key("u1", 1, **options)
        return len(found)

    plain = statements()
    assert statements(notify=CONTENT) > plain
    assert statements() == plain
    assert Notice.objects.count() == 1


def test_notice_is_due_after_its_seconds(register_browser) -> None:
    register_browser("u1")
    push_id = notify_key(after=60)
    assert not notices.is_due()
    assert claimed() == []
    Notice.objects.filter(pk=push_id).update(due_at=Now())
    assert notices.is_due()
    assert len(claimed()) == 1


@pytest.mark.parametrize("end", ["acknowledge", "cancel", "expire"])
def test_settled_before_it_is_due_is_not_sent(register_browser, end) -> None:
    register_browser("u1")
    message_id = notify_key()
    if end == "acknowledge":
        acknowledge(message_id)
    elif end == "cancel":
        cancel_push(message_id)
    else:
        from offline.models import Pending

        Pending.objects.update(expires_at=Now())
    assert claimed() == []
    assert (Notification.objects.count(), events()) == (0, [])


def test_settled_before_a_claim_is_not_sent(register_browser) -> None:
    register_browser("u1")
    message_id = notify_key()
    notices.expand()
    acknowledge(message_id)
    assert queue.claim("webpush", 10) == []
    assert Notification.objects.count() == 0


def test_device_of_another_key_gets_nothing_of_the_first(register_browser) -> None:
    device = register_browser("u1")
    notify_key()
    notices.expand()
    register_browser("u2", browser=device.browser)
    assert queue.claim("webpush", 10) == []


def test_claim_without_an_outcome_is_claimed_again_after_its_lease(register_browser) -> None:
    register_browser("u1")
    notify_key()
    (first,) = claimed()
    Notification.objects.update(next_at=Now())
    (second,) = claimed()
    assert (second.pk, second.message_id, second.attempt) == (first.pk, first.message_id, 2)
    queue.settle([(first, SENT), (second, SENT)])
    assert events() == [("notified", str(first.device_id), "", "m/1")]


def test_late_failure_does_not_delay_another_claim(register_browser) -> None:
    register_browser("u1")
    notify_key()
    (first,) = claimed()
    Notification.objects.update(next_at=Now())
    claimed()
    before = Notification.objects.get().next_at
    queue.settle([(first, Result(Outcome.RETRY, "timeout"))])
    assert Notification.objects.get().next_at == before


def test_failure_is_sent_again_after_pauses_while_the_message_lives(register_browser) -> None:
    device = register_browser("u1")
    notify_key()
    for attempt in range(1, 100):  # a provider that fails for most of a day
        Notification.objects.update(next_at=Now())
        (job,) = claimed()
        assert job.attempt == attempt
        queue.settle([(job, Result(Outcome.RETRY, "status_500"))])
        assert claimed() == []
    assert events() == []
    Notification.objects.update(next_at=Now())
    queue.settle([(replace(job, ttl=60), Result(Outcome.RETRY, "status_500")) for job in claimed()])
    assert events() == [("notify_failed", str(device.pk), "given_up", "")]
    assert Device.objects.get().failures == 1


def test_fault_of_our_own_is_given_up_after_a_few_attempts(register_browser) -> None:
    register_browser("u1")
    notify_key()
    for _ in range(queue.FAULTS_MAX):
        assert events() == []
        Notification.objects.update(next_at=Now())
        queue.settle([(job, Result(Outcome.RETRY, queue.FAULT)) for job in claimed()])
    assert [kind for kind, *_ in events()] == ["notify_failed"]


def test_pause_is_at_least_that_of_the_provider(register_browser) -> None:
    register_browser("u1")
    notify_key()
    queue.settle([(claimed()[0], Result(Outcome.RETRY, "status_429", retry_after=600.0))])
    assert Notification.objects.get().next_at - timezone.now() > timedelta(seconds=590)


def test_device_that_is_gone_is_deleted_with_its_notifications(register_browser) -> None:
    device = register_browser("u1")
    notify_key()
    notify_key()
    job, _ = claimed()
    queue.settle([(job, Result(Outcome.GONE, "status_410"))])
    assert (Device.objects.count(), Notification.objects.count()) == (0, 0)
    assert events() == [("notify_failed", str(device.pk), "status_410", "")]


def test_device_registered_after_it_was_gone_stays(register_browser) -> None:
    device = register_browser("u1")
    notify_key()
    (job,) = claimed()
    gone_at = device.last_seen.timestamp() - 1
    queue.settle([(job, Result(Outcome.GONE, "Unregistered", gone_at=gone_at))])
    assert Device.objects.count() == 1


def test_success_ends_the_failures_of_a_device(register_browser) -> None:
    register_browser("u1")
    for _ in range(2):
        notify_key()
    first, second = claimed()
    queue.settle([(first, Result(Outcome.REJECTED, "status_400"))])
    assert Device.objects.get().failures == 1
    queue.settle([(second, SENT)])
    assert Device.objects.get().failures == 0
    assert [kind for kind, *_ in events()] == ["notify_failed", "notified"]


def test_ledger_balances_with_notifications(register_browser) -> None:
    register_browser("u1")
    message_id = notify_key()
    queue.settle([(job, SENT) for job in claimed()])
    assert conservation.balance_of_latest(0).missing == 0
    acknowledge(message_id)
    found = conservation.balance_of_latest(0)
    assert (found.missing, dict(found.settled)) == (0, {"acknowledged": 1})
    assert conservation.unbalanced(0, message_id) == []


def test_scheduled_push_notifies_after_it_is_due(register_browser) -> None:
    """Its notice waits for a push that is stored late, and names the message that it became."""
    register_browser("u1")
    push_id = notify_key(send_at=3_600)
    notice = Notice.objects.filter(pk=push_id)
    assert notice.get().due_at - timezone.now() > timedelta(seconds=3_590)
    notice.update(due_at=Now())
    assert notices.expand()
    assert notice.get().expanded_at is None
    from offline.models import ScheduledPush

    ScheduledPush.objects.update(due_at=Now())
    (due,) = store_due().due
    notice.update(due_at=Now())
    (job,) = claimed()
    assert job.message_id == due.message_id != push_id


def test_notice_of_many_keys_is_made_in_parts(register_browser, monkeypatch) -> None:
    monkeypatch.setattr(notices, "KEYS_MAX", 2)
    keys = [f"u{n}" for n in range(5)]
    for key in keys:
        register_browser(key)
    push_to_keys(keys, 1, notify=CONTENT, notify_after=0)
    assert [notices.expand() for _ in range(4)] == [True, True, True, False]
    assert sorted(job.key for job in queue.claim("webpush", 10)) == keys


def test_repeated_push_notifies_once(register_browser) -> None:
    register_browser("u1")
    for _ in range(2):
        notify_key(dedupe_id="d")
    accept_pushes([Push(b"1", keys=("u1",))])
    assert len(claimed()) == 1


def test_old_notices_are_forgotten_once_nothing_waits(register_browser) -> None:
    register_browser("u1")
    notify_key()
    (job,) = claimed()
    Notice.objects.update(expanded_at=Now() - timedelta(days=2))
    assert notices.forget() == 0
    queue.settle([(job, SENT)])
    assert notices.forget() == 1
    assert not Notice.objects.exists()


def test_rows_of_a_provider_that_was_removed_are_forgotten(register_browser, imgo) -> None:
    register_browser("u1")
    notify_key()
    assert notices.expand()
    notify_key()
    imgo(WEBPUSH_PRIVATE_KEY="")
    Notice.objects.filter(expanded_at=None).update(due_at=Now() - timedelta(days=2))
    Notice.objects.exclude(expanded_at=None).update(expanded_at=Now() - timedelta(days=2))
    assert notices.forget() == 1
    Notification.objects.update(expires_at=Now())
    assert notices.forget() == 1
    assert not Notice.objects.exists()


def test_registration_moves_a_device_and_keeps_the_cap(register_browser, imgo, service) -> None:
    imgo(**{**service.settings(), "DEVICES_PER_KEY": 2})
    first = register_browser("u1", "phone")
    moved = register("u2", address_of("webpush", first.browser.subscription, None), "tablet")
    assert (moved.pk, moved.key, moved.name) == (first.pk, "u2", "tablet")
    newer = [register_browser("u2") for _ in range(2)]
    assert set(Device.objects.values_list("pk", flat=True)) == {one.pk for one in newer}
