"""The schedule: what is stored until it is due, and what becomes of it then."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Event

import pytest
from django.utils import timezone

from offline import history, retention, schedule
from offline.models import DuePush, Message, Outbox, Pending, ScheduledPush
from offline.outbox_queue import Busy
from offline.partitions import partition_of
from offline.schedule import LOCK, store_due
from offline.sql import dialect
from offline.store import insert
from offline.values import NewMessage
from tests import PATIENCE, call_and_close

pytestmark = [pytest.mark.django_db, pytest.mark.any_database]


def put(*keys: str, seconds: float = 60.0, ttl: float = 600.0, **fields) -> int:
    """Schedule a push; return its id."""
    return insert([NewMessage(b"{}", ttl, keys=keys, send_in=seconds, **fields)]).ids[0]


def make_due(*ids: int, seconds: float = 1.0) -> None:
    """Let these be due so many seconds ago. SQLite's clock has milliseconds."""
    past = timezone.now() - timedelta(seconds=seconds)
    ScheduledPush.objects.filter(pk__in=ids).update(due_at=past)


def store() -> list[schedule.Due]:
    return store_due().due


def test_scheduled_push_has_no_message_pending_or_outbox_row():
    push_id = put("a", "b", by="shop", op=1000, origin="request")
    assert not Message.objects.exists()
    assert not Pending.objects.exists()
    assert not Outbox.objects.exists()
    row = ScheduledPush.objects.get(pk=push_id)
    assert (row.keys, row.by, row.op, row.origin, row.ttl) == (
        ["a", "b"],
        "shop",
        1000,
        "request",
        600,
    )
    assert row.due_at - row.created_at == timedelta(seconds=60)
    assert store() == []


@pytest.mark.parametrize("fields", [{"send_in": 0.0}, {"send_at": timezone.now()}])
def test_push_due_in_the_past_is_stored_at_once(fields):
    [message_id] = insert([NewMessage(b"{}", 60, keys=("a",), **fields)]).ids
    assert Pending.objects.get().message_id == message_id
    assert not ScheduledPush.objects.exists()


def test_messages_and_scheduled_pushes_of_one_call_have_ids_in_its_order():
    at = timezone.now() + timedelta(hours=1)
    new = [NewMessage(b"%d" % n, 60, keys=("a",)) for n in range(2)]
    new[1:1] = [NewMessage(b"late", 60, keys=("a",), send_at=at)]
    first, late, last = insert(new).ids
    assert bytes(Message.objects.get(pk=first).body) == b"0"
    assert bytes(Message.objects.get(pk=last).body) == b"1"
    scheduled = ScheduledPush.objects.get(pk=late)
    assert (bytes(scheduled.body), scheduled.due_at) == (b"late", at)
    [after] = insert([NewMessage(b"{}", 60)]).ids
    assert after > max(first, late, last)


def test_due_pushes_become_messages_in_the_order_in_which_they_are_due():
    one, two, three, later = put("a"), put("b", "c"), put("d"), put("e")
    make_due(one, seconds=5)
    make_due(two, three, seconds=10)
    assert schedule.is_due()
    due = store()
    assert [row.id for row in due] == [two, three, one]
    assert sorted(row.message_id for row in due) == [row.message_id for row in due]
    assert due[0].partitions == {partition_of("b", 4), partition_of("c", 4)}
    assert due[0].late == pytest.approx(10, abs=2)
    assert list(ScheduledPush.objects.values_list("pk", flat=True)) == [later]
    assert set(Pending.objects.values_list("key", flat=True)) == {"a", "b", "c", "d"}
    assert Outbox.objects.count() == 4
    assert store() == []
    assert not schedule.is_due()


def test_message_has_all_members_of_the_push_and_its_lifetime_counts_from_due():
    members = {"op": 1000, "is_json": False, "by": "shop", "ensure": True, "exclude": "s1"}
    push_id = put(audience="room", room="lobby", stored=False, origin="o", **members)
    make_due(push_id, seconds=100)
    [due] = store()
    message = Message.objects.get(pk=due.message_id)
    assert (message.audience, message.room, message.keys) == ("room", "lobby", None)
    assert (message.op, message.is_json, message.by, message.ensure) == (1000, False, "shop", True)
    left = message.expires_at - timezone.now()
    assert left.total_seconds() == pytest.approx(500, abs=5)
    assert (Outbox.objects.get().exclude, Outbox.objects.get().origin) == ("s1", "o")


def test_push_that_expired_before_it_could_be_stored_is_stored_as_expired():
    push_id = put("a", ttl=5)
    make_due(push_id, seconds=60)
    store()
    assert not Pending.objects.unexpired("a").exists()
    assert Pending.objects.filter(key="a").exists()


def test_store_due_raises_busy_while_another_process_stores():
    make_due(put("a"))
    is_locked, may_end = Event(), Event()

    def hold() -> bool:
        with dialect().partition_lock(LOCK, wait=False) as is_held:
            is_locked.set()
            may_end.wait(PATIENCE)
        return is_held

    with ThreadPoolExecutor(1) as thread:
        held = thread.submit(call_and_close, hold)
        assert is_locked.wait(PATIENCE)
        with pytest.raises(Busy):
            store()
        may_end.set()
        assert held.result()
    assert len(store()) == 1


def test_batch_has_a_limit_and_the_rest_comes_next(monkeypatch):
    monkeypatch.setattr(schedule, "BATCH", 2)
    make_due(*[put(f"k{n}") for n in range(3)])
    assert [len(store()) for _ in range(3)] == [2, 1, 0]


def test_history_finds_a_due_push_by_both_ids_until_its_record_is_pruned():
    push_id = put("a")
    assert history.find_scheduled(push_id).pk == push_id
    assert history.find(push_id) is None
    make_due(push_id)
    [due] = store()
    assert history.find_scheduled(push_id) is None
    assert history.find(push_id).pk == history.find(due.message_id).pk == due.message_id
    Message.objects.update(keep_until=timezone.now() - timedelta(seconds=1))
    assert retention.prune_batch() == 1
    assert history.find(push_id) is None
    assert not DuePush.objects.exists()
