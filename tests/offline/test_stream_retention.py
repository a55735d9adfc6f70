"""Retention of streams: which messages and streams are deleted."""

from datetime import timedelta

import pytest
from django.utils import timezone

from offline import stream_retention
from offline.models import Outbox, Stream, StreamMessage
from tests.offline.test_streams import assign, offsets, state

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.any_database]


@pytest.fixture(autouse=True)
def _policies(imgo):
    imgo(ROOMS={"chat-*": {"history": 5, "history_ttl": 60}})


def test_an_emptied_stream_keeps_its_position():
    assign("chat-1", 3)
    before = state("chat-1")
    assert stream_retention.empty("chat-1") == 3
    assert (state("chat-1").epoch, state("chat-1").top) == (before.epoch, 3)
    assert state("chat-1").first == 4
    assert Stream.objects.get(room="chat-1").size == 0
    assign("chat-1")
    assert offsets("chat-1") == [4]


def test_pruning_deletes_what_is_outside_of_the_window(imgo):
    assign("chat-1", 3, age=61), assign("chat-1", body=b"12345"), assign("chat-2")
    assert stream_retention.prune() == 0
    assert set(StreamMessage.objects.values_list("offset", flat=True)) == {4, 1}
    assert Stream.objects.get(room="chat-1").size == 5


def test_pruning_goes_through_all_streams(monkeypatch):
    monkeypatch.setattr(stream_retention, "PRUNED_TOGETHER", 2)
    for n in range(5):
        assign(f"chat-{n}", age=61)
    last = stream_retention.prune()
    while last:
        last = stream_retention.prune(last)
    assert not StreamMessage.objects.exists()


def test_an_unused_stream_is_forgotten_after_a_week():
    assign("chat-1", age=61), assign("chat-2")
    Stream.objects.update(used_at=timezone.now() - timedelta(days=8))
    stream_retention.prune()
    assert list(Stream.objects.values_list("room", flat=True)) == ["chat-2"]


def test_above_the_limit_the_oldest_messages_go(monkeypatch):
    monkeypatch.setattr(stream_retention, "PRUNED_TOGETHER", 2)
    assign("chat-1", 2, body=b"1" * 100), assign("chat-2", 2, body=b"1" * 100)
    assert stream_retention.prune_to_size(400) == 0
    assert stream_retention.prune_to_size(100) == 2
    assert (offsets("chat-1"), offsets("chat-2")) == ([], [1, 2])
    assert stream_retention.prune_to_size(100) == 1
    assert (stream_retention.total_size(), stream_retention.prune_to_size(100)) == (100, 0)


def test_pruning_to_a_size_deletes_only_what_is_needed():
    for body in (b"1" * 50, b"1" * 70, b"1" * 100):
        assign("chat-1", body=body), assign("chat-2", body=body)
    assert stream_retention.prune_to_size(300) == 3
    assert (offsets("chat-1"), offsets("chat-2")) == ([3], [2, 3])
    assert stream_retention.total_size() == 270


def test_pruning_to_a_size_passes_over_messages_that_wait_in_the_outbox():
    (waiting,) = assign("chat-1", body=b"1" * 100)
    assign("chat-2", 2, body=b"1" * 100)
    Outbox.objects.create(message=waiting, partition=0, partitions=1)
    assert stream_retention.prune_to_size(200) == 1
    assert (offsets("chat-1"), offsets("chat-2")) == ([1], [2])
