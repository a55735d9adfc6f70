"""Rooms with history in the Python client, against a server that does what the test says."""

import asyncio
import json

import pytest

from imgo_client import Closed, NotOpen, ProtocolError, Refused
from imgo_client.frames import Frame, Op
from imgo_client.lifetime import Lifetime
from tests import eventually

from .peers import of_room

ROOM = "chat"


@pytest.fixture(params=["ws", "tcp"])
def scheme(request):
    """The transports with an auth frame; `test_events_transport.py` has the other one."""
    return request.param


def at(offset, epoch="e1"):
    return {"epoch": epoch, "offset": offset}


def gap(offset, epoch="e1", room=ROOM):
    return Frame(Op.GAP, 0, {"room": room, **at(offset, epoch)})


def watch(room):
    """All that a room tells, and its messages as `take` gets them."""
    events = []
    for event in ("state", "recovered", "gap"):
        room.on(event, lambda value, event=event: events.append((event, value)))
    return events


async def take(room, count):
    """The bodies of the next messages; each is done with."""
    found = []
    async for message in room:
        found.append(message.body)
        message.ack()
        if len(found) == count:
            break
    return found


def serving(*sessions):
    """A script: in each session the auth is answered with a dictionary, and frames follow."""

    async def script(peer):
        told, *frames = sessions[min(len(script.asked), len(sessions) - 1)]
        await peer.accept(**{ROOM: told})
        script.asked.append(peer.auth["rooms"])
        for frame in frames:
            await peer.send(frame)
        await peer.until_gone()

    script.asked = []
    return script


async def reconnect(server, count=2):
    """Have the server end its newest session; until as many have begun."""
    await server.peers[-1].close(4000)
    await eventually(lambda: len(server.peers) >= count and server.peers[-1].auth)


# Joining


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


# The position


async def test_the_position_follows_the_loop_and_is_asked_for_again(serve, make):
    messages = [of_room(ROOM, offset) for offset in (4, 5, 6)]
    script = serving(
        (at(3), *messages),
        ({**at(8), "recovered": True}, *(of_room(ROOM, offset) for offset in (7, 8))),
    )
    server = await serve(script)
    client, _ = make(server)
    room = client.room(ROOM)
    async with client:
        found = []
        async for message in room:
            found.append((message.offset, room.position["offset"]))
            if message.offset == 6:
                await reconnect(server)
            if message.offset == 8:
                break
        assert room.position == at(7)  # the last message is not done with
    assert found == [(4, 3), (5, 4), (6, 5), (7, 6), (8, 7)]
    assert script.asked == [{ROOM: {}}, {ROOM: at(6)}]


async def test_a_message_that_has_come_is_dropped_when_it_comes_again(serve, make):
    frames = [of_room(ROOM, offset) for offset in (3, 4, 4, 2, 5)]
    client, _ = make(await serve(serving((at(3), *frames))))
    room = client.room(ROOM)
    async with client:
        assert await take(room, 2) == [4, 5]


async def test_recovered_false_is_told_in_its_place(serve, make):
    script = serving(
        (at(3), of_room(ROOM, 4)),
        ({**at(1, "e2"), "recovered": False}, of_room(ROOM, 2)),
        ({"recovered": False}, of_room(ROOM, 0, "live")),
    )
    server = await serve(script)
    client, _ = make(server)
    room = client.room(ROOM)
    events = watch(room)
    async with client:
        assert await take(room, 1) == [4]
        await reconnect(server)
        assert await take(room, 1) == [2]
        assert (events[-1][1].recovered, events[-1][1].position) == (False, at(1, "e2"))
        assert room.position == at(2, "e2")
        await reconnect(server, 3)
        assert await take(room, 1) == ["live"]
        assert (events[-1][1].recovered, events[-1][1].position) == (False, None)
        assert room.position is None
    assert script.asked == [{ROOM: {}}, {ROOM: at(4)}, {ROOM: at(2, "e2")}]


async def test_a_gap_is_told_in_its_place_and_waited_for(serve, make):
    frames = [of_room(ROOM, 4), gap(9), gap(9, room="other"), of_room(ROOM, 9), of_room(ROOM, 10)]
    behind = [gap(5), of_room(ROOM, 8), gap(1, "e2"), of_room(ROOM, 2), Frame(Op.GAP, 0, "bad")]
    client, log = make(await serve(serving((at(3), *frames, *behind))))
    told = []

    async def load(value):
        told.append(room.position)
        await asyncio.to_thread(int)
        told.append(value.position)

    room = client.room(ROOM).on("gap", load)
    async with client:
        async for message in room:
            told.append(message.body)
            if message.body == 2:
                break
        await eventually(lambda: client.state == "open")
    assert told == [4, at(4), at(9), 10, at(10), at(10), at(10), at(1, "e2"), 2]
    assert log.of("error") == []


async def test_a_callback_that_fails_is_an_error_and_the_room_goes_on(serve, make):
    client, log = make(await serve(serving((at(3), gap(9), of_room(ROOM, 10)))))

    async def fail(_):
        raise LookupError("no state")

    room = client.room(ROOM).on("gap", fail).on("state", lambda _: 1 / 0)
    async with client:
        assert await take(room, 1) == [10]
    assert [type(error) for error in log.of("error")][:2] == [ZeroDivisionError, LookupError]


async def test_a_loop_that_is_cancelled_in_a_callback_tells_it_again(serve, make):
    client, _ = make(await serve(serving((at(3), gap(9), of_room(ROOM, 10)))))
    told = []

    async def load(value):
        told.append(value.position)
        if len(told) == 1:
            await asyncio.Event().wait()

    room = client.room(ROOM).on("gap", load)
    async with client:
        task = asyncio.ensure_future(take(room, 1))
        await eventually(lambda: told)
        task.cancel()
        await asyncio.wait([task])
        assert room.position == at(3)
        assert await take(room, 1) == [10]
    assert told == [at(9), at(9)]


async def test_what_is_rewound_comes_once_and_the_rest_if_it_was_cut_off(serve, make):
    script = serving((at(10), of_room(ROOM, 8), of_room(ROOM, 9)), ({**at(10), "recovered": True},))
    server = await serve(script)
    client, _ = make(server)
    room = client.room(ROOM, rewind=3)
    async with client:
        assert await take(room, 2) == [8, 9]
        await reconnect(server)
    assert script.asked == [{ROOM: {"rewind": 3}}, {ROOM: at(9)}]


async def test_a_handler_that_fails_is_an_error_and_the_next_message_follows(serve, make):
    client, log = make(await serve(serving((at(0), *(of_room(ROOM, n) for n in (1, 2, 3))))))
    room = client.room(ROOM)
    got = []

    async def handle(message):
        got.append((message.body, room.position["offset"]))
        if message.body == 2:
            raise LookupError("no such order")

    async with client:
        running = asyncio.ensure_future(room.run(handle))
        await eventually(lambda: room.position == at(3))
    await running
    assert got == [(1, 0), (2, 1), (3, 1)]
    assert [str(error) for error in log.of("error")] == ["no such order"]


async def test_a_client_that_begins_anew_gets_what_was_not_done_with(serve, make):
    frames = [of_room(ROOM, n) for n in (1, 2, 3)]
    script = serving((at(0), *frames), ({**at(3), "recovered": True}, *frames[1:]))
    client, _ = make(await serve(script))
    room = client.room(ROOM)
    async with client:
        async for message in room:
            if message.body == 2:
                break
    assert (room.state, room.position) == ("joining", at(1))
    assert await take(room, 1) == []  # it is closed
    async with client:
        assert await take(room, 2) == [2, 3]
    assert script.asked[1] == {ROOM: at(1)}


async def test_the_positions_that_are_handed_out_are_copies(serve, make):
    client, _ = make(await serve(serving((at(0), gap(9), of_room(ROOM, 10)))))
    given = at(0)
    room = client.room(ROOM, position=given).on("gap", lambda told: told.position.clear())
    given.clear()
    async with client:
        assert await take(room, 1) == [10]
        room.position.clear()
        assert room.position == at(10)


# Leaving, and the end


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
        before = await eventually(lambda: sent) and -1
        while sent != before:  # until the server can send no more
            before = sent
            for _ in range(50):
                await asyncio.to_thread(int)  # a round of the loop that takes a moment
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


# History


async def test_history_is_asked_for_and_answered_as_the_server_does(serve, make):
    page = {"room": ROOM, **at(3), "more": False, "messages": [{"offset": 3, "body": "x"}]}
    asked = []

    async def script(peer):
        await peer.accept(**{ROOM: at(3)})
        asked.append(await peer.expect(Op.HISTORY, page))
        asked.append(await peer.expect(Op.HISTORY, {"error": {"code": "not_found"}}))
        await peer.until_gone()

    client, _ = make(await serve(script))
    room = client.room(ROOM)
    async with client:
        await eventually(lambda: room.state == "joined")
        assert await room.history(before=4, limit=2, order="newest") == page
        with pytest.raises(Refused, match="not_found"):
            await room.history()
    assert asked == [{"room": ROOM, "before": 4, "limit": 2, "order": "newest"}, {"room": ROOM}]


# Publishing


async def test_publish_returns_the_id_of_the_answer_or_raises_its_refusal(serve, make):
    asked = []
    refusal = {"error": {"code": "too_many_publishes", "message": "later"}}

    async def script(peer):
        await peer.accept(**{ROOM: at(3)})
        answers = ({"room": ROOM, "id": "104"}, {"room": ROOM, "id": "105"}, refusal, {})
        asked.extend([await peer.expect(Op.PUBLISH, answer) for answer in answers])
        await peer.until_gone()

    client, _ = make(await serve(script))
    room = client.room(ROOM)
    async with client:
        await eventually(lambda: room.state == "joined")
        assert await room.publish({"n": 1}) == 104
        assert await room.publish("x", op=1000, store=False, echo=False, id="mine") == 105
        with pytest.raises(Refused) as refused:
            await room.publish(2)
        assert refused.value.code == "too_many_publishes"
        with pytest.raises(ProtocolError):
            await room.publish(3)
    ids = [one.pop("id") for one in asked]
    assert ids[1] == "mine"
    assert len(set(ids)) == 4
    assert asked[:2] == [
        {"room": ROOM, "body": {"n": 1}},
        {"room": ROOM, "body": "x", "op": 1000, "store": "never", "echo": False},
    ]


async def test_publish_during_the_join_follows_it(serve, make, monkeypatch):
    async def script(peer):
        await peer.accept()
        await peer.expect(Op.JOIN, at(3))
        await peer.expect(Op.PUBLISH, {"room": ROOM, "id": "104"})
        await peer.until_gone()

    async def call(self, op, body, taken=None):
        states[op] = room.state
        return await send(self, op, body, taken)

    states, send = {}, Lifetime.call
    monkeypatch.setattr(Lifetime, "call", call)
    client, _ = make(await serve(script))
    async with client:
        await eventually(lambda: client.state == "open")
        room = client.room(ROOM)
        assert await room.publish(1) == 104
    assert states == {Op.JOIN: "joining", Op.PUBLISH: "joined"}


async def test_messages_have_the_key_of_the_client_that_has_published_them(serve, make):
    async def script(peer):
        await peer.accept(**{ROOM: at(3)})
        await peer.send(of_room(ROOM, 4)._replace(sender="alice"), of_room(ROOM, 5))
        await peer.send(of_room("other", 1)._replace(sender="bob"))
        await peer.until_gone()

    client, _ = make(await serve(script), rooms=["other"])
    room = client.room(ROOM)
    async with client:
        messages = [await room.__aiter__().__anext__() for _ in range(2)]
        messages.append(await client.__aiter__().__anext__())
    assert [message.sender for message in messages] == ["alice", "", "bob"]


# Mistakes


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
