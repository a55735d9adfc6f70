"""Collapse keys: which push is the last one, and what becomes of the others."""

from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone

from offline import conservation, replacement, schedule, streams
from offline.models import (
    CollapseKey,
    Event,
    Message,
    Outbox,
    Pending,
    ScheduledPush,
    Stream,
    StreamMessage,
)
from offline.outbox_queue import draining, read_page
from offline.values import NewMessage
from push.accept.transaction import store as store_all
from push.fanout import drain

from .conftest import events, owed

pytestmark = [pytest.mark.django_db, pytest.mark.any_database]


def new(*keys: str, name: str = "n", **fields) -> NewMessage:
    return NewMessage(b"{}", fields.pop("ttl", 600.0), keys=keys, collapse_key=name, **fields)


def to_room(room: str = "kept", **fields) -> NewMessage:
    members = {"audience": "room", "room": room, "collapse_key": "n", **fields}
    return NewMessage(b"{}", 600.0, **members)


def push(*messages: NewMessage) -> list[int]:
    """Accept these in one transaction; return their ids."""
    return store_all(messages).ids


def drops() -> list[tuple]:
    """(message id, key, reason) of every drop."""
    return [one[:2] + one[3:] for one in events("kind", "reason") if one[2] == Event.Kind.DROPPED]


def check_balance() -> None:
    assert conservation.balance_of_latest(0).missing == 0


def make_due(*ids: int) -> list[int]:
    """Let these be due now, and store them; return the ids of their messages."""
    past = timezone.now() - timedelta(seconds=1)
    ScheduledPush.objects.filter(pk__in=ids).update(due_at=past)
    return [due.message_id for due in schedule.store_due().due]


def test_newer_push_settles_the_older_one_of_its_key_and_collapse_key_only():
    [first] = push(new("a", "b"))
    [other] = push(new("a", name="other"))
    [last] = push(new("a"))
    assert drops() == [(first, "a", "replaced")]
    assert owed() == [(first, "b"), (other, "a"), (last, "a")]
    check_balance()


def test_last_push_of_a_batch_wins_and_stale_ones_are_recorded():
    one, two, three, four = push(
        new("a", version=5), new("a", version=7), new("a", version=6), new("a", version=7)
    )
    assert sorted(drops()) == [
        (one, "a", "replaced"),
        (two, "a", "replaced"),
        (three, "a", "stale"),
    ]
    assert owed() == [(four, "a")]
    push(new("a", version=6))
    assert owed() == [(four, "a")]
    [without] = push(new("a"))
    push(new("a", version=6))
    assert owed() == [(without, "a")]
    check_balance()


def test_expired_and_settled_deliveries_keep_their_end():
    [first] = push(new("a", ttl=-1.0))
    push(new("a"))
    assert drops() == []
    assert (first, "a") in owed()


def test_push_that_only_repeats_a_dedupe_id_replaces_nothing():
    message = new("a", dedupe_id="d")
    [first] = push(message)
    [second] = push(new("a"))
    assert push(message) == [first]
    assert owed() == [(second, "a")]


@pytest.mark.parametrize("fields", [{"send_in": 60.0}, {}])
def test_scheduled_push_replaces_and_is_replaced_when_a_push_is_accepted(fields):
    [pending] = push(new("a"))
    [scheduled] = push(new("a", send_in=60.0))
    assert drops() == [(pending, "a", "replaced")]
    [last] = push(new("a", **fields))
    assert drops()[1:] == [(scheduled, "a", "replaced")]
    assert Message.objects.get(pk=scheduled).drop_reason == "replaced"
    assert set(ScheduledPush.objects.values_list("pk", flat=True)) == ({last} if fields else set())
    check_balance()


def test_stale_push_that_names_a_time_is_not_scheduled():
    push(new("a", version=2))
    [stale] = push(new("a", version=1, send_in=60.0))
    assert not ScheduledPush.objects.exists()
    assert drops() == [(stale, "a", "stale")]
    check_balance()


def test_scheduled_push_is_sent_to_the_keys_for_which_it_is_the_last_one():
    [scheduled] = push(new("a", "b", send_in=60.0))
    [other] = push(new("a"))
    [message] = make_due(scheduled)
    assert drops() == [(message, "a", "replaced")]
    assert owed() == [(other, "a"), (message, "b")]
    [last] = push(new("b"))
    assert drops()[1:] == [(message, "b", "replaced")]
    assert owed() == [(other, "a"), (last, "b")]
    check_balance()


def test_scheduled_push_is_dropped_as_stale_for_keys_with_a_higher_version():
    [first] = push(new("a", version=2, send_in=60.0))
    [stale] = push(new("a", "b", "c", version=1, send_in=60.0))
    [last] = push(new("c"))
    first, stale = make_due(first, stale)
    assert sorted(drops()) == [(stale, "a", "stale"), (stale, "c", "replaced")]
    assert sorted(owed()) == sorted([(last, "c"), (first, "a"), (stale, "b")])
    check_balance()


def test_drain_marks_the_keys_for_which_a_message_was_replaced():
    [first] = push(new("a", "b"))
    push(new("a"))
    with draining(0, wait=False):
        rows = read_page(0, 0, 10)
        replacement.mark_replaced(rows)
    assert [(row.message_id == first, set(row.replaced_for)) for row in rows] == [
        (True, {"a"}),
        (False, set()),
    ]


def test_replaced_message_of_a_stream_gets_no_offset_or_leaves_a_tombstone(imgo):
    imgo(ROOMS={"kept": {"history": 10}}, PARTITIONS=1)
    first, second = push(to_room())[0], push(to_room())[0]
    drain(0)
    assert list(StreamMessage.objects.values_list("message_id", "offset")) == [(second, 1)]
    assert Message.objects.get(pk=first).drop_reason == "replaced"
    [third] = push(to_room())
    drain(0)
    kept = StreamMessage.objects.order_by("offset")
    assert [(row.message_id, bytes(row.body)) for row in kept] == [(second, b""), (third, b"{}")]
    assert Stream.objects.get().size == 2
    page = streams.StreamPage("kept", 0, 10)
    assert [one.offset for one in streams.read_pages([page])[page]] == [1, 2]
    history = streams.read_history("kept", limit=10, newest=False)
    assert [one.id for one in history] == [third]


def test_replaced_push_to_a_room_without_history_is_not_sent(imgo):
    imgo(PARTITIONS=1)
    first, second = push(to_room("r", stored=False))[0], push(to_room("r", stored=False))[0]
    assert drain(0) == 1
    assert not Outbox.objects.exists()
    assert Message.objects.get(pk=first).drop_reason == "replaced"
    push(to_room("r", stored=False))
    assert Message.objects.get(pk=second).drop_reason == ""  # it was sent


def test_push_without_a_collapse_key_executes_no_further_statement(django_assert_num_queries):
    push(NewMessage(b"{}", 60, keys=("a",)))
    with transaction.atomic():
        count = 1 if connection.vendor == "postgresql" else 5
        with django_assert_num_queries(count):
            if count == 1:
                push(NewMessage(b"{}", 60, keys=("a",)))
            else:
                replacement.apply([NewMessage(b"{}", 60)], store_all([NewMessage(b"{}", 60)]))


def test_rows_are_forgotten_when_their_last_push_cannot_wait_any_more():
    push(new("a"))
    assert replacement.prune_batch() == 0
    CollapseKey.objects.update(keep_until=timezone.now() - timedelta(seconds=1))
    [last] = push(new("a"))
    assert CollapseKey.objects.get().push_id == last
    assert replacement.prune_batch() == 0
    CollapseKey.objects.update(keep_until=timezone.now() - timedelta(seconds=1))
    assert replacement.prune_batch() == 1
    assert Pending.objects.filter(message=last).exists()
