"""Who is in a room: over each transport, and over ends of nodes and losses of Redis."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest
import redis

from tests import eventually
from tests.push.presence.client import Picture

from .frames import JOIN
from .harness import System, manage
from .world import World, new_key, new_room

PRESENCE, PRESENCE_REPLY, PRESENCE_DIFF = 26, 27, 28
LEASE, GRACE = 3, 2
POLICIES = {
    "chat-*": {"presence": True},
    "kept-*": {"presence": True, "history": 10},
    "quiet-*": {"presence": True, "presence_events": False},
}
SETTINGS = {
    "IMGO_ROOMS": json.dumps(POLICIES),
    "IMGO_PRESENCE_GRACE": str(GRACE),
    "IMGO_NODE_LEASE": str(LEASE),
}

Enter = Callable[[System], Awaitable[World]]


@pytest.fixture(scope="module")
def server(make_embedded: Callable[..., System]) -> Iterator[System]:
    """One node whose rooms have presence."""
    with make_embedded(**SETTINGS | {"IMGO_PRESENCE_GRACE": "0.2"}) as system:
        yield system


@pytest.fixture
async def world(server: System, enter: Enter) -> World:
    return await enter(server)


@pytest.fixture
async def cluster_world(make_cluster, own_system, enter: Enter) -> World:
    """Two nodes of this test's own."""
    return await enter(own_system(make_cluster(**SETTINGS)))


class Watcher:
    """A session that keeps a picture of a room. `resets`: diffs with all members."""

    def __init__(self, client: Any, room: str) -> None:
        self.client = client
        self.room = room
        self.picture = Picture()
        self.resets = 0
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def join(cls, world: World, room: str, door: str = "text", node: int = 0) -> "Watcher":
        client = await world.session("watcher", door, node, rooms={room: {}})
        view = cls(client, room)
        await client.send(PRESENCE, room)
        while (frame := await client.receive()).op != PRESENCE_REPLY:
            assert frame.op == PRESENCE_DIFF
        view.picture.snapshot(frame.body)
        view._task = asyncio.create_task(view._follow())
        return view

    async def _follow(self) -> None:
        while True:
            try:
                frame = await self.client.receive(timeout=300)
            except Exception:  # noqa: BLE001 - the test has closed it
                return
            if frame.op == PRESENCE_DIFF and frame.value["room"] == self.room:
                self.resets += frame.value.get("reset", False)
                self.picture.diff(frame.body)

    @property
    def keys(self) -> set[str]:
        """The others in the room."""
        assert self.picture.members is not None
        return self.picture.members.keys() - {"watcher"}

    async def until(self, *keys: str, timeout: float = 30) -> None:
        await eventually(lambda: self.keys == set(keys), timeout)


async def ask(client: Any, op: int, body: Any) -> Any:
    """The body of the reply; diffs before it are dropped."""
    seq = await client.send(op, body)
    while (frame := await client.receive()).seq != seq:
        assert frame.op == PRESENCE_DIFF
    return frame.value


async def test_members_come_and_go_over_each_transport(world: World, transport: str) -> None:
    room, key = f"chat-{new_room()}", new_key()
    watcher = await Watcher.join(world, room, transport)
    token = await world.api.make_token(key, info={"name": "Ann"})
    client = await world.connect(transport)
    await client.auth({"token": token, "rooms": [room]})
    await watcher.until(key)
    assert watcher.picture.members is not None
    assert watcher.picture.members[key] == {"name": "Ann"}
    state = await ask(client, PRESENCE, room)
    assert {row["key"] for row in state["members"]} == {"watcher", key}
    await client.close()
    await watcher.until()
    assert watcher.picture.left == [key]


async def test_presence_goes_with_history_and_may_be_declined(world: World) -> None:
    room = f"kept-{new_room()}"
    watcher = await Watcher.join(world, room)
    client = await world.session(new_key(), "text")
    reply = await client.ask(JOIN, {room: {"presence": False, "rewind": 1}})
    assert reply.value.keys() == {"epoch", "offset"}
    deaf = await world.session("deaf", "text")
    await deaf.ask(JOIN, room)
    quiet = f"quiet-{new_room()}"
    await deaf.ask(JOIN, {quiet: {}})
    await eventually(lambda: len(watcher.keys) == 2)
    assert (await deaf.ask(PRESENCE, room)).value["count"] == 3
    assert (await deaf.ask(PRESENCE, quiet)).value["count"] == 1
    assert (await client.ask(PRESENCE, room)).value["count"] == 3


async def test_questions_that_are_refused_say_why(world: World, transport: str) -> None:
    client = await world.session(new_key(), transport, rooms=["plain"])
    for body, code in (
        ("chat-elsewhere", "room_forbidden"),
        ("plain", "not_found"),
        ("", "bad_request"),
        ({"room": "plain"}, "bad_request"),
        (["plain"], "bad_request"),
    ):
        reply = await client.ask(PRESENCE, body)
        assert (reply.op, reply.value["error"]["code"]) == (PRESENCE_REPLY, code)
    for name, body in (("join", {"chat-1": {"presence": 1}}), ("join", {"chat-1": 5})):
        assert (await client.ask(JOIN, body)).value["error"]["code"] == "bad_request", name
    await client.heartbeat()


async def test_info_is_the_token_s_and_never_the_client_s(world: World) -> None:
    room = f"chat-{new_room()}"
    watcher = await Watcher.join(world, room)
    client = await world.connect("text")
    token = await world.token("forger")
    await client.auth({"token": token, "info": {"name": "Admin"}, "rooms": {room: {}}})
    refused = await ask(client, JOIN, {"chat-9": {"info": {"name": "Admin"}}})
    assert refused["error"]["code"] == "bad_request"
    await watcher.until("forger")
    assert watcher.picture.members is not None
    assert watcher.picture.members["forger"] == {}
    answer = await world.api.get("/api/v1/keys/forger")
    assert answer["online"]
    for info in ({"x": "y" * 1_100}, ["Ann"]):
        refused = await world.api.http.post("/api/v1/tokens", json={"key": "x", "info": info})
        assert refused.status_code == 400


async def test_events_carry_presence_and_posts_ask_for_it(world: World) -> None:
    room, key = f"chat-{new_room()}", new_key()
    token = await world.token(key)
    headers = {"Authorization": f"Bearer {token}"}
    url = f"{world.node().url}/sub/events"
    async with (
        httpx.AsyncClient(headers=headers, trust_env=False, timeout=30) as http,
        http.stream("GET", url, params={"rooms": room}) as stream,
    ):
        lines = stream.aiter_lines()

        async def data_of(kind: str) -> Any:
            async for line in lines:
                if line == f"event: {kind}":
                    return json.loads((await anext(lines)).removeprefix("data: "))
            raise AssertionError("the stream has ended")

        session = (await data_of("open"))["session"]
        await world.session("other", "text", rooms=[room])
        joined: set[str] = set()
        while "other" not in joined:
            frame = await data_of("imgo")
            assert frame["op"] == PRESENCE_DIFF
            joined |= {row["key"] for row in frame["body"]["joined"]}
        answer = await http.post(f"{url}/{session}", json={"op": 26, "seq": 7, "body": room})
        assert answer.status_code == 202
        while (frame := await data_of("imgo"))["op"] != PRESENCE_REPLY:
            pass
        assert (frame["seq"], frame["body"]["count"]) == (7, 2)


async def test_callers_page_the_keys(world: World) -> None:
    room = f"chat-{new_room()}"
    keys = sorted(f"{room}-{n}" for n in range(3))
    for key in keys:
        await world.session(key, rooms=[room])
    page = await world.api.get(f"/api/v1/rooms/{room}", limit=2, offset=1)
    assert [row["key"] for row in page["results"]] == keys[1:]
    assert (page["count"], page["sessions"]) == (3, 3)
    count = await world.api.get(f"/api/v1/rooms/{room}", limit=0)
    assert (count["count"], count["results"]) == (3, [])
    assert keys[0] in manage(world.system.nodes[0].environment, "rooms", room)
    assert (await world.api.get("/api/v1/rooms", room=room))["count"] == 3


# Several nodes


@pytest.mark.long
async def test_a_killed_node_costs_one_leave_for_each_of_its_keys(cluster_world: World) -> None:
    world, room = cluster_world, f"chat-{new_room()}"
    watcher = await Watcher.join(world, room, node=0)
    keys = [new_key() for _ in range(20)]
    for key in keys:
        await world.session(key, node=1, rooms=[room])
    both = new_key()
    for node in (0, 1):
        await world.session(both, node=node, rooms=[room])
    await watcher.until(*keys, both)
    world.node(1).kill()
    killed = time.monotonic()
    await watcher.until(both)
    assert time.monotonic() - killed < LEASE + 5
    assert sorted(watcher.picture.left) == sorted(keys)
    assert (await world.api.get(f"/api/v1/rooms/{room}"))["count"] == 2


@pytest.mark.long
async def test_after_a_loss_of_redis_the_picture_is_right_again(cluster_world: World) -> None:
    world, room = cluster_world, f"chat-{new_room()}"
    watcher = await Watcher.join(world, room, node=0)
    keys = [new_key() for _ in range(10)]
    clients = [await world.session(key, node=1, rooms=[room]) for key in keys]
    await watcher.until(*keys)
    with redis.Redis.from_url(world.system.redis.url) as client:
        client.flushall()
    await eventually(lambda: watcher.resets == 1)
    assert (watcher.picture.left, watcher.keys) == ([], set(keys))
    await clients[0].close()
    await watcher.until(*keys[1:])
    world.system.redis.kill()
    await clients[1].close()
    await asyncio.sleep(GRACE)
    world.system.redis.start()
    await watcher.until(*keys[2:])
    assert set(watcher.picture.left) <= set(keys[:2])


@pytest.mark.long
async def test_a_rolling_restart_causes_no_leave(cluster_world: World) -> None:
    """Clients of a node that stops come back to the other within the grace."""
    world, room = cluster_world, f"chat-{new_room()}"
    watcher = await Watcher.join(world, room, node=0)
    keys = [new_key() for _ in range(10)]
    clients = {key: await world.session(key, node=1, rooms=[room]) for key in keys}
    await watcher.until(*keys)

    async def come_back(key: str) -> None:
        await clients[key].ended()
        clients[key] = await world.session(key, node=0, rooms=[room])

    backs = [asyncio.create_task(come_back(key)) for key in keys]
    await asyncio.to_thread(world.node(1).stop)
    await asyncio.gather(*backs)
    await world.node(1).start_beside()
    await asyncio.sleep(GRACE + 3)  # a false leave would have come by now
    assert (watcher.picture.left, watcher.keys) == ([], set(keys))
    gone = new_key()
    await world.session(gone, node=1, rooms=[room])
    await watcher.until(*keys, gone)
    await asyncio.to_thread(world.node(1).stop)
    await watcher.until(*keys)
    assert watcher.picture.left == [gone]
    await world.node(1).start_beside()
