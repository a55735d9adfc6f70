"""Reading what is pending for keys, and what their sessions have had."""

import pytest
from django.utils import timezone

from offline.key_messages import read_history, read_missed, read_pending
from offline.models import RECEIVED, Message, Outbox, Pending
from offline.settlement import drop_oldest, record_receipts
from offline.values import Receipt

from .conftest import pending_ids, received

pytestmark = [pytest.mark.django_db, pytest.mark.any_database]


def test_a_page_has_the_first_messages_in_order_of_id(store):
    ids = [store("a") for _ in range(5)]
    assert pending_ids("a") == ids
    assert pending_ids("a", size=2) == ids[:2]
    assert pending_ids("a", after=ids[1], size=2) == ids[2:4]
    assert pending_ids("a", after=ids[-1]) == []


def test_pages_put_together_are_everything(store):
    ids = [store("a", "b") for _ in range(7)]
    got: list[int] = []
    while more := pending_ids("a", after=got[-1] if got else 0, size=3):
        got += more
    assert got == ids


def test_a_page_is_of_one_key_alone(store):
    mine, both, _ = store("a"), store("a", "b"), store("b")
    assert pending_ids("a") == [mine, both]
    assert pending_ids("A") == []
    assert pending_ids("a ") == []


def test_many_keys_are_one_query(store, django_assert_num_queries):
    ids = {key: [store(key) for _ in range(3)] for key in ("a", "b", "ä/'\"%s", "c")}
    wanted = [(key, 0) for key in [*ids, "nobody"]]
    with django_assert_num_queries(1):
        pages = read_pending(wanted, 2)
    got = {key: [message.id for message in found] for (key, _), found in pages.items()}
    assert got == {key: found[:2] for key, found in ids.items()} | {"nobody": []}


def test_one_key_may_be_asked_for_from_two_places(store):
    ids = [store("a") for _ in range(3)]
    pages = read_pending([("a", 0), ("a", ids[0])], 2)
    assert [m.id for m in pages["a", 0]] == ids[:2]
    assert [m.id for m in pages["a", ids[0]]] == ids[1:]


def test_no_keys_are_no_pages():
    assert read_pending([], 10) == {}


def test_as_many_keys_as_a_batch_has(store):
    ids = {f"k{n}": store(f"k{n}") for n in range(500)}
    pages = read_pending([(key, 0) for key in ids], 10)
    assert {key: found[0].id for (key, _), found in pages.items()} == ids


def test_what_has_expired_is_not_on_a_page(store):
    store("a", ttl=-1)
    alive = store("a")
    store("a", ttl=0)
    assert pending_ids("a") == [alive]


def test_a_page_full_of_expired_messages_does_not_hide_the_next(store):
    for _ in range(3):
        store("a", ttl=-1)
    alive = store("a")
    assert pending_ids("a", size=3) == [alive]


def test_unexpired_counts_what_a_key_would_get(store):
    store("a"), store("a"), store("b"), store("a", ttl=-1)
    assert Pending.objects.unexpired("a").count() == 2
    assert Pending.objects.unexpired("nobody").count() == 0


# History


def test_history_has_what_others_of_the_key_have_had(store):
    ids = [store("a", "b") for _ in range(4)]
    received((ids[1], "a"), (ids[2], "a"))
    found = read_history([("a", 0, ids[0]), ("b", 0, 1), ("b", ids[2], 0)], 10)
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
    drop_oldest("a", 1)
    found = read_history([("a", 0, 0)], 10)
    assert [message.id for message in found["a", 0, 0]] == ids[1:]


def test_missed_has_what_others_have_had_lately(store, settings):
    old, new, waiting = [store("a") for _ in range(3)]
    record_receipts([Receipt(old, "a", RECEIVED, "s", age=60.0)])
    received((new, "a"))
    found = read_missed([("a", 0)], 10, 30.0)
    assert [message.id for message in found["a", 0]] == [new, waiting]
    settings.IMGO = {"SWEEP_AFTER": 0.0}
    assert read_missed([("a", 0)], 10, 0.0)["a", 0] == []  # the fan-out brings it
    Outbox.objects.all().delete()
    for patience, expected in ((0.0, [waiting]), (60.0, [])):  # what is young may be on its way
        settings.IMGO = {"SWEEP_AFTER": patience}
        found = read_missed([("a", 0)], 10, 0.0)
        assert [message.id for message in found["a", 0]] == expected
