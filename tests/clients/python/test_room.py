"""Rooms with history in the Python client: joining, the first messages, and wrong arguments."""

import json

import pytest

from imgo_client import Refused
from imgo_client.frames import Frame, Op
from tests import eventually

from .peers import of_room
from .room_peers import ROOM, at, reconnect, serving, take, watch


@pytest.fixture(params=["ws", "tcp"])
def scheme(request):
    """The transports with an auth frame; `test_events_transport.py` has the other one."""
    return request.param


async def test_the_auth_frame_asks_for_all_rooms_in_an_object(serve, make):
    async def script(peer):
        await peer.accept(a=at(57), b={**at(41), "recovered": True}, c={})
        await peer.until_gone()

    server = await serve(script)
    client, _ = make(server, rooms=["lobby"])
    rooms = [
        client.room("a", rewind=20),
        client.room("b", position=at(41)),
        client.room("c"),
    ]
    async with client:
        await eventually(lambda: [room.state for room in rooms] == ["joined"] * 3)
        assert [room.position for room in rooms] == [at(37), at(41), None]
        assert client.rooms == ["lobby"]
    asked = {"lobby": {}, "a": {"rewind": 20}, "b": at(41), "c": {}}
    assert server.peers[0].auth == {"token": "abc", "ack": True, "rooms": asked}


async def test_a_room_of_an_open_session_is_joined_with_an_object(serve, make):
    async def script(peer):
        await peer.accept()
        frame = await peer.receive()
        asked.append((frame.op, frame.body))
        reply = Frame(Op.JOIN + 1, frame.seq, {**at(3), "recovered": True})
        await peer.send(reply, of_room(ROOM, 2), of_room(ROOM, 3))  # in one batch
        await peer.until_gone()

    asked = []
    client, log = make(await serve(script))
    async with client:
        await eventually(lambda: client.state == "open")
        room = client.room(ROOM, position=at(1))
        events = watch(room)
        assert await take(room, 2) == [2, 3]
    assert asked == [(Op.JOIN, {ROOM: at(1)})]
    (joined, (name, value)) = events[:2]
    assert joined == ("state", "joined")
    assert (name, value.recovered, value.position) == ("recovered", True, at(3))
    assert log.of("error") == []


async def test_a_message_knows_its_room_and_place_and_is_not_acknowledged(serve, make):
    said = []

    async def script(peer):
        await peer.accept(**{ROOM: at(0)})
        await peer.push_to(ROOM, 1)
        said.append(await peer.until_gone())

    client, _ = make(await serve(script))
    async with client:
        async for message in client.room(ROOM):
            message.ack()
            break
    found = (message.body, message.op, message.id, message.room, message.offset)
    assert found == (1, 5, 101, ROOM, 1)
    await eventually(lambda: said == [[]])


async def test_what_is_not_the_rooms_goes_to_the_client(serve, make):
    async def script(peer):
        await peer.accept(**{ROOM: at(0)})
        await peer.push(7)
        await peer.push_to("other", 9)
        await peer.until_gone()

    client, _ = make(await serve(script), ack=False)
    client.room(ROOM)
    async with client:
        found = []
        async for message in client:
            found.append((message.body, message.room, message.offset))
            message.ack()
            if len(found) == 2:
                break
    assert found == [(7, "", 0), (9, "other", 0)]


async def test_without_ack_no_message_of_a_room_is_acknowledged(serve, make):
    said = []

    async def script(peer):
        await peer.accept(**{ROOM: at(0)})
        await peer.push_to("other", 9)
        said.append(await peer.until_gone())

    client, _ = make(await serve(script), ack=False)
    client.room(ROOM)
    async with client:
        async for message in client:
            message.ack()
            break
    await eventually(lambda: said == [[]])


async def test_a_message_that_is_not_kept_moves_no_position(serve, make):
    async def script(peer):
        await peer.accept(**{ROOM: at(3)})
        await peer.send(Frame(Op.MESSAGE, 0, "typing", 2, 9, ROOM))
        await peer.until_gone()

    client, _ = make(await serve(script))
    room = client.room(ROOM)
    async with client:
        assert await take(room, 1) == ["typing"]
        assert room.position == at(3)


async def test_a_refused_room_is_told_and_forgotten(serve, make):
    async def script(peer):
        await peer.accept()
        await peer.expect(Op.JOIN, {"error": {"code": "room_forbidden", "message": "not yours"}})
        await peer.until_gone()

    client, log = make(await serve(script))
    async with client:
        await eventually(lambda: client.state == "open")
        room = client.room(ROOM)
        events = watch(room)
        with pytest.raises(Refused, match="not yours"):
            await take(room, 1)
        assert (room.state, room.error) == ("refused", log.of("error")[0])
        assert events == [("state", "refused")]
        assert await room.leave() is True
        assert client.room(ROOM).state == "joining"


async def test_a_room_without_history_has_no_position(serve, make):
    script = serving(({}, of_room(ROOM, 4)), ({}, of_room(ROOM, 5)))
    server = await serve(script)
    client, log = make(server)
    room = client.room(ROOM, rewind=5)
    async with client:
        assert await take(room, 1) == [4]  # whatever the offset is of
        assert room.position is None
        assert [(error.code, str(error)) for error in log.of("error")] == [
            ("no_history", f"the room {ROOM!r} keeps no messages")
        ]
        await reconnect(server)
        assert await take(room, 1) == [5]
    assert script.asked == [{ROOM: {"rewind": 5}}] * 2


@pytest.mark.parametrize("answer", ["unavailable", "none"])
async def test_a_room_that_is_refused_for_now_is_asked_for_again(serve, make, answer):
    asked = []

    async def script(peer):
        await peer.accept()
        if answer == "none":
            asked.append((await peer.receive()).body)
        else:
            error = {"error": {"code": answer, "message": "later"}}
            asked.append(await peer.expect(Op.JOIN, error))
        asked.append(await peer.expect(Op.LEAVE))
        asked.append(await peer.expect(Op.JOIN, {**at(2), "recovered": True}))
        await peer.until_gone()

    client, log = make(await serve(script), timeout=0.5 if answer == "none" else 5)
    async with client:
        await eventually(lambda: client.state == "open")
        room = client.room(ROOM, position=at(2))
        await eventually(lambda: room.state == "joined")
    assert asked == [{ROOM: at(2)}, ROOM, {ROOM: at(2)}]
    assert len(log.of("error")) == 1


async def test_rooms_above_8192_bytes_are_joined_at_once_after_the_auth(serve, make):
    joins = []

    async def script(peer):
        await peer.accept()
        # None is answered before all have come.
        while len(joins) + len(peer.auth["rooms"]) < len(names) + 1:
            joins.append(await peer.receive())
        for frame in joins:
            await peer.send(Frame(frame.op + 1, frame.seq, at(5)))
        await peer.until_gone()

    names = [f"a room {number} {'ż' * 60}" for number in range(99)]
    server = await serve(script)
    client, log = make(server, rooms=["lobby"])
    rooms = [client.room(name, position=at(5)) for name in names]
    async with client:
        await eventually(lambda: all(room.state == "joined" for room in rooms))
    auth = server.peers[0].auth
    size = len(json.dumps(auth, ensure_ascii=False, separators=(",", ":")).encode())
    assert 1_024 < size <= 8_192
    bodies = [frame.body for frame in joins]
    assert all(body == {name: at(5)} for body in bodies if body != "lobby" for name in body)
    later = [name for body in bodies for name in ([body] if body == "lobby" else body)]
    assert sorted([*auth["rooms"], *later]) == sorted(["lobby", *names])
    assert log.of("error") == []


@pytest.mark.parametrize(
    "options",
    [
        {"rewind": -1},
        {"rewind": 100_001},
        {"rewind": "20"},
        {"rewind": True},
        {"position": {"offset": 3}},
        {"position": at(-1)},
        {"position": {"epoch": 7, "offset": 3}},
    ],
    ids=str,
)
async def test_options_of_a_room_that_can_not_be_are_refused(serve, make, options):
    client, _ = make(await serve(serving((at(0),))))
    with pytest.raises((TypeError, ValueError), match=r"rewind|position"):
        client.room(ROOM, **options)


async def test_a_room_has_one_owner(serve, make):
    client, _ = make(await serve(serving((at(0),))), rooms=["lobby"])
    with pytest.raises(ValueError, match="joined 'lobby' already"):
        client.room("lobby")
    room = client.room(ROOM)
    for ask in (client.join, client.leave):
        with pytest.raises(ValueError, match="room\\(\\) was called"):
            await ask(ROOM)
    with pytest.raises(ValueError, match="was called"):
        client.room(ROOM)
    with pytest.raises(ValueError, match="does not go with"):
        await client.change_room("x")
    with pytest.raises(TypeError):
        room.on("state", client.close)
    with pytest.raises(ValueError, match="no event 'open'"):
        room.on("open", print)
    await room.leave()
    assert client.room(ROOM).state == "joining"
    assert repr(room) == "<Room 'chat' left>"
