"""The ids of events: what they say, what is read from them, and what is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from push.session.event_ids import EventIds, Position, event_id, parse_event_id

NAMES = st.text(min_size=1, max_size=200)
OFFSETS = st.integers(0, 2**63 - 1)
EPOCHS = st.text("0123456789abcdef", min_size=1, max_size=64)


@given(
    st.integers(0, 10**13), st.dictionaries(NAMES, st.builds(Position, EPOCHS, OFFSETS), max_size=5)
)
def test_an_id_is_read_as_the_position_that_it_was_written_for(millis, rooms):
    ids = EventIds()
    ids.rooms = rooms
    found = parse_event_id(ids.text(millis / 1000).decode())
    assert found is not None
    assert found.at == millis / 1000
    assert {room: found.of(room) for room in rooms} == rooms
    assert found.of("another room") is None


def test_an_events_own_id_is_that_of_a_session_with_one_stream():
    ids = EventIds()
    ids.rooms = {"chat-1": Position("ab12", 7)}
    assert event_id("chat-1", "ab12", 7, 1.5) == ids.text(1.5)


def test_an_id_of_many_rooms_fits_into_a_header():
    ids = EventIds()
    ids.rooms = {"r" * 190 + str(n): Position("0123abcd", 10**9) for n in range(100)}
    assert len(ids.text(2e9)) < 4_000
    assert parse_event_id(ids.text(2e9).decode()) is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "42",
        "2,0",
        "1",
        "1,-1",
        "1,٣",
        "1,0,",
        "1,0,room",
        "1,0,room.ep",
        "1,0,room.ep.x",
        "1,9223372036854775808",
        "1,0,room.ep.9223372036854775808",
        "1,0\n",
        "1,0" + ",IVSUn0iA.0ed9dd41.2" * 1_000,
        "\0",
    ],
)
def test_an_id_that_is_none_of_ours_is_no_position(text):
    assert parse_event_id(text) is None
