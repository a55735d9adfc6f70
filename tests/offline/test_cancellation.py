"""Cancelled pushes: what is settled, what came too late, and who may."""

import pytest

from imgo_site.errors import Forbidden
from offline import conservation, history, outbox_queue
from offline.cancellation import cancel
from offline.models import Event, Message, Outbox, Pending, ScheduledPush
from offline.partitions import hashes_of
from offline.store import insert
from offline.values import NewMessage

from .conftest import events, owed, received

pytestmark = [pytest.mark.django_db, pytest.mark.any_database]


def put(*keys: str, **fields) -> int:
    hashes = hashes_of(keys or [fields.get("room", "")])
    return insert([NewMessage(b"{}", 600, keys=keys, hashes=hashes, **fields)]).ids[0]


def check_balance(accepted: int, pending: int, **settled: int) -> None:
    total = conservation.balance_of_latest(0)
    assert (total.accepted, total.pending, total.missing) == (accepted, pending, 0)
    assert {name.replace(":", "_"): n for name, n in total.settled.items()} == settled
    assert conservation.unbalanced(0, 10**12) == []


def test_scheduled_push_becomes_a_cancelled_message_with_its_id():
    push_id = put("a", "b", send_in=60.0, by="shop")
    done = cancel(push_id, "shop")
    assert (done.message.pk, done.keys, done.stopped) == (push_id, 2, True)
    assert not ScheduledPush.objects.exists()
    assert not Pending.objects.exists()
    assert not Outbox.objects.exists()
    assert events("kind", "reason") == [(push_id, key, "dropped", "cancelled") for key in "ab"]
    check_balance(2, 0, dropped_cancelled=2)
    record = history.as_dict(history.find(push_id), slice(0, 9))
    assert (record["totals"]["dropped"], record["fan_out"]) == (2, {"state": "done"})
    again = cancel(push_id)
    assert (again.keys, again.retracted) == (2, set())  # nobody was sent it


def test_scheduled_push_to_a_room_is_cancelled_without_events():
    push_id = put(audience="room", room="r", stored=False, send_in=60.0)
    assert cancel(push_id).stopped
    assert history.find(push_id).cancelled_at is not None
    assert not Event.objects.exists()


def test_pending_push_is_settled_except_for_keys_that_have_it():
    message_id, other = put("a", "b", "c"), put("a")
    outbox_queue.delete_rows(list(Outbox.objects.all()))
    received((message_id, "b"))
    done = cancel(message_id)
    assert (done.keys, done.new_keys, done.stopped) == (2, 2, False)
    assert owed() == [(other, "a")]
    check_balance(4, 1, received=1, dropped_cancelled=2)
    again = cancel(message_id)
    assert (again.keys, again.new_keys) == (2, 0)


def test_push_that_is_not_fanned_out_leaves_the_outbox():
    stored, live = put("a", "b"), put("a", stored=False)
    assert cancel(stored).stopped
    assert cancel(live).stopped
    assert not Outbox.objects.exists()
    assert Message.objects.exclude(cancelled_at=None).count() == 2


def test_expired_rows_stay_for_those_who_settle_them():
    message_id = insert([NewMessage(b"{}", -1, keys=("a",))]).ids[0]
    assert cancel(message_id).keys == 0
    assert owed() == [(message_id, "a")]


@pytest.mark.parametrize("fields", [{"send_in": 60.0}, {}])
def test_push_of_another_caller_is_not_cancelled(fields):
    push_id = put("a", by="shop", **fields)
    with pytest.raises(Forbidden, match="the scope 'admin'"):
        cancel(push_id, "other")
    assert not Event.objects.exists()
    assert cancel(push_id, "shop").keys == 1


def test_push_without_a_record_is_not_found():
    assert cancel(7) is None
