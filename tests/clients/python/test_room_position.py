"""The position of a room in the Python client, and gaps."""

import asyncio

import pytest

from imgo_client.frames import Frame, Op
from tests import eventually

from .peers import of_room
from .room_peers import ROOM, at, gap, reconnect, serving, take, watch


@pytest.fixture(params=["ws", "tcp"])
def scheme(request):
    """The transports with an auth frame; `test_events_transport.py` has the other one."""
    return request.param


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
