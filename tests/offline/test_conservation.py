"""The balance: whatever becomes of a message, nothing is missing; and what is missing shows."""

from datetime import timedelta

import pytest
from django.utils import timezone

from offline import conservation
from offline.conservation import Balance
from offline.models import ACKNOWLEDGED, RECEIVED, SENT, Event, Message, Pending
from offline.retention import prune_batch
from offline.settlement import drop_oldest, expire_batch, record_ends, record_receipts
from offline.values import Receipt

pytestmark = [pytest.mark.django_db, pytest.mark.any_database]


def strike() -> Balance:
    """The balance of everything, which says the same as the look at each message."""
    found = conservation.balance_of_latest(0)
    wrong = conservation.unbalanced(*conservation.bounds())
    assert sum(accepted - accounted for _, accepted, accounted in wrong) == found.missing
    return found


def record(kind: str, *pairs: tuple[int, str]) -> None:
    record_receipts([Receipt(i, key, kind, "s1") for i, key in pairs])


def end_time_of(*ids: int) -> None:
    """Their records need not be kept any more."""
    past = timezone.now() - timedelta(seconds=60)  # before the test's transaction began
    Message.objects.filter(pk__in=ids).update(keep_until=past)


def test_without_messages_everything_is_nothing():
    assert conservation.bounds() == (0, 0)
    assert strike() == Balance()


def test_what_was_stored_is_pending(store):
    store("a", "b"), store("a")
    found = strike()
    assert (found.messages, found.accepted, found.pending, found.missing) == (2, 3, 3, 0)


def test_nothing_is_missing_on_the_way_through_a_messages_life(store, monkeypatch):
    dropped, gone = store("k"), store("x", "y", ttl=-5)
    one, two, kept = store("a", "b"), store("a"), store("k")
    assert strike().missing == 0

    record(SENT, (one, "a"))
    assert strike().as_dict()["settled"] == {}
    record(RECEIVED, (one, "a"), (one, "a"))
    record(ACKNOWLEDGED, (two, "a"), (two, "a"), (one, "a"))
    assert strike().as_dict()["settled"] == {"acknowledged": 1, "received": 1}

    assert drop_oldest("k", 1) == 1
    monkeypatch.setattr("offline.settlement.SETTLE_BATCH", 1)
    assert expire_batch() == 1  # of two
    assert strike().missing == 0
    assert expire_batch() == 1
    assert strike().as_dict() == {
        "messages": 5,
        "accepted": 7,
        "pending": 2,
        "settled": {"acknowledged": 1, "dropped:offline_max": 1, "expired": 2, "received": 1},
        "missing": 0,
    }

    end_time_of(one, dropped, gone)
    assert strike().accepted == 2  # before they are deleted
    assert prune_batch() == 3
    found = strike()
    assert (found.messages, found.accepted, found.pending, found.missing) == (2, 2, 1, 0)
    assert list(Pending.objects.values_list("message_id", flat=True)) == [kept]


def test_events_that_are_deleted_before_their_message_are_not_missing(store):
    one = store("a")
    record(RECEIVED, (one, "a"))
    end_time_of(one)
    Event.objects.all().delete()  # as far as `prune` may have come
    assert strike() == Balance()


def test_live_messages_are_not_counted(store):
    store("a", stored=False)
    assert strike() == Balance()


def test_a_pending_row_that_was_deleted_is_missing(store):
    store("a"), store("b")
    one = store("a", "b")
    Pending.objects.filter(message=one, key="a").delete()
    found = conservation.balance_of_latest(0)
    assert (found.accepted, found.pending, found.missing) == (4, 3, 1)
    assert found.as_dict()["missing"] == 1
    assert conservation.unbalanced(*conservation.bounds()) == [(one, 2, 1)]


def test_what_was_settled_twice_is_missing_the_other_way(store):
    one = store("a", "b")
    record_ends([(one, "a", "")], Event.Kind.DROPPED, "by hand")
    assert conservation.balance_of_latest(0).missing == -1
    assert conservation.unbalanced(*conservation.bounds()) == [(one, 2, 3)]


def test_one_too_few_and_one_too_many_do_not_hide_each_other(store):
    few, many = store("a"), store("a")
    Pending.objects.filter(message=few).delete()
    record_ends([(many, "a", "")], Event.Kind.EXPIRED)
    assert strike().missing == 0
    assert conservation.unbalanced(*conservation.bounds()) == [(few, 1, 0), (many, 1, 2)]


def test_the_latest_are_counted_alone(store):
    ids = [store("a") for _ in range(5)]
    assert conservation.bounds(2) == (ids[2], ids[-1])
    assert conservation.balance_of_latest(2).accepted == 2
    assert conservation.bounds(100) == (ids[0] - 1, ids[-1])
    assert conservation.balance_of_latest(100).accepted == 5


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_slices_put_together_are_everything(store, monkeypatch, size):
    for _ in range(5):
        store("a", "b")
    expire_batch()
    whole = conservation.balance_of_slice(*conservation.bounds())
    monkeypatch.setattr(conservation, "SLICE", size)
    assert conservation.balance_of_latest(0) == whole
    assert whole.accepted == 10
