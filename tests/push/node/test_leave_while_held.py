"""Rooms that a session leaves, and joins again, while the node holds its live messages."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from accounts.auth_body import RoomRequest
from offline import stream_retention
from offline.node_io import deliveries
from push.bus.group_names import key_group, room_group
from push.node.node import Node
from push.node.stream_joins import StreamJoin
from push.session.outgoing import Kind
from push.session.session import Session
from tests import eventually, in_thread
from tests.push.node.test_hub import envelope as envelope_of
from tests.push.node.test_streams import ROOM, envelope, offsets, publish, store
from tests.push.sessions import admit, ids, message


@pytest.fixture(autouse=True)
def _policies(imgo):
    imgo(ROOMS={"chat-*": {"history": 1_000}}, PARTITIONS=1)


LATE, REPLAYED = 10, 20  # ids of messages to the key
Release = Callable[[], Awaitable[None]]


@pytest.fixture
async def held(node, monkeypatch) -> tuple[Session, str, Release]:
    """Return a session in the room that the node holds, the room's epoch, and what ends the hold.

    The node looks up a message to the key that the replay has overtaken.
    """
    session = await admit(node, kind=Kind.TEXT, keeper=node.receipts)
    session.release()
    session.set_names(True)
    told: list[StreamJoin] = []
    await node.membership.join_stream(session, ROOM, RoomRequest(), told.append)
    may_answer = asyncio.Event()

    async def get(pair: tuple[int, str]) -> None:
        await may_answer.wait()

    async def release() -> None:
        may_answer.set()
        await eventually(lambda: not session.is_held)

    monkeypatch.setattr(deliveries, "get", get)
    session.replay(message(REPLAYED))
    node.hub.handle(envelope_of(key_group("u1"), LATE, "u1"))
    assert session.is_held
    session.link.written.clear()
    return session, told[0].epoch, release


async def is_handed_out(node: Node, offset: int) -> None:
    """Wait until the node has written the room's messages up to an offset to its sessions."""
    group = room_group(ROOM)
    stream, coalescers = node.hub.streams.of(group), node.hub.coalescers
    await eventually(lambda: stream.last == offset and group not in coalescers)


@pytest.mark.parametrize("is_position_known", [True, False])
async def test_rejoin_while_held_gives_each_offset_once(node, held, is_position_known):
    session, epoch, release = held
    await store(3)
    for offset in (1, 2, 3):  # the last two in one batch
        node.hub.handle(envelope(offset, epoch))
    await is_handed_out(node, 3)
    await node.membership.leave(session, ROOM)
    request = RoomRequest(epoch, 0) if is_position_known else RoomRequest()
    await node.membership.join_stream(session, ROOM, request, lambda told: None)
    await release()
    await publish()
    await eventually(lambda: offsets(session)[-1:] == [4])
    assert offsets(session) == ([1, 2, 3, 4] if is_position_known else [4])


async def test_rejoin_while_held_gets_no_earlier_gap(node, held):
    session, epoch, release = held
    await store(3)
    await in_thread(stream_retention.empty, ROOM)
    node.hub.handle(envelope(3, epoch))
    await is_handed_out(node, 3)
    await publish()
    await is_handed_out(node, 4)
    await node.membership.leave(session, ROOM)
    await node.membership.join_stream(session, ROOM, RoomRequest(epoch, 3), lambda told: None)
    await release()
    assert offsets(session) == [4]


async def test_leave_while_held_keeps_messages_of_others(node, held):
    session, epoch, release = held
    await node.membership.join(session, "plain")
    node.hub.handle(envelope(1, epoch))
    node.hub.handle(envelope_of(room_group("plain"), 30) | {"room": "plain"})
    node.hub.handle(envelope_of(key_group("u1"), 40, "u1"))
    await node.membership.leave(session, ROOM)
    await release()
    assert ids(session) == [30, 40]
