"""Messages and pending rows: stored, paged, acknowledged, trimmed, expired."""

import json
from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from offline import messages
from offline.events import ACKNOWLEDGED, RECEIVED, SENT, Event, Receipt
from offline.models import Message, NewMessage, Outbox, Pending, PendingMessage

from .conftest import owed

pytestmark = [pytest.mark.django_db, pytest.mark.any_database]


def page(key: str, after: int = 0, size: int = 100) -> list[int]:
    """The ids of a page for one key."""
    return [message.id for message in Pending.objects.page([(key, after)], size)[key, after]]


# Storing


def test_ids_have_the_order_of_the_messages(store):
    new = [NewMessage(b"%d" % n, 60, "all", stored=False) for n in range(1000)]
    ids = Message.objects.store(new)
    assert ids == sorted(ids)
    assert len(set(ids)) == 1000
    bodies = Message.objects.order_by("pk").values_list("body", flat=True)
    assert [bytes(body) for body in bodies] == [b"%d" % n for n in range(1000)]
    assert store("a") > ids[-1]


def test_each_message_is_pending_for_its_own_keys():
    new = [NewMessage(b"1", 60, keys=keys) for keys in (("a", "b"), (), ("b",))]
    one, two, three = Message.objects.store(new)
    assert owed() == [(one, "a"), (one, "b"), (three, "b")]
    counts = Message.objects.order_by("pk").values_list("pk", "recipients")
    assert list(counts) == [(one, 2), (two, 0), (three, 1)]


def test_what_is_not_to_be_stored_is_pending_for_nobody(store):
    one = store("a", stored=False)
    assert owed() == []
    assert Message.objects.get(pk=one).keys == ["a"]


def test_more_keys_than_a_statement_takes(store):
    keys = [f"k{n}" for n in range(2 * messages.CHUNK + 7)]
    message = store(*keys)
    assert owed() == sorted((message, key) for key in keys)


def test_no_messages_are_stored_as_nothing():
    assert Message.objects.store([]) == []


def test_a_message_cannot_be_pending_twice_for_a_key(store):
    message = store("a")
    with pytest.raises(IntegrityError), transaction.atomic():
        Pending.objects.create(message_id=message, key="a", expires_at=timezone.now())


@pytest.mark.parametrize("body", [b"\0\xff", b"", bytes(range(256)), '{"ä":1}'.encode()])
def test_a_body_is_kept_byte_for_byte(store, body):
    message = store("a", body=body, is_json=False, op=1001)
    assert Pending.objects.page([("a", 0)], 1) == {
        ("a", 0): [PendingMessage(message, 1001, body, is_json=False)]
    }


@pytest.mark.parametrize("keys", [None, [], ["a", 'b"', "ä"]])
def test_the_keys_of_a_live_message_are_kept(keys):
    limit = timezone.now() + timedelta(hours=1)
    times = {"expires_at": limit, "keep_until": limit}
    row = Message.objects.create(audience="keys", keys=keys, body=b"1", **times)
    row.refresh_from_db()
    assert row.keys == keys
    assert json.dumps(row.keys) == json.dumps(keys)


# Paging


def test_a_page_has_the_first_messages_in_order_of_id(store):
    ids = [store("a") for _ in range(5)]
    assert page("a") == ids
    assert page("a", size=2) == ids[:2]
    assert page("a", after=ids[1], size=2) == ids[2:4]
    assert page("a", after=ids[-1]) == []


def test_pages_put_together_are_everything(store):
    ids = [store("a", "b") for _ in range(7)]
    got: list[int] = []
    while more := page("a", after=got[-1] if got else 0, size=3):
        got += more
    assert got == ids


def test_a_page_is_of_one_key_alone(store):
    mine, both, _ = store("a"), store("a", "b"), store("b")
    assert page("a") == [mine, both]
    assert page("A") == []
    assert page("a ") == []


def test_many_keys_are_one_query(store, django_assert_num_queries):
    ids = {key: [store(key) for _ in range(3)] for key in ("a", "b", "ä/'\"%s", "c")}
    wanted = [(key, 0) for key in [*ids, "nobody"]]
    with django_assert_num_queries(1):
        pages = Pending.objects.page(wanted, 2)
    got = {key: [message.id for message in found] for (key, _), found in pages.items()}
    assert got == {key: found[:2] for key, found in ids.items()} | {"nobody": []}


def test_one_key_may_be_asked_for_from_two_places(store):
    ids = [store("a") for _ in range(3)]
    pages = Pending.objects.page([("a", 0), ("a", ids[0])], 2)
    assert [m.id for m in pages["a", 0]] == ids[:2]
    assert [m.id for m in pages["a", ids[0]]] == ids[1:]


def test_no_keys_are_no_pages():
    assert Pending.objects.page([], 10) == {}


def test_as_many_keys_as_a_batch_has(store):
    ids = {f"k{n}": store(f"k{n}") for n in range(500)}
    pages = Pending.objects.page([(key, 0) for key in ids], 10)
    assert {key: found[0].id for (key, _), found in pages.items()} == ids


def test_what_has_expired_is_not_on_a_page(store):
    store("a", ttl=-1)
    alive = store("a")
    store("a", ttl=0)
    assert page("a") == [alive]


def test_a_page_full_of_expired_messages_does_not_hide_the_next(store):
    for _ in range(3):
        store("a", ttl=-1)
    alive = store("a")
    assert page("a", size=3) == [alive]


def test_unexpired_counts_what_a_key_would_get(store):
    store("a"), store("a"), store("b"), store("a", ttl=-1)
    assert Pending.objects.unexpired("a").count() == 2
    assert Pending.objects.unexpired("nobody").count() == 0


# Records


def events(*fields: str) -> list[tuple]:
    """The events in the order they were written."""
    return list(Event.objects.order_by("pk").values_list("message_id", "key", *fields))


def received(*pairs: tuple[int, str], session: str = "s1") -> int:
    """The kernel took these for a session."""
    return Event.objects.record([Receipt(i, key, RECEIVED, session) for i, key in pairs])


def test_what_was_received_is_not_pending(store):
    one, two = store("a", "b"), store("a")
    assert received((one, "a")) == 1
    assert owed() == sorted([(one, "b"), (two, "a")])
    assert events("kind", "session") == [(one, "a", "received", "s1")]


def test_a_message_is_settled_once(store):
    one = store("a")
    assert received((one, "a")) == 1
    assert received((one, "a"), session="s2") == 0
    assert Event.objects.record([Receipt(one, "a", ACKNOWLEDGED, "s3")]) == 0
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
    assert Event.objects.record(receipts) == 1
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
    assert Event.objects.record(nothing) == 0
    assert Event.objects.record([]) == 0
    assert (owed(), events()) == ([(one, "a")], [])


def test_an_event_has_the_time_that_it_happened(store):
    one = store("a")
    Event.objects.record([Receipt(one, "a", RECEIVED, "s", age=60.0)])
    age = timezone.now() - Event.objects.get().at
    assert timedelta(seconds=59) < age < timedelta(seconds=70)


def test_more_receipts_than_a_statement_takes(store):
    keys = [f"k{n}" for n in range(2 * messages.CHUNK + 1)]
    one, two = store(*keys), store("k0")
    assert received(*((one, key) for key in keys)) == len(keys)
    assert owed() == [(two, "k0")]
    assert len(events()) == len(keys)


@pytest.mark.parametrize("key", ["'; DROP TABLE offline_pending; --", "%s", "ä\U0001f600", "\\"])
def test_any_key_is_data(store, key):
    one = store(key, "other")
    assert page(key) == [one]
    assert received((one, key)) == 1
    assert owed() == [(one, "other")]


# History


def test_history_has_what_others_of_the_key_have_had(store):
    ids = [store("a", "b") for _ in range(4)]
    received((ids[1], "a"), (ids[2], "a"))
    found = Pending.objects.history([("a", 0, ids[0]), ("b", 0, 1), ("b", ids[2], 0)], 10)
    got = {ask: [message.id for message in some] for ask, some in found.items()}
    assert got == {
        ("a", 0, ids[0]): ids[1:],
        ("b", 0, 1): ids[1:] if ids[0] == 1 else ids,
        ("b", ids[2], 0): ids[3:],
    }


def test_history_leaves_out_what_has_expired_or_was_dropped(store):
    old, *ids = [store("a") for _ in range(3)]
    received((old, "a"))
    Message.objects.filter(pk=old).update(expires_at=timezone.now())
    Pending.objects.trim("a", 1)
    found = Pending.objects.history([("a", 0, 0)], 10)
    assert [message.id for message in found["a", 0, 0]] == ids[1:]


def test_missed_has_what_others_have_had_lately(store, settings):
    old, new, waiting = [store("a") for _ in range(3)]
    Event.objects.record([Receipt(old, "a", RECEIVED, "s", age=60.0)])
    received((new, "a"))
    found = Pending.objects.missed([("a", 0)], 10, 30.0)
    assert [message.id for message in found["a", 0]] == [new, waiting]
    settings.IMGO = {"SWEEP_AFTER": 0.0}
    assert Pending.objects.missed([("a", 0)], 10, 0.0)["a", 0] == []  # the fan-out brings it
    Outbox.objects.all().delete()
    for patience, expected in ((0.0, [waiting]), (60.0, [])):  # what is young may be on its way
        settings.IMGO = {"SWEEP_AFTER": patience}
        found = Pending.objects.missed([("a", 0)], 10, 0.0)
        assert [message.id for message in found["a", 0]] == expected


# Bounding


def test_trim_drops_the_oldest(store):
    a = [store("a") for _ in range(5)]
    b = [store("b") for _ in range(2)]
    assert Pending.objects.crowded(["a", "b", "c"], 3) == {"a": 5}
    assert Pending.objects.trim("a", 3) == 2
    assert (page("a"), page("b")) == (a[2:], b)
    assert Pending.objects.trim("a", 3) == 0
    assert events("kind", "reason") == [(i, "a", "dropped", "offline_max") for i in a[:2]]


def test_trim_keeps_the_message_for_others(store):
    one, two = store("a", "b"), store("a")
    assert Pending.objects.trim("a", 1) == 1
    assert (page("a"), page("b")) == ([two], [one])


def test_trim_to_nothing(store):
    store("a")
    assert Pending.objects.trim("a", 0) == 1
    assert owed() == []


def test_more_crowded_keys_than_a_statement_takes(store):
    keys = [f"k{n}" for n in range(messages.CHUNK + 3)]
    store(*keys), store(*keys)
    assert Pending.objects.crowded(keys, 1) == dict.fromkeys(keys, 2)
    assert Pending.objects.crowded([], 1) == {}


def test_expire_settles_what_is_over(store):
    gone, kept = store("a", "b", ttl=-10), store("a")
    assert Pending.objects.expire() == 2
    assert owed() == [(kept, "a")]
    assert sorted(events("kind")) == [(gone, "a", "expired"), (gone, "b", "expired")]
    assert Pending.objects.expire() == 0


def test_expire_takes_one_batch_at_a_time(store, monkeypatch):
    monkeypatch.setattr("offline.pendings.EXPIRE_BATCH", 2)
    oldest_last = [store("a", ttl=-10 * n) for n in range(1, 6)]
    assert Pending.objects.expire() == 2
    assert {i for i, _ in owed()} == set(oldest_last[:3])
    assert [Pending.objects.expire() for _ in range(3)] == [2, 1, 0]


# Forgetting


def forget_after(seconds: float, *ids: int) -> None:
    """Have the time of these messages end so many seconds from now."""
    end = timezone.now() + timedelta(seconds=seconds)
    Message.objects.filter(pk__in=ids).update(keep_until=end)


def test_a_message_is_kept_for_its_lifetime_and_as_long_as_its_record(store, settings):
    settings.IMGO = {"RECORD_KEEP": 600}
    short, long = store("a", ttl=60), store("a", ttl=3600)
    for message, seconds in ((short, 600), (long, 3600)):
        row = Message.objects.get(pk=message)
        assert (row.keep_until - row.created_at).total_seconds() == pytest.approx(seconds, abs=1)


def test_prune_forgets_messages_with_everything_about_them(store):
    over, kept = store("a", "b"), store("a")
    received((over, "a"), (kept, "a"))
    forget_after(-1, over)
    assert Message.objects.prune() == 1
    assert list(Message.objects.values_list("pk", flat=True)) == [kept]
    assert {i for i, *_ in events()} == {kept}
    assert set(Outbox.objects.values_list("message", flat=True)) == {kept}
    assert Message.objects.prune() == 0


def test_prune_takes_one_batch_at_a_time(store, monkeypatch):
    monkeypatch.setattr(messages, "PRUNE_BATCH", 2)
    monkeypatch.setattr(messages, "EVENT_BATCH", 1)
    ids = [store("a", "b") for _ in range(3)]
    received(*((i, key) for i in ids for key in "ab"))
    forget_after(-1, *ids)
    assert [Message.objects.prune() for _ in range(3)] == [2, 1, 0]
    assert events() == []
