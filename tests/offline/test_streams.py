"""Streams: offsets, positions, what is read of them, and what is forgotten."""

from datetime import timedelta

import pytest
from django.db.models import F
from django.utils import timezone

from offline import stream_epochs, stream_retention, streams
from offline.models import Message, NextEpoch, Stream, StreamMessage
from offline.streams import StreamPage

any_database = pytest.mark.any_database
pytestmark = [pytest.mark.django_db(transaction=True), any_database]


@pytest.fixture(autouse=True)
def _policies(imgo):
    imgo(ROOMS={"last": {"history": 1}, "chat-*": {"history": 5, "history_ttl": 60}})


def message(room: str, body: bytes = b"1", age: float = 0.0) -> Message:
    """A message that was accepted `age` seconds ago."""
    now = timezone.now()
    return Message.objects.create(
        audience="room",
        room=room,
        stored=True,
        body=body,
        created_at=now - timedelta(seconds=age),
        expires_at=now + timedelta(days=1),
        keep_until=now + timedelta(days=1),
    )


def assign(room: str, count: int = 1, body: bytes = b"1", age: float = 0.0) -> list[Message]:
    """Messages that got their offsets `age` seconds ago."""
    messages = [message(room, body) for _ in range(count)]
    streams.assign(messages)
    if age:
        rows = StreamMessage.objects.filter(message_id__in=[each.pk for each in messages])
        rows.update(at=F("at") - timedelta(seconds=age))
    return messages


def offsets(room: str, after: int = 0, size: int = 100) -> list[int]:
    page = StreamPage(room, after, size)
    return [kept.offset for kept in streams.read_pages([page])[page]]


def state(room: str) -> streams.StreamState:
    return streams.read_states([room])[room]


def test_offsets_of_each_room_count_from_one():
    assign("chat-1", 2), assign("chat-2"), assign("chat-1")
    assert offsets("chat-1") == [1, 2, 3]
    assert offsets("chat-2") == [1]
    assert (state("chat-1").top, state("chat-1").first) == (3, 1)


def test_a_stream_that_is_asked_for_exists_from_then_on():
    first = state("chat-1")
    assert (first.top, first.first) == (0, 1)
    assert state("chat-1").epoch == first.epoch != state("chat-2").epoch


def test_a_page_has_the_body_with_its_kind():
    before = timezone.now().timestamp()
    (kept,) = assign("chat-1", body=b"\x00\xff")
    page = StreamPage("chat-1", 0, 10)
    (found,) = streams.read_pages([page])[page]
    assert (found.offset, found.id, found.body, found.is_json) == (1, kept.pk, b"\x00\xff", True)
    assert before - 1 < found.at < timezone.now().timestamp() + 1


def test_pages_of_many_rooms_are_one_query(django_assert_num_queries):
    assign("chat-1", 3), assign("chat-2", 2)
    pages = [StreamPage("chat-1", 1, 1), StreamPage("chat-2", 0, 9), StreamPage("chat-3", 0, 9)]
    with django_assert_num_queries(1):
        found = streams.read_pages(pages)
    assert [[kept.offset for kept in found[page]] for page in pages] == [[2], [1, 2], []]


def test_states_of_many_rooms_are_one_query(django_assert_num_queries):
    rooms = [f"chat-{n}" for n in range(50)]
    streams.ensure(rooms)
    with django_assert_num_queries(1):
        assert streams.read_states(rooms).keys() == set(rooms)


def test_the_window_is_the_policys_when_it_is_read(imgo):
    assign("chat-1", 5)
    imgo(ROOMS={"chat-*": {"history": 2}})
    assert offsets("chat-1") == [4, 5]
    assert state("chat-1").first == 4


def test_messages_past_the_time_are_outside_of_the_window():
    assign("chat-1", 2, age=61), assign("chat-1")
    assert offsets("chat-1") == [3]
    assert (state("chat-1").top, state("chat-1").first) == (3, 3)


def test_message_that_commits_late_makes_no_hole_in_the_window():
    """Its transaction was open for longer than `history_ttl`, and others got lower offsets."""
    late = message("chat-1", age=61)
    assign("chat-1"), streams.assign([late]), assign("chat-1")
    assert (offsets("chat-1"), state("chat-1").first) == ([1, 2, 3], 1)
    history = streams.read_history("chat-1", limit=9, newest=False)
    assert [kept.offset for kept in history] == [1, 2, 3]
    stream_retention.prune()
    assert offsets("chat-1") == [1, 2, 3]


def test_times_do_not_decrease_when_the_databases_clock_goes_back():
    assign("chat-1")
    ahead = timezone.now() + timedelta(seconds=30)
    Stream.objects.update(used_at=ahead), StreamMessage.objects.update(at=ahead)
    assign("chat-1", 2), state("chat-1"), assign("chat-1")
    times = StreamMessage.objects.order_by("offset").values_list("at", flat=True)
    assert list(times) == [ahead] * 4


def test_assigning_takes_no_query_for_the_time(django_assert_num_queries):
    messages = [message("chat-1"), message("chat-2"), message("chat-1")]
    with django_assert_num_queries(3 + 2):  # a transaction's two; tops, and rows of each room
        streams.assign(messages)


def test_a_room_with_a_last_value_stores_only_that():
    assign("last"), assign("last"), assign("last")
    assert list(StreamMessage.objects.values_list("offset", flat=True)) == [3]
    assert Stream.objects.get(room="last").size == 1


def test_history_is_read_from_either_end():
    assign("chat-1", 4)

    def read(**options) -> list[int]:
        return [kept.offset for kept in streams.read_history("chat-1", **options)]

    assert read(limit=2, newest=True) == [4, 3]
    assert read(limit=2, newest=False) == [1, 2]
    assert read(since=1, limit=9, newest=False) == [2, 3, 4]
    assert read(before=3, limit=9, newest=True) == [2, 1]


def test_another_database_gives_another_epoch():
    assign("chat-1")
    first = state("chat-1").epoch
    Stream.objects.update(cluster="another")
    second = state("chat-1").epoch
    assert second != first
    Stream.objects.update(cluster="another")
    assign("chat-1")
    assert state("chat-1").epoch not in {first, second}
    assert offsets("chat-1") == [1, 2]


def test_epoch_chosen_for_later_streams_is_the_one_they_get():
    chosen = stream_epochs.next_epoch()
    assert not Stream.objects.exists()
    assert [state("chat-1").epoch, state("chat-2").epoch] == [chosen] * 2
    assert stream_epochs.next_epoch() == chosen


@pytest.mark.parametrize(
    "change",
    [
        {"cluster": "another"},
        {"made_at": timezone.now() - timedelta(seconds=stream_epochs.EPOCH_LIFE + 1)},
    ],
)
def test_chosen_epoch_that_is_old_or_of_another_database_is_not_used(change):
    chosen = stream_epochs.next_epoch()
    NextEpoch.objects.update(**change)
    assert state("chat-1").epoch != chosen
    assert stream_epochs.next_epoch() != chosen
    assert stream_epochs.EPOCH_LIFE < stream_retention.KEEP_UNUSED


def test_stream_of_another_database_does_not_get_the_chosen_epoch():
    """It might be the one that its offsets had before."""
    assign("chat-1")
    Stream.objects.update(cluster="another")
    chosen = stream_epochs.next_epoch()
    assert state("chat-1").epoch != chosen


def test_a_trusted_standby_keeps_the_epoch(imgo, settings):
    imgo(STREAMS_TRUST_FAILOVER=True)
    assign("chat-1")
    first = state("chat-1").epoch
    Stream.objects.update(cluster="another")
    assign("chat-1")
    assert state("chat-1").epoch == first


def test_messages_without_a_place_are_told_from_those_with_one():
    first, second = message("chat-1"), message("chat-1")
    streams.assign([first])
    rows = [type("Row", (), {"message_id": m.pk, "message": m})() for m in (first, second)]
    assert streams.places_of(rows) == {first.pk: (state("chat-1").epoch, 1)}
