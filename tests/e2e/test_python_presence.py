"""Who is in a room, in the Python client, against real servers, over each transport."""

import json
from collections.abc import Awaitable, Callable, Iterator

import pytest

from imgo_client import Refused, Room
from tests import eventually

from .harness import System
from .test_python_client import make, opened
from .world import World, new_key, new_room

LEASE, GRACE, MOST = 3, 2, 3
SETTINGS = {
    "IMGO_ROOMS": json.dumps({"chat-*": {"presence": True}}),
    "IMGO_NODE_LEASE": str(LEASE),
    "IMGO_PRESENCE_GRACE": str(GRACE),
}

Enter = Callable[[System], Awaitable[World]]


@pytest.fixture(params=["ws", "tcp", "http"])
def scheme(request: pytest.FixtureRequest) -> str:
    """Each transport of the client."""
    return str(request.param)


@pytest.fixture(scope="module")
def small(make_embedded: Callable[..., System]) -> Iterator[System]:
    """A server that lists few members, and forgets them at once."""
    own = {"IMGO_PRESENCE_GRACE": "0.1", "IMGO_PRESENCE_MAX": str(MOST)}
    with make_embedded(**SETTINGS | own) as system:
        yield system


def watch(room: Room) -> list[str]:
    """What a room tells of its members, such as "join ann"."""
    events: list[str] = []
    for event in ("join", "leave", "change"):
        room.presence.on(event, lambda member, event=event: events.append(f"{event} {member.key}"))
    return events


def names(room: Room) -> dict[str, object]:
    """The names of all members but the watcher, by key."""
    members = [member for member in room.presence if member.key != "watcher"]
    return {member.key: member.info.get("name") for member in members}


@pytest.mark.long(but=["ws"])
async def test_the_list_follows_joins_infos_leaves_and_the_limit(
    small: System, enter: Enter, scheme: str
) -> None:
    world = await enter(small)
    ann, name = new_key(), f"chat-{new_room()}"
    client, log = make(world, scheme, await world.token("watcher"))
    room = client.room(name)
    events = watch(room)
    async with opened(client):
        await eventually(lambda: room.presence.count == 1)
        token = await world.api.make_token(ann, info={"name": "Ann"})
        raw = await world.connect("text")
        await raw.auth({"token": token, "rooms": [name]})
        await eventually(lambda: names(room) == {ann: "Ann"})
        token = await world.api.make_token(ann, info={"name": "Anna"})
        again = await world.connect("text")
        await again.auth({"token": token, "rooms": [name]})
        await eventually(lambda: names(room) == {ann: "Anna"})
        others = [await world.session(new_key(), rooms=[name]) for _ in range(MOST - 1)]
        await eventually(lambda: room.presence.truncated)
        assert (room.presence.count, list(room.presence)) == (MOST + 1, [])
        for other in others:
            await other.close()
        await eventually(lambda: names(room) == {ann: "Anna"})
        await again.close()
        await eventually(lambda: names(room) == {})
        assert (room.presence.count, room.presence.truncated) == (1, False)
    assert [event for event in events if ann in event] == [
        f"join {ann}",
        f"change {ann}",
        f"leave {ann}",
    ]
    assert [value for event, value in log if event == "error"] == []


@pytest.mark.long
async def test_over_the_end_of_a_node_only_what_differs_is_told(
    make_cluster: Callable[..., System],
    own_system: Callable[[System], System],
    enter: Enter,
    scheme: str,
) -> None:
    world = await enter(own_system(make_cluster(**SETTINGS)))
    name = f"chat-{new_room()}"
    client, log = make(world, scheme, await world.token("watcher"))
    room = client.room(name)
    events = watch(room)
    async with opened(client):
        await world.session("ann", node=1, rooms=[name])
        bob = await world.session("bob", node=1, rooms=[name])
        await eventually(lambda: names(room).keys() == {"ann", "bob"})
        events.clear()
        world.node(0).kill()
        await eventually(lambda: room.state == "joining")
        assert names(room).keys() == {"ann", "bob"}
        await bob.close()
        await world.session("eve", node=1, rooms=[name])
        await eventually(lambda: is_gone(world, name, "bob"))
        await world.node(0).start_beside()
        await eventually(lambda: names(room).keys() == {"ann", "eve"})
        assert events == ["leave bob", "join eve"]
        await world.session("kim", node=1, rooms=[name])
        await eventually(lambda: "join kim" in events)
    assert [value for event, value in log if event == "error" and isinstance(value, Refused)] == []


async def is_gone(world: World, room: str, key: str) -> bool:
    page = await world.api.get(f"/api/v1/rooms/{room}")
    return key not in {row["key"] for row in page["results"]}
