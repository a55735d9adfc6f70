"""Settlement: acknowledged, dropped and expired messages, each once."""

from datetime import timedelta

import pytest
from django.utils import timezone

from offline.models import ACKNOWLEDGED, RECEIVED, SENT, Event
from offline.settlement import drop_oldest, expire_batch, keys_over_limit, record_receipts
from offline.sql import CHUNK
from offline.values import Receipt

from .conftest import events, owed, pending_ids, received

pytestmark = [pytest.mark.django_db, pytest.mark.any_database]


def test_what_was_received_is_not_pending(store):
    one, two = store("a", "b"), store("a")
    assert received((one, "a")) == 1
    assert owed() == sorted([(one, "b"), (two, "a")])
    assert events("kind", "session") == [(one, "a", "received", "s1")]


def test_a_message_is_settled_once(store):
    one = store("a")
    assert received((one, "a")) == 1
    assert received((one, "a"), session="s2") == 0
    assert record_receipts([Receipt(one, "a", ACKNOWLEDGED, "s3")]) == 0
    assert events("kind", "session") == [(one, "a", "received", "s1"), (one, "a", "sent", "s2")]


def test_a_message_is_settled_once_by_receipts_that_come_together(store):
    one = store("a", "b")
    receipts = [
        Receipt(one, "a", SENT, "s0"),
        Receipt(one, "a", RECEIVED, "s1"),
        Receipt(one, "a", RECEIVED, "s2"),
        Receipt(one, "a", ACKNOWLEDGED, "s0"),
        Receipt(one, "b", SENT, "s3"),
    ]
    assert record_receipts(receipts) == 1
    assert events("kind", "session") == [
        (one, "a", "sent", "s0"),
        (one, "a", "received", "s1"),
        (one, "a", "sent", "s2"),
        (one, "b", "sent", "s3"),
    ]
    assert owed() == [(one, "b")]


def test_acknowledging_what_never_was_is_no_mistake_and_leaves_no_trace(store):
    one = store("a")
    nothing = [Receipt(one, "b", ACKNOWLEDGED, "s"), Receipt(10**15, "a", ACKNOWLEDGED, "s")]
    assert record_receipts(nothing) == 0
    assert record_receipts([]) == 0
    assert (owed(), events()) == ([(one, "a")], [])


def test_an_event_has_the_time_that_it_happened(store):
    one = store("a")
    record_receipts([Receipt(one, "a", RECEIVED, "s", age=60.0)])
    age = timezone.now() - Event.objects.get().at
    assert timedelta(seconds=59) < age < timedelta(seconds=70)


def test_more_receipts_than_a_statement_takes(store):
    keys = [f"k{n}" for n in range(2 * CHUNK + 1)]
    one, two = store(*keys), store("k0")
    assert received(*((one, key) for key in keys)) == len(keys)
    assert owed() == [(two, "k0")]
    assert len(events()) == len(keys)


@pytest.mark.parametrize("key", ["'; DROP TABLE offline_pending; --", "%s", "ä\U0001f600", "\\"])
def test_any_key_is_data(store, key):
    one = store(key, "other")
    assert pending_ids(key) == [one]
    assert received((one, key)) == 1
    assert owed() == [(one, "other")]


# Dropping and expiring


def test_drop_oldest_keeps_the_newest(store):
    a = [store("a") for _ in range(5)]
    b = [store("b") for _ in range(2)]
    assert keys_over_limit(["a", "b", "c"], 3) == {"a": 5}
    assert drop_oldest("a", 3) == 2
    assert (pending_ids("a"), pending_ids("b")) == (a[2:], b)
    assert drop_oldest("a", 3) == 0
    assert events("kind", "reason") == [(i, "a", "dropped", "offline_max") for i in a[:2]]


def test_drop_oldest_keeps_the_message_for_others(store):
    one, two = store("a", "b"), store("a")
    assert drop_oldest("a", 1) == 1
    assert (pending_ids("a"), pending_ids("b")) == ([two], [one])


def test_drop_oldest_to_nothing(store):
    store("a")
    assert drop_oldest("a", 0) == 1
    assert owed() == []


def test_more_crowded_keys_than_a_statement_takes(store):
    keys = [f"k{n}" for n in range(CHUNK + 3)]
    store(*keys), store(*keys)
    assert keys_over_limit(keys, 1) == dict.fromkeys(keys, 2)
    assert keys_over_limit([], 1) == {}


def test_expire_settles_what_is_over(store):
    gone, kept = store("a", "b", ttl=-10), store("a")
    assert expire_batch() == 2
    assert owed() == [(kept, "a")]
    assert sorted(events("kind")) == [(gone, "a", "expired"), (gone, "b", "expired")]
    assert expire_batch() == 0


def test_expire_takes_one_batch_at_a_time(store, monkeypatch):
    monkeypatch.setattr("offline.settlement.SETTLE_BATCH", 2)
    oldest_last = [store("a", ttl=-10 * n) for n in range(1, 6)]
    assert expire_batch() == 2
    assert {i for i, _ in owed()} == set(oldest_last[:3])
    assert [expire_batch() for _ in range(3)] == [2, 1, 0]
