"""Blocks with ids: they never cover what a session was not written yet."""

import asyncio

import pytest

from accounts.auth_body import RoomRequest
from push.accept.accept import Push
from push.bus.group_names import room_group
from push.node import coalescer, event_ids
from push.node.node import Node
from push.node.room_stream import written_for_sure, written_up_to
from push.node.stream_joins import StreamJoin
from push.session.event_ids import Position, parse_event_id
from push.session.outgoing import Kind
from push.session.session import Session
from tests import eventually, in_thread
from tests.push.conftest import push_now
from tests.push.sessions import admit, events

ROOM, OTHER = "chat-1", "chat-2"


@pytest.fixture(autouse=True)
def _policies(imgo, monkeypatch):
    imgo(ROOMS={"chat-*": {"history": 1_000}}, PARTITIONS=1, BATCH_MAX=3)
    monkeypatch.setattr(event_ids, "INTERVAL", 0.0)


async def join(node: Node, *rooms: str) -> Session:
    """A session of events that can resume these rooms."""
    session = await admit(node, kind=Kind.EVENTS)
    session.release()
    session.set_names(True)
    places: dict[str, Position] = {}
    node.hub.event_ids.begin(session, {})
    for room in rooms:
        told: list[StreamJoin] = []
        await node.membership.join_stream(session, room, RoomRequest(), told.append)
        places[room] = told[0].position
    session.link.written.append(node.hub.event_ids.begin(session, places))
    return session


def check(session: Session, room: str = ROOM) -> int:
    """Check that no id covers a message that comes behind it; return the last offset covered."""
    covered = last = 0
    for block in events(b"".join(session.link.written)):
        if block.data and block.value.get("room") == room:
            last = block.value["offset"]
            assert last > covered
        if block.id is not None:
            found = parse_event_id(block.id)
            assert found is not None
            position = found.of(room)
            assert position is not None
            assert covered <= position.offset <= last
            covered = position.offset
    return covered


@pytest.mark.parametrize("rooms", [[ROOM], [ROOM, OTHER]], ids=["one", "two"])
async def test_ids_cover_what_was_written_while_groups_are_written_in_slices(
    node, rooms, monkeypatch
):
    monkeypatch.setattr(coalescer, "YIELD_AFTER", 2)  # sessions
    sessions = [await join(node, *rooms) for _ in range(9)]
    await asyncio.gather(*(in_thread(push_now, Push(b"1", room=ROOM)) for _ in range(25)))
    await eventually(lambda: [check(session) for session in sessions] == [25] * 9)


async def test_a_batch_that_is_being_written_in_slices_is_not_covered(node, monkeypatch):
    monkeypatch.setattr(coalescer, "YIELD_AFTER", 1)
    for _ in range(2):
        await join(node, ROOM, OTHER)
    seen: list[tuple[int, int]] = []
    write = coalescer.write_to_all
    (stream,) = (
        s for s in [node.hub.streams.of(g) for g in node.hub.groups] if s and s.room == ROOM
    )

    def look(*arguments: object) -> None:
        seen.append((written_for_sure(node.hub, stream), written_up_to(node.hub, stream)))
        write(*arguments)

    monkeypatch.setattr(coalescer, "write_to_all", look)
    await in_thread(push_now, Push(b"1", room=ROOM))
    await eventually(lambda: len(seen) == 2)
    assert seen == [(0, 1), (0, 1)]
    await eventually(lambda: written_for_sure(node.hub, stream) == 1)


async def test_a_session_whose_messages_are_held_gets_no_block(node):
    session = await join(node, ROOM, OTHER)
    session.hold(10**6)
    await in_thread(push_now, Push(b"1", room=ROOM))
    await eventually(lambda: session in node.hub.event_ids._due)
    assert check(session) == 0
    session.release()
    await eventually(lambda: check(session) == 1)


async def test_a_gap_moves_the_position_of_a_session_with_one_stream(node):
    session = await join(node, ROOM)
    stream = node.hub.streams.of(room_group(ROOM))
    await node.hub.streams._report_gap(stream, 7)
    await eventually(lambda: events(b"".join(session.link.written))[-1].id is not None)
    found = parse_event_id(events(b"".join(session.link.written))[-1].id or "")
    assert found is not None
    assert found.of(ROOM) == Position(stream.epoch, 7)
