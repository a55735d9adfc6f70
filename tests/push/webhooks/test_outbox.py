"""The webhook outbox: collecting, composing, blocking of keys, parking."""

import json
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.db.models.functions import Now

from imgo_site.postgres.limits import IDLE_MAX
from offline.event_feed import newest_id
from offline.models import Event
from push.metrics import definitions as metrics
from push.webhooks import outbox
from push.webhooks.endpoints import endpoints
from push.webhooks.outbox import Outcome, Result
from push.webhooks.tables import LeaseLost, WebhookBatch, WebhookCursor, WebhookEvent

from .conftest import OTHER_URL, OWNER, URL, entry, settle

pytestmark = [pytest.mark.django_db, pytest.mark.any_database]


def collect() -> None:
    while outbox.collect(OWNER, newest_id()):
        pass


def compose(count: int = 4, place: int = 0) -> list[WebhookBatch]:
    """New batches of an endpoint."""
    last = max(WebhookBatch.objects.values_list("pk", flat=True), default=0)
    outbox.compose(endpoints()[place], count)
    return list(WebhookBatch.objects.filter(pk__gt=last).order_by("pk"))


def ids(*batches: WebhookBatch) -> list[int]:
    return [int(e["data"]["id"]) for one in batches for e in json.loads(one.body)["events"]]


def test_collect_copies_each_wanted_event_once_per_endpoint(webhooks):
    settle("user-1", 1)  # before the first start: not collected
    webhooks(
        entry(events=["message.acknowledged", "message.dropped"], keys=["user-*"]),
        entry(OTHER_URL, events=["*"]),
    )
    settle("user-1", 2, session="s1")
    settle("user-1", 3, "dropped", reason="offline_max")
    settle("user-1", 4, "sent")
    settle("user-1", 5, "received")
    settle("shop", 6, "expired")
    settle("shop", 7, "notified", session="17", provider_id="m/1")
    settle("shop", 7, "notify_closed", session="17")
    collect()
    collect()
    rows = WebhookEvent.objects.order_by("pk")
    assert [(row.type, json.loads(row.data)) for row in rows.filter(endpoint=URL)] == [
        ("message.acknowledged", {"key": "user-1", "id": "2", "session": "s1"}),
        ("message.dropped", {"key": "user-1", "id": "3", "reason": "offline_max"}),
    ]
    assert [row.type for row in rows.filter(endpoint=OTHER_URL)] == [
        "message.acknowledged", "message.dropped", "message.delivered", "message.expired",
        "message.notified",
    ]  # fmt: skip
    notified = {"key": "shop", "id": "7", "device": "17", "provider_id": "m/1"}
    assert json.loads(rows.last().data) == notified
    assert WebhookCursor.objects.position() == newest_id()


def test_collect_continues_after_a_full_chunk(webhooks, monkeypatch):
    monkeypatch.setattr(outbox, "COLLECT_MAX", 3)
    webhooks(entry())
    for number in range(1, 8):
        settle("u", number)
    assert outbox.collect(OWNER, newest_id())
    assert WebhookEvent.objects.count() == 3
    collect()
    assert ids(*compose()) == list(range(1, 8))


def test_collect_without_the_lease_changes_nothing(webhooks):
    webhooks(entry())
    settle("u", 1)
    WebhookCursor.objects.update(until=Now() - timedelta(seconds=1))
    assert WebhookCursor.objects.hold("another")
    assert not WebhookCursor.objects.hold(OWNER)
    with pytest.raises(LeaseLost):
        collect()
    assert not WebhookEvent.objects.exists()


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has one process")
def test_sender_that_hangs_in_a_transaction_loses_it(webhooks):
    webhooks(entry())
    with transaction.atomic():
        WebhookCursor.objects.require(OWNER)
        with connection.cursor() as cursor:
            cursor.execute("SHOW idle_in_transaction_session_timeout")
            assert cursor.fetchone() == (f"{IDLE_MAX}s",)


def test_full_outbox_drops_new_events_and_counts_them(webhooks, caplog):
    webhooks(entry(), WEBHOOKS_MAX=2)
    before = metrics.WEBHOOK_EVENTS_DROPPED._value.get()
    for number in range(1, 6):
        settle("u", number)
    collect()
    assert WebhookEvent.objects.count() == 2
    assert metrics.WEBHOOK_EVENTS_DROPPED._value.get() - before == 3
    assert WebhookCursor.objects.position() == newest_id()
    compose()  # events in an open batch wait too
    settle("u", 6)
    collect()
    assert not WebhookEvent.objects.exists()
    outbox.settle(Result(WebhookBatch.objects.get(), "refused", is_final=True))
    settle("u", 7)
    collect()
    assert WebhookEvent.objects.count() == 1


def test_compose_makes_one_body_of_at_most_a_hundred_events(webhooks):
    webhooks(entry())
    for number in range(1, 251):
        settle(f"k{number}", number, session="s")
    collect()
    batches = compose()
    assert [batch.size for batch in batches] == [100, 100, 50]
    assert ids(*batches) == list(range(1, 251))
    assert not WebhookEvent.objects.exists()
    body = json.loads(batches[0].body)
    assert body["type"] == "batch"
    first = body["events"][0]
    assert set(first) == {"type", "timestamp", "data"}
    assert first["timestamp"].endswith("Z")
    assert len(first["timestamp"]) == len("2026-11-29T16:00:00.123Z")
    assert first["data"] == {"key": "k1", "id": "1", "session": "s"}


def test_compose_ends_a_batch_by_bytes_in_order(webhooks, monkeypatch):
    monkeypatch.setattr(outbox, "BATCH_BYTES", 100)
    webhooks(entry())
    for number in range(1, 11):
        settle("ab"[number % 2], number)
    collect()
    sent = []
    while batches := compose():
        sent += ids(*batches)
        for batch in batches:
            outbox.settle(Result(batch))
    assert [i for i in sent if i % 2] == [1, 3, 5, 7, 9]
    assert [i for i in sent if not i % 2] == [2, 4, 6, 8, 10]


def test_batch_holds_no_key_of_another_open_batch(webhooks):
    webhooks(entry())
    for number in range(1, 151):
        settle("hot", number)
    settle("cold", 151)
    collect()
    first, second = compose()
    assert ids(first) == list(range(1, 101))
    assert ids(second) == [151]
    assert compose() == []
    assert outbox.settle(Result(first, "down")) is Outcome.FAILED
    settle("cold", 152)
    settle("new", 153)
    collect()
    assert ids(*compose()) == [153]  # a failing batch blocks its own keys only
    outbox.settle(Result(second))
    assert ids(*compose()) == [152]
    outbox.settle(Result(first))
    assert ids(*compose()) == list(range(101, 151))


def test_failed_batch_is_due_later_with_the_same_id_and_body(webhooks):
    webhooks(entry())
    settle("u", 1)
    collect()
    (batch,) = compose()
    assert [one.pk for one in outbox.due(endpoints()[0], [], 4)] == [batch.pk]
    assert outbox.due(endpoints()[0], [batch.pk], 4) == []
    assert outbox.settle(Result(batch, "it answered with status 500")) is Outcome.FAILED
    assert outbox.due(endpoints()[0], [], 4) == []
    WebhookBatch.objects.update(next_at=Now())
    (again,) = outbox.due(endpoints()[0], [], 4)
    assert (again.message_id, again.body, again.attempts) == (batch.message_id, batch.body, 1)


@pytest.mark.parametrize("why", ["gone", "old"])
def test_parked_batch_lets_later_events_of_its_keys_go_on(webhooks, why):
    webhooks(entry())
    settle("u", 1)
    collect()
    (batch,) = compose()
    settle("u", 2)
    collect()
    assert compose() == []
    if why == "old":
        WebhookBatch.objects.update(give_up_at=Now())
    result = Result(batch, "it answered with status 410", is_final=why == "gone")
    assert outbox.settle(result) is Outcome.PARKED
    assert ids(*compose()) == [2]
    assert WebhookBatch.objects.unpark(WebhookBatch.objects.all(), 60.0) == 1
    assert len(outbox.due(endpoints()[0], [], 4)) == 2


def test_rows_of_a_removed_endpoint_are_parked_with_the_reason(webhooks):
    webhooks(entry(), entry(OTHER_URL))
    settle("u", 1)
    collect()
    compose(place=1)
    settle("u", 2)
    collect()
    webhooks(entry())
    with transaction.atomic():
        assert outbox.park_removed() == 2
    parked = WebhookBatch.objects.parked()
    assert {(one.endpoint, one.error, one.size) for one in parked} == {
        (OTHER_URL, outbox.REMOVED, 1)
    }
    assert WebhookEvent.objects.filter(endpoint=URL).count() == 2


def test_parked_batches_are_deleted_after_their_time(webhooks):
    webhooks(entry())
    settle("u", 1)
    collect()
    (batch,) = compose()
    outbox.settle(Result(batch, "gone", is_final=True))
    assert outbox.forget_parked() == 0
    WebhookBatch.objects.update(parked_at=Now() - timedelta(seconds=outbox.PARKED_KEEP + 1))
    assert outbox.forget_parked() == 1
    assert not WebhookBatch.objects.exists()


def test_pruning_keeps_events_that_were_not_collected(webhooks):
    assert WebhookCursor.objects.limit_of_pruning() is None
    webhooks(entry())
    settle("u", 1)
    limit = WebhookCursor.objects.limit_of_pruning()
    assert Event.objects.filter(pk__gt=limit).count() == 1
    collect()
    assert not Event.objects.filter(pk__gt=WebhookCursor.objects.limit_of_pruning()).exists()
