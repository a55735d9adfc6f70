"""Leaving a room in the Python client, and the end of its loop."""

import asyncio

import pytest

from imgo_client import Closed, NotOpen
from imgo_client.frames import Frame, Op
from tests import eventually

from .peers import of_room, until_no_more
from .room_peers import ROOM, at, reconnect, serving, take, watch


@pytest.fixture(params=["ws", "tcp"])
def scheme(request):
    """The transports with an auth frame; `test_events_transport.py` has the other one."""
    return request.param


async def test_leaving_ends_the_loop_and_the_next_session_does_not_ask(serve, make):
    asked = []

    async def script(peer):
        await peer.accept(**({ROOM: at(3)} if len(server.peers) == 1 else {}))
        if len(server.peers) == 1:
            await peer.push_to(ROOM, 4)
            asked.append(await peer.expect(Op.LEAVE))
            await peer.push_to(ROOM, 5)
        await peer.until_gone()

    server = await serve(script)
    client, _ = make(server)
    room = client.room(ROOM)
    events = watch(room)
    async with client:
        await eventually(lambda: room.state == "joined")
        looping = asyncio.ensure_future(take(room, 9))
        assert await room.leave() is True
        assert await room.leave() is True
        assert await looping in ([], [4])
        await reconnect(server)
        assert "rooms" not in server.peers[1].auth
    assert asked == [ROOM]
    assert events == [("state", "joined"), ("state", "left")]


async def test_without_a_session_there_is_nobody_to_tell(serve, make):
    client, _ = make(await serve(serving((at(0),))))
    room = client.room(ROOM)
    assert await room.leave() is False
    with pytest.raises(NotOpen):
        await room.history()


async def test_a_room_that_is_joined_again_at_once_gets_what_it_asked_for(serve, make):
    async def script(peer):
        await peer.accept(**{ROOM: at(3)})
        await peer.expect(Op.LEAVE)
        frame = await peer.receive()
        assert frame.body == {ROOM: {"rewind": 1}}
        await peer.send(of_room(ROOM, 4), Frame(Op.JOIN + 1, frame.seq, at(4)), of_room(ROOM, 4))
        await peer.until_gone()

    client, _ = make(await serve(script))
    room = client.room(ROOM)
    async with client:
        await eventually(lambda: room.state == "joined")
        await room.leave()
        assert await take(client.room(ROOM, rewind=1), 1) == [4]


async def test_a_room_that_is_left_as_soon_as_it_is_joined_is_left_once(serve, make):
    asked = []

    async def script(peer):
        await peer.accept(**{ROOM: at(3)})
        await peer.expect(Op.LEAVE)
        frame = await peer.receive()
        asked.append(frame.op)
        await peer.send(Frame(frame.op + 1, frame.seq, at(4)))
        await peer.until_gone()

    client, _ = make(await serve(script))
    room, leaving = client.room(ROOM), []

    def leave(state: str) -> None:
        if state == "joined":
            leaving.append(asyncio.ensure_future(room.leave()))

    room.on("state", leave)
    async with client:
        await eventually(lambda: leaving and leaving[0].done())
        client.room(ROOM)
        await eventually(lambda: asked)
    assert asked == [Op.JOIN]


async def test_a_room_that_is_left_during_the_auth_is_left_after_it(serve, make):
    asked = []

    async def script(peer):
        frame = await peer.receive()
        seen_auth.set()
        await eventually(changed.is_set)
        await peer.send(Frame(Op.AUTH_REPLY, frame.seq, {"rooms": {ROOM: at(3)}}))
        asked.append(await peer.expect(Op.LEAVE))
        asked.append(await peer.expect(Op.JOIN, at(3)))
        await peer.until_gone()

    seen_auth, changed = asyncio.Event(), asyncio.Event()
    client, _ = make(await serve(script))
    room = client.room(ROOM)
    async with client:
        await seen_auth.wait()
        assert await room.leave() is False
        again = client.room(ROOM, rewind=2)
        changed.set()
        await eventually(lambda: again.state == "joined")
    assert asked == [ROOM, {ROOM: {"rewind": 2}}]


async def test_the_loop_ends_as_the_clients_does(serve, make):
    async def script(peer):
        await peer.accept(**{ROOM: at(0)})
        await peer.close(4504, "closed")

    client, _ = make(await serve(script))
    room = client.room(ROOM)
    async with client:
        with pytest.raises(Closed, match="4504"):
            await take(room, 1)


async def test_a_slow_loop_stops_the_reading_and_loses_nothing(serve, make):
    count, sent = 2_000, 0

    async def script(peer):
        nonlocal sent
        await peer.accept(**{ROOM: at(0)})
        for offset in range(1, count + 1):
            await peer.send(of_room(ROOM, offset, "x" * 5_000))
            sent = offset
        await peer.until_gone()

    client, _ = make(await serve(script), buffer=10)
    room = client.room(ROOM)
    async with client:
        await until_no_more(lambda: sent)
        assert 0 < sent < count
        assert len(await take(room, count)) == count
        assert room.position == at(count)


async def test_a_room_that_is_left_while_it_is_full_lets_the_reading_go_on(serve, make):
    async def script(peer):
        await peer.accept(**{ROOM: at(0)})
        await peer.push_to(ROOM, *range(1, 51))
        await peer.push(7)
        await peer.expect(Op.LEAVE)
        await peer.until_gone()

    client, _ = make(await serve(script), buffer=1)
    room = client.room(ROOM)
    async with client:
        await eventually(lambda: room.state == "joined")
        await room.leave()
        assert (await client.__aiter__().__anext__()).id == 7
