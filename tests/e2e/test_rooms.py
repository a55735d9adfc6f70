"""Rooms: joining and leaving them, who may, and how many are in them."""

from typing import Any

from tests import eventually

from .frames import CHANGE_ROOM, CHANGE_ROOM_REPLY, JOIN, JOIN_REPLY, LEAVE, LEAVE_REPLY
from .world import World, new_key, new_room

ROOM_FORBIDDEN = 4506


async def wait_for_room(world: World, room: str, count: int) -> None:
    """Wait until as many sessions are in the room."""

    async def is_so() -> bool:
        return (await world.api.rooms()).get(room, 0) == count

    await eventually(is_so)


async def join(client: Any, room: str) -> None:
    reply = await client.ask(JOIN, room)
    assert (reply.op, reply.value) == (JOIN_REPLY, {})


async def leave(client: Any, room: str) -> None:
    reply = await client.ask(LEAVE, room)
    assert (reply.op, reply.value) == (LEAVE_REPLY, {})


async def change_room(client: Any, room: str) -> None:
    reply = await client.ask(CHANGE_ROOM, room)
    assert (reply.op, reply.value) == (CHANGE_ROOM_REPLY, {})


async def received_rooms(world: World, client: Any, rooms: list[str]) -> list[str]:
    """Push to each of the rooms; the ones whose push the client gets."""
    witness = await world.session(new_key(), rooms=rooms)
    for room in rooms:
        await world.api.push({"room": room}, {"room": room})
        assert (await witness.receive()).value["room"] == room
    # A push to everyone may overtake one to a room, but not one that others have received.
    await world.api.push({"all": True}, {"room": "the end"})
    await witness.close()
    names = []
    while (name := (await client.receive()).value["room"]) != "the end":
        names.append(name)
    return names


async def test_a_session_may_be_in_many_rooms(world: World, transport: str) -> None:
    rooms = [new_room() for _ in range(4)]
    client = await world.session(new_key(), transport, rooms=rooms[:2])
    await join(client, rooms[2])
    assert await received_rooms(world, client, rooms) == rooms[:3]
    await leave(client, rooms[0])
    assert await received_rooms(world, client, rooms) == rooms[1:3]


async def test_joining_twice_is_once_and_leaving_ends_it(world: World) -> None:
    room = new_room()
    client = await world.session(new_key())
    await join(client, room)
    await join(client, room)
    await wait_for_room(world, room, 1)
    assert await received_rooms(world, client, [room]) == [room]
    await leave(client, room)
    await wait_for_room(world, room, 0)
    assert await received_rooms(world, client, [room]) == []


async def test_changing_the_room_leaves_the_one_before(world: World, transport: str) -> None:
    first, second, third, joined = rooms = [new_room() for _ in range(4)]
    client = await world.session(new_key(), transport, rooms=[first])
    await join(client, joined)
    await change_room(client, second)
    assert await received_rooms(world, client, rooms) == [second, joined]
    await change_room(client, third)
    assert await received_rooms(world, client, rooms) == [third, joined]
    await change_room(client, "")
    assert await received_rooms(world, client, rooms) == [joined]


async def test_an_identity_joins_its_own_rooms_only(world: World, transport: str) -> None:
    key = new_key()
    token = await world.api.make_token(key, rooms=["team", "project-*"])
    client = await world.connect(transport)
    await client.auth({"token": token, "rooms": ["team", "project-1"]})
    await join(client, "project-2")
    for op in (JOIN, CHANGE_ROOM):
        reply = await client.ask(op, "teams")
        assert reply.op == op + 1
        assert reply.value["error"]["code"] == "room_forbidden"
    rooms = ["team", "project-1", "project-2", "teams"]
    assert await received_rooms(world, client, rooms) == rooms[:3]


async def test_auth_with_a_forbidden_room_is_refused(world: World, transport: str) -> None:
    key, room = new_key(), new_room()
    token = await world.api.make_token(key, rooms=[room])
    client = await world.connect(transport)
    ending = await client.refused({"token": token, "rooms": [room, "others"]})
    assert (ending.code, ending.frames) == (ROOM_FORBIDDEN, [])
    await world.wait_for_sessions(key, 0)
    assert room not in await world.api.rooms()


async def test_a_bad_room_name_is_answered_and_the_session_lives(
    world: World, transport: str
) -> None:
    client = await world.session(new_key(), transport)
    for name in ("", "x" * 256, ["a list"], "two\nlines"):
        reply = await client.ask(JOIN, name)
        assert reply.op == JOIN_REPLY
        assert reply.value["error"]["code"] == "bad_request"
    await client.heartbeat()


async def test_counts_are_sessions_of_all_nodes(world: World) -> None:
    room, key = new_room(), new_key()
    clients = [await world.session(key, node=node, rooms=[room]) for node in (0, 1, 1)]
    await wait_for_room(world, room, 3)
    members = await world.api.get(f"/api/v1/rooms/{room}")
    assert (members["sessions"], members["count"]) == (3, 3)
    assert {row["key"] for row in members["results"]} == {key}
    counts = await world.api.get("/1/count", type="room")
    assert counts["ret"] == 1
    assert {"RoomId": int(room), "Count": 3} in counts["data"]
    clients[0].abort()
    await wait_for_room(world, room, 2)


async def test_servers_are_counted(world: World) -> None:
    async def sessions_are(count: int) -> bool:
        answer = await world.api.get("/1/count", type="server")
        assert len(answer["data"]) == len(world.system.nodes)
        return sum(row["Count"] for row in answer["data"]) == count

    await eventually(lambda: sessions_are(0))
    clients = [await world.session(new_key(), node=node) for node in range(5)]
    await eventually(lambda: sessions_are(5))
    stats = await world.api.get("/api/v1/stats")
    assert (stats["nodes"], stats["sessions"]) == (len(world.system.nodes), 5)
    for client in clients[:2]:
        await client.close()
    await eventually(lambda: sessions_are(3))
