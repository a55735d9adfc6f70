"""Retention: how long messages and their records are kept."""

from datetime import timedelta

import pytest
from django.utils import timezone

from offline.models import Event, Message, Outbox
from offline.retention import prune_batch

from .conftest import events, received

pytestmark = [pytest.mark.django_db, pytest.mark.any_database]


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
    assert prune_batch() == 1
    assert list(Message.objects.values_list("pk", flat=True)) == [kept]
    assert {i for i, *_ in events()} == {kept}
    assert set(Outbox.objects.values_list("message", flat=True)) == {kept}
    assert prune_batch() == 0


def test_prune_takes_one_batch_at_a_time(store, monkeypatch):
    monkeypatch.setattr("offline.retention.PRUNE_BATCH", 2)
    monkeypatch.setattr("offline.retention.EVENT_BATCH", 1)
    ids = [store("a", "b") for _ in range(3)]
    received(*((i, key) for i in ids for key in "ab"))
    forget_after(-1, *ids)
    assert [prune_batch() for _ in range(3)] == [2, 1, 0]
    assert events() == []


def test_prune_keeps_messages_whose_events_were_not_read(store):
    ids = [store("a") for _ in range(2)]
    for number in ids:
        received((number, "a"))
    forget_after(-1, *ids)
    first, second = Event.objects.order_by("pk").values_list("pk", flat=True)
    assert prune_batch(first - 1) == 0
    assert prune_batch(first) == 1
    assert list(Event.objects.values_list("pk", flat=True)) == [second]
    assert prune_batch(second) == 1
    assert not Event.objects.exists()
    assert not Message.objects.exists()
