"""Messages and pending rows: stored, paged, acknowledged, trimmed, expired."""

import json
from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from offline import models
from offline.models import Message, Pending, PendingMessage

from .conftest import owed

pytestmark = [pytest.mark.django_db, pytest.mark.any_database]


def page(key: str, after: int = 0, size: int = 100) -> list[int]:
    """The ids of a page for one key."""
    return [message.id for message in Pending.objects.page([(key, after)], size)[key, after]]


# Storing


def test_ids_have_the_order_of_the_messages(store):
    limit = timezone.now() + timedelta(hours=1)
    messages = [Message(audience="all", body=b"%d" % n, expires_at=limit) for n in range(1000)]
    ids = Message.objects.store(messages, [()] * 1000)
    assert ids == sorted(ids)
    assert len(set(ids)) == 1000
    bodies = Message.objects.order_by("pk").values_list("body", flat=True)
    assert [bytes(body) for body in bodies] == [b"%d" % n for n in range(1000)]
    assert store("a") > ids[-1]


def test_each_message_is_pending_for_its_own_keys():
    limit = timezone.now() + timedelta(hours=1)
    messages = [Message(audience="keys", body=b"1", expires_at=limit) for _ in range(3)]
    one, two, three = Message.objects.store(messages, [["a", "b"], (), {"b"}])
    assert owed() == [(one, "a"), (one, "b"), (three, "b")]
    assert Pending.objects.keys_of([one, two, three]) == {one: ["a", "b"], three: ["b"]}
    assert Pending.objects.keys_of([]) == {}


def test_more_keys_than_a_statement_takes(store):
    keys = [f"k{n}" for n in range(2 * models.CHUNK + 7)]
    message = store(*keys)
    (found,) = Pending.objects.keys_of([message]).values()
    assert sorted(found) == sorted(keys)


def test_no_messages_are_stored_as_nothing():
    assert Message.objects.store([], []) == []


def test_a_message_cannot_be_pending_twice_for_a_key(store):
    message = store("a")
    with pytest.raises(IntegrityError), transaction.atomic():
        Pending.objects.create(message_id=message, key="a")


@pytest.mark.parametrize("body", [b"\0\xff", b"", bytes(range(256)), '{"ä":1}'.encode()])
def test_a_body_is_kept_byte_for_byte(store, body):
    message = store("a", body=body, is_json=False, op=1001)
    assert Pending.objects.page([("a", 0)], 1) == {
        ("a", 0): [PendingMessage(message, 1001, body, is_json=False)]
    }


@pytest.mark.parametrize("keys", [None, [], ["a", 'b"', "ä"]])
def test_the_keys_of_a_live_message_are_kept(keys):
    limit = timezone.now() + timedelta(hours=1)
    row = Message.objects.create(audience="keys", keys=keys, body=b"1", expires_at=limit)
    row.refresh_from_db()
    assert row.keys == keys
    assert json.dumps(row.keys) == json.dumps(keys)


def test_live_messages_are_those_that_have_not_expired(store):
    first, gone, last = store("a"), store("a", ttl=-1), store("b")
    assert [m.pk for m in Message.objects.live([last, gone, first, 10**12])] == [first, last]


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


# Acknowledging


def test_an_acknowledged_message_is_not_pending(store):
    one, two = store("a", "b"), store("a")
    assert Pending.objects.acknowledge([(one, "a")]) == 1
    assert owed() == sorted([(one, "b"), (two, "a")])


def test_acknowledging_again_or_what_never_was_is_no_mistake(store):
    one = store("a")
    assert Pending.objects.acknowledge([(one, "a"), (one, "b"), (10**15, "a")]) == 1
    assert Pending.objects.acknowledge([(one, "a")]) == 0
    assert Pending.objects.acknowledge([]) == 0


def test_more_acknowledgements_than_a_statement_takes(store):
    keys = [f"k{n}" for n in range(2 * models.CHUNK + 1)]
    one, two = store(*keys), store("k0")
    assert Pending.objects.acknowledge([(one, key) for key in keys]) == len(keys)
    assert owed() == [(two, "k0")]


@pytest.mark.parametrize("key", ["'; DROP TABLE offline_pending; --", "%s", "ä\U0001f600", "\\"])
def test_any_key_is_data(store, key):
    one = store(key, "other")
    assert page(key) == [one]
    assert Pending.objects.acknowledge([(one, key)]) == 1
    assert owed() == [(one, "other")]


# Bounding


def test_trim_drops_the_oldest_of_the_crowded_keys(store):
    a = [store("a") for _ in range(5)]
    b = [store("b") for _ in range(2)]
    c = [store("c") for _ in range(4)]
    assert Pending.objects.trim(["a", "b"], 3) == 2
    assert (page("a"), page("b"), page("c")) == (a[2:], b, c)
    assert Pending.objects.trim(["a", "b"], 3) == 0


def test_trim_keeps_the_message_for_others(store):
    one, two = store("a", "b"), store("a")
    assert Pending.objects.trim(["a", "b"], 1) == 1
    assert (page("a"), page("b")) == ([two], [one])


def test_trim_to_nothing(store):
    store("a")
    assert Pending.objects.trim(["a"], 0) == 1
    assert owed() == []


def test_trim_of_nobody():
    assert Pending.objects.trim([], 3) == 0


def test_trim_of_more_keys_than_a_statement_takes(store):
    keys = [f"k{n}" for n in range(models.CHUNK + 3)]
    store(*keys)
    newest = store(*keys)
    assert Pending.objects.trim(keys, 1) == len(keys)
    assert owed() == [(newest, key) for key in sorted(keys)]


def test_expire_deletes_messages_and_what_was_pending(store):
    store("a", "b", ttl=-10)
    kept = store("a")
    assert Message.objects.expire(timedelta(0)) == 1
    assert owed() == [(kept, "a")]
    assert Message.objects.expire(timedelta(0)) == 0


def test_expire_can_keep_messages_for_a_while(store):
    store("a", ttl=-100)
    young = store("a", ttl=-10)
    assert Message.objects.expire(timedelta(seconds=60)) == 1
    assert Message.objects.get().pk == young


def test_expire_takes_one_batch_at_a_time(store, monkeypatch):
    monkeypatch.setattr(models, "EXPIRE_BATCH", 2)
    oldest_last = [store("a", ttl=-10 * n) for n in range(1, 6)]
    assert Message.objects.expire(timedelta(0)) == 2
    assert set(Message.objects.values_list("pk", flat=True)) == set(oldest_last[:3])
    assert [Message.objects.expire(timedelta(0)) for _ in range(3)] == [2, 1, 0]
