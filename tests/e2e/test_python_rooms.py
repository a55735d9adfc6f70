"""Rooms with history and the Python client against real servers, over each transport."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest

from imgo_client import Gap, Position, Recovered, Refused, Room
from tests import eventually

from .harness import System
from .rooms import FEW, SETTINGS, change_epoch, new_kept_room, push_to
from .test_python_client import make, opened
from .world import World, new_key, new_room

PUSHES = 300

Enter = Callable[[System], Awaitable[World]]


@pytest.fixture(params=["ws", "tcp", pytest.param("http", marks=pytest.mark.long)])
def scheme(request: pytest.FixtureRequest) -> str:
    """Each transport of the client."""
    return str(request.param)


@pytest.fixture(scope="module")
def keeping(make_embedded: Callable[..., System]) -> Iterator[System]:
    """A server whose rooms keep messages."""
    with make_embedded(**SETTINGS) as system:
        yield system


def watch(room: Room) -> list[Recovered | Gap]:
    """What a room tells besides messages."""
    events: list[Recovered | Gap] = []
    room.on("recovered", events.append).on("gap", events.append)
    return events


async def take(room: Room, count: int) -> list[tuple[int, object]]:
    """Offset and body of the next messages; each is done with."""
    places: list[tuple[int, object]] = []
    async for message in room:
        places.append((message.offset, message.body))
        message.ack()
        if len(places) == count:
            break
    return places


@pytest.mark.long
async def test_over_kills_each_message_of_a_room_comes_once_in_order(
    make_cluster: Callable[..., System],
    own_system: Callable[[System], System],
    enter: Enter,
    scheme: str,
) -> None:
    world = await enter(own_system(make_cluster(nodes=1, **SETTINGS)))
    name = new_kept_room()
    client, log = make(world, scheme, await world.token(new_key()))
    room = client.room(name)
    events = watch(room)
    places: list[tuple[int, object]] = []
    async with opened(client):
        await eventually(lambda: room.state == "joined")
        pushing = asyncio.create_task(push_slowly(world, name))
        taking = asyncio.create_task(room.run(lambda m: places.append((m.offset, m.body))))
        for _ in range(2):
            count = len(places)
            await eventually(lambda count=count: len(places) > count + 20)
            world.node().kill()
            await world.node().start_beside()
        await pushing
        await eventually(lambda: len(places) >= PUSHES)
    await taking
    assert places == [(number + 1, number) for number in range(PUSHES)]
    assert [type(event) for event in events] == [Recovered, Recovered]
    assert all(isinstance(event, Recovered) and event.recovered for event in events)
    assert len([event for event, _ in log if event == "close"]) >= 3


async def push_slowly(world: World, room: str) -> None:
    """All pushes, over some seconds; the room keeps more."""
    for number in range(PUSHES):
        await push_to(world, room, number)
        await asyncio.sleep(0.03)  # a pace


async def test_what_was_pushed_while_away_follows_the_position(
    keeping: System, enter: Enter, scheme: str
) -> None:
    world = await enter(keeping)
    name = new_kept_room()
    client, _ = make(world, scheme, await world.token(new_key()))
    room = client.room(name)
    async with opened(client):
        await eventually(lambda: room.state == "joined")
        assert room.position is not None
        assert room.position["offset"] == 0
        await push_to(world, name, "a")
        assert await take(room, 1) == [(1, "a")]
    saved: Position = room.position
    await push_to(world, name, "b", "c")

    again, _ = make(world, scheme, await world.token(new_key()))
    room = again.room(name, position=saved)
    events = watch(room)
    async with again:
        assert await take(room, 2) == [(2, "b"), (3, "c")]
        await push_to(world, name, "d")
        assert await take(room, 1) == [(4, "d")]
        assert room.position == {**saved, "offset": 4}
    assert events == [Recovered(recovered=True, position={**saved, "offset": 3})]


async def test_more_than_is_kept_is_told_and_live_messages_follow(
    keeping: System, enter: Enter, scheme: str
) -> None:
    world = await enter(keeping)
    name = new_kept_room("short")
    client, _ = make(world, scheme, await world.token(new_key()))
    room = client.room(name)
    events = watch(room)
    async with opened(client):
        await eventually(lambda: room.state == "joined")
    await push_to(world, name, *range(FEW + 1))
    async with client:
        await eventually(lambda: room.state == "joined")
        await push_to(world, name, "live")
        assert await take(room, 1) == [(FEW + 2, "live")]
    (event,) = events
    assert isinstance(event, Recovered)
    assert event.recovered is False
    assert event.position is not None
    assert event.position["offset"] == FEW + 1


async def test_a_gap_in_an_open_session_is_told_in_its_place(
    keeping: System, enter: Enter, scheme: str
) -> None:
    world = await enter(keeping)
    name = new_kept_room()
    client, _ = make(world, scheme, await world.token(new_key()))
    room = client.room(name)
    events = watch(room)
    async with opened(client):
        await eventually(lambda: room.state == "joined")
        await push_to(world, name, "a")
        assert await take(room, 1) == [(1, "a")]
        change_epoch(world.system, name)
        await push_to(world, name, "b")  # is found out with it, and may be part of the gap
        taking = asyncio.create_task(take(room, 9))
        await eventually(lambda: events)
        await push_to(world, name, "c")
        await eventually(lambda: room.position == {"epoch": "restored", "offset": 3})
        assert await room.leave() is True
        assert (await taking)[-1] == (3, "c")
    (event,) = events
    assert isinstance(event, Gap)
    assert event.position["epoch"] == "restored"


async def test_a_position_of_another_epoch_is_not_recovered(
    keeping: System, enter: Enter, scheme: str
) -> None:
    world = await enter(keeping)
    name = new_kept_room()
    await push_to(world, name, "a")
    client, _ = make(world, scheme, await world.token(new_key()))
    room = client.room(name, position={"epoch": "of another database", "offset": 0})
    events = watch(room)
    async with opened(client):
        await eventually(lambda: room.state == "joined")
        await push_to(world, name, "b")
        assert await take(room, 1) == [(2, "b")]
        (event,) = events
        assert (type(event), event.recovered) == (Recovered, False)


@pytest.mark.parametrize("is_open", [True, False], ids=["in a session", "in the auth"])
async def test_a_rewind_gives_the_newest_messages(
    keeping: System, enter: Enter, scheme: str, *, is_open: bool
) -> None:
    world = await enter(keeping)
    name, last = new_kept_room(), new_kept_room("last")
    await push_to(world, name, *range(5))
    await push_to(world, last, "old", "new")
    client, _ = make(world, scheme, await world.token(new_key()))
    rooms = [] if is_open else [client.room(name, rewind=2), client.room(last, rewind=1)]
    async with opened(client):
        room, value = rooms or [client.room(name, rewind=2), client.room(last, rewind=1)]
        assert await take(room, 2) == [(4, 3), (5, 4)]
        assert await take(value, 1) == [(2, "new")]
        await push_to(world, name, 5)
        assert await take(room, 1) == [(6, 5)]


async def test_history_is_read_page_by_page(keeping: System, enter: Enter, scheme: str) -> None:
    world = await enter(keeping)
    name = new_kept_room()
    await push_to(world, name, *range(5))
    client, _ = make(world, scheme, await world.token(new_key()))
    room = client.room(name)
    async with opened(client):
        await eventually(lambda: room.state == "joined")
        page = await room.history(limit=2)
        assert (page["offset"], page["more"]) == (5, True)
        assert [message["body"] for message in page["messages"]] == [4, 3]
        page = await room.history(before=page["messages"][-1]["offset"], limit=9)
        assert [message["offset"] for message in page["messages"]] == [3, 2, 1]
        assert page["more"] is False
        page = await room.history(since=3, order="oldest")
        assert [message["offset"] for message in page["messages"]] == [4, 5]
        with pytest.raises(Refused):
            await room.history(limit=0)


async def test_rooms_without_history_and_rooms_by_join_go_on(
    keeping: System, enter: Enter, scheme: str
) -> None:
    world = await enter(keeping)
    plain, live, kept = new_room(), new_room(), new_kept_room()
    client, _ = make(world, scheme, await world.token(new_key()), rooms=[plain])
    rooms = [client.room(live), client.room(kept)]
    async with opened(client):
        await eventually(lambda: [room.state for room in rooms] == ["joined", "joined"])
        assert rooms[0].position is None
        for name in (plain, live, kept):
            await push_to(world, name, name)
        async for message in client:
            assert (message.body, message.room) == (plain, plain)
            message.ack()
            break
        assert await take(rooms[0], 1) == [(0, live)]
        assert await take(rooms[1], 1) == [(1, kept)]
        assert await rooms[1].leave() is True
        again = client.room(kept, rewind=1)
        assert await take(again, 1) == [(1, kept)]


@pytest.mark.long
async def test_a_hundred_rooms_with_long_names_are_all_recovered(
    keeping: System, enter: Enter, scheme: str
) -> None:
    world = await enter(keeping)
    names = [f"{new_kept_room()} {'ż' * 60}" for _ in range(99)]
    client, log = make(world, scheme, await world.token(new_key()))
    rooms = [client.room(name) for name in names]
    async with opened(client):
        await eventually(lambda: all(room.state == "joined" for room in rooms))
    for name in names:
        await push_to(world, name, name)
    async with client:
        for room in rooms:
            assert await take(room, 1) == [(1, room.name)]
    assert [value for event, value in log if event == "error"] == []


async def test_a_room_that_may_not_be_joined_is_refused(
    keeping: System, enter: Enter, scheme: str
) -> None:
    world = await enter(keeping)
    token = await world.api.make_token(new_key(), rooms=["chat-of-others"])
    client, log = make(world, scheme, token)
    async with opened(client):
        room = client.room(new_kept_room())
        with pytest.raises(Refused, match="Not allowed"):
            await take(room, 1)
        assert room.state == "refused"
        assert client.state == "open"
    assert [value for event, value in log if event == "error"] == [room.error]
