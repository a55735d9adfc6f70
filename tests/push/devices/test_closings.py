"""Closing of shown notifications: which, when, once, and what it costs."""

from datetime import timedelta

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from offline import history, settlement
from offline.event_feed import newest_id
from offline.models import ACKNOWLEDGED, Event
from offline.values import Receipt
from push import push_to_key
from push.accept.cancel import cancel_push
from push.devices import closings, notices, queue
from push.devices.addresses import address_of
from push.devices.closings import Watch
from push.devices.jobs import Job, Outcome, Result
from push.devices.registration import register
from push.devices.tables import Device, Notification
from push.status.device_states import sentences

from .conftest import CONTENT
from .mobile_services import APPLE_PEM

pytestmark = pytest.mark.django_db

SENT = Result(Outcome.SENT, provider_id="a/1")
STATES = Notification.State


@pytest.fixture(autouse=True)
def _provider(imgo) -> None:
    names = {"APNS_KEY_ID": "K", "APNS_TEAM_ID": "T", "APNS_TOPIC": "com.example.shop"}
    imgo(APNS_KEY=APPLE_PEM, **names)


def phone(key: str = "u1", number: int = 1) -> Device:
    return register(key, address_of("apns", None, f"{number:064x}"))


def shown(key: str = "u1", **changes: object) -> int:
    """Push to a key, and let its devices show it; return the message's id."""
    message_id = push_to_key(key, 1, notify={**CONTENT, **changes}, notify_after=0)
    while notices.expand():
        pass
    queue.settle([(one, SENT) for one in queue.claim("apns", 10)])
    return message_id


def acknowledge(message_id: int, key: str = "u1") -> None:
    settlement.record_receipts([Receipt(message_id, key, ACKNOWLEDGED, "n-1")])


def closing_jobs() -> list[Job]:
    closings.mark(newest_id())  # the first one makes the cursor
    closings.mark(newest_id())
    return queue.claim("apns", 10)


def closed_events() -> list[tuple[str, str]]:
    rows = Event.objects.filter(kind="notify_closed").order_by("pk")
    return list(rows.values_list("session", "reason"))


@pytest.mark.parametrize("end", ["acknowledge", "cancel"])
@pytest.mark.parametrize("is_watched", [False, True])
def test_notification_is_closed_after_its_message_ended(end, is_watched) -> None:
    device = phone()
    message_id = shown()
    if is_watched:
        assert closing_jobs() == []
    if end == "acknowledge":
        acknowledge(message_id)
    else:
        cancel_push(message_id)
    (one,) = closing_jobs()
    assert (one.closes, one.attempt, one.message_id) == (True, 1, message_id)
    assert closing_jobs() == []
    queue.settle([(one, SENT), (one, SENT)])
    assert closed_events() == [(str(device.pk), "")]
    assert not Notification.objects.exists()
    message = history.find(message_id)
    told = list(sentences("u1", message, *history.deliveries(message, ["u1"])))
    assert "took what closes its notification" in told[-1]


def test_end_between_the_claim_and_its_outcome_is_seen() -> None:
    phone()
    first = shown()
    closing_jobs()
    message_id = push_to_key("u1", 1, notify=CONTENT, notify_after=0)
    notices.expand()
    jobs = queue.claim("apns", 10)
    acknowledge(message_id)
    closing_jobs()  # the cursor is above the event now
    queue.settle([(one, SENT) for one in jobs])
    assert [one.message_id for one in closing_jobs()] == [message_id] != [first]


def test_message_that_only_expires_or_is_another_keys_is_not_closed() -> None:
    phone()
    phone("u2", 2)
    shown()
    acknowledge(shown("u2"), "u1")
    Notification.objects.update(expires_at=Now(), next_at=Now())
    assert closing_jobs() == []
    assert (closed_events(), Notification.objects.count()) == ([], 0)


def test_many_events_are_not_read_but_rows_compared(monkeypatch) -> None:
    monkeypatch.setattr(closings, "SCAN_MAX", 0)
    monkeypatch.setattr(closings, "COMPARE_MAX", 1)
    phone()
    ids = [shown(tag="a"), shown(tag="b")]
    closing_jobs()
    for one in ids:
        acknowledge(one)
    found = closing_jobs()
    closings.mark(newest_id())
    found += queue.claim("apns", 10)
    assert [one.message_id for one in found] == ids


def test_notification_that_a_newer_one_replaced_is_not_closed() -> None:
    phone()
    old, new = shown(tag="chat"), shown(tag="chat")
    acknowledge(old)
    assert closing_jobs() == []
    acknowledge(new)
    assert [one.message_id for one in closing_jobs()] == [new]


def test_failed_closing_is_repeated_then_recorded() -> None:
    device = phone()
    acknowledge(shown())
    (one,) = closing_jobs()
    queue.settle([(one, Result(Outcome.RETRY, "timeout"))])
    Notification.objects.update(next_at=Now())
    (second,) = queue.claim("apns", 10)
    assert (second.closes, second.attempt) == (True, 2)
    queue.settle([(second, Result(Outcome.REJECTED, "BadTopic"))])
    assert closed_events() == [(str(device.pk), "BadTopic")]


def test_late_answer_to_the_notification_does_not_end_its_closing() -> None:
    phone()
    message_id = push_to_key("u1", 1, notify=CONTENT, notify_after=0)
    notices.expand()
    (first,) = queue.claim("apns", 10)
    Notification.objects.update(next_at=Now() - timedelta(seconds=1))
    (second,) = queue.claim("apns", 10)
    queue.settle([(second, SENT)])
    acknowledge(message_id)
    (closing,) = closing_jobs()
    queue.settle([(first, SENT)])
    assert Notification.objects.get().state == STATES.CLOSING
    queue.settle([(closing, SENT)])
    assert len(closed_events()) == 1


def test_nothing_shown_costs_one_query_and_browsers_none(imgo) -> None:
    watch = Watch()
    phone()
    acknowledge(push_to_key("u1", 1))
    with CaptureQueriesContext(connection) as found:
        watch.step()
    assert len(found) == 1
    imgo(APNS_KEY="")
    with CaptureQueriesContext(connection) as found:
        watch.step()
    assert len(found) == 0


def test_browser_is_sent_nothing_that_closes(register_browser) -> None:
    register_browser("u1")
    message_id = push_to_key("u1", 1, notify=CONTENT, notify_after=0)
    notices.expand()
    queue.settle([(one, SENT) for one in queue.claim("webpush", 10)])
    acknowledge(message_id)
    assert not Notification.objects.exists()
