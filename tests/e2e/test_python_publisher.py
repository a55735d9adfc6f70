"""The Python publishers against real servers: what is accepted is counted once and delivered."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from imgo_client import (
    AsyncPublisher,
    BadRequest,
    Forbidden,
    NotAuthenticated,
    NotFound,
    Publisher,
    Push,
    Retry,
    TooLarge,
)
from tests import eventually

from .clients import Client
from .harness import Embedded, System, manage
from .world import World, new_key, new_room

# The calls to an API process of a cluster are in test_publisher_coverage.py.
ONE_NODE_PROVES = True

PATIENT = Retry(attempts=100, total=60, backoff=(0.05, 0.3))


@pytest.fixture(params=["embedded", "cluster"])
def system(request: pytest.FixtureRequest) -> System:
    """A publisher does not see where sessions are."""
    system: System = request.getfixturevalue(request.param)
    return system


@pytest.fixture
async def publisher(world: World) -> AsyncIterator[AsyncPublisher]:
    """A publisher whose API key has every scope."""
    system = world.system
    async with AsyncPublisher(system.api_url, system.api_key, trust_env=False) as made:
        yield made


async def bodies(client: Client, count: int) -> list[Any]:
    """The next ones, as values."""
    return [(await client.receive()).value for _ in range(count)]


async def test_every_target_and_every_way(world: World, publisher: AsyncPublisher) -> None:
    key, room = new_key(), new_room()
    client = await world.session(key, "text", rooms=[room])
    results = [
        await publisher.push({"n": 1}, key=key),
        *await publisher.push_many([Push(2, keys=[key, new_key()]), Push(b" 3 ", room=room)]),
        *[
            result
            async for result in publisher.stream([Push(4, key=key, op=1_000), Push(5, key="\0")])
        ],
    ]
    assert sorted(await bodies(client, 4), key=str) == [2, 3, 4, {"n": 1}]
    ids = [result.id for result in results]
    assert all(ids[:4])
    assert ids[4] == 0
    assert isinstance(results[4].error, BadRequest)
    record = await world.api.get(f"/api/v1/pushes/{ids[0]}")
    assert (record["id"], record["count"]) == (str(ids[0]), 1)


@pytest.mark.parametrize("name", ["plain", "a/b ?#%", "..", "żółć"])
async def test_publisher_calls_cover_keys_rooms_tokens_and_results(
    world: World, publisher: AsyncPublisher, name: str
) -> None:
    key, room = f"{name}{new_key()}", f"{new_room()}{name}"
    made = await publisher.create_token(key, expires_in=600, rooms=[room])
    assert (made["key"], made["rooms"]) == (key, [room])
    client = await world.connect("text")
    await client.auth({"token": made["token"], "rooms": [room], "ack": True})
    accepted = await publisher.push("hello", key=key)

    def look() -> dict[str, Any]:
        with Publisher(world.system.api_url, world.system.api_key, trust_env=False) as plain:
            return {
                "key": plain.key(key),
                "room": plain.room(room),
                "rooms": plain.rooms(limit=1000)["results"],
                "nodes": plain.nodes()["count"],
                "sessions": plain.stats()["sessions"],
                "token": plain.token(key)["key"],
                "tokens": plain.tokens()["count"],
                "result": plain.result(accepted.id)["results"][0]["key"],
            }

    state = await asyncio.to_thread(look)
    assert [one["transport"] for one in state["key"]["sessions"]] == ["websocket"]
    assert [one["key"] for one in state["room"]["results"]] == [key]
    assert {"room": room, "sessions": 1} in state["rooms"]
    assert (state["token"], state["result"]) == (key, key)
    assert min(state["nodes"], state["sessions"], state["tokens"]) >= 1
    assert await publisher.kick(key) == 1
    assert await client.ended()
    await publisher.revoke_token(key)
    with pytest.raises(NotFound):
        await publisher.token(key)


async def test_the_plain_one_does_the_same(world: World) -> None:
    key = new_key()

    def push() -> list[Any]:
        with Publisher(world.system.api_url, world.system.api_key, trust_env=False) as publisher:
            return [
                publisher.push(1, key=key, ttl=60),
                *publisher.push_many(Push(n, key=key) for n in (2, 3)),
                *publisher.stream((Push(n, key=key) for n in range(4, 1_004)), piece=300),
            ]

    results = await asyncio.to_thread(push)
    ids = [result.id for result in results]
    assert ids == sorted(set(ids))
    assert len(ids) == 1_003


async def test_a_push_that_is_repeated_is_counted_once(
    world: World, publisher: AsyncPublisher
) -> None:
    key = new_key()
    pushes = [Push(n, key=key) for n in range(3)]
    first = await publisher.push_many(pushes)
    again = [one async for one in publisher.stream(pushes)]
    once_more = await publisher.push(9, key=key, dedupe_id=pushes[0].dedupe_id)
    assert [one.id for one in again] == [one.id for one in first]
    assert once_more.id == first[0].id
    assert await world.api.pending(key) == 3


async def test_refusals_have_their_own_exceptions(world: World, publisher: AsyncPublisher) -> None:
    with pytest.raises(BadRequest, match="ttl must be from 1"):
        await publisher.push(1, key="u1", ttl=0)
    with pytest.raises(TooLarge, match="A body has at most"):
        await publisher.push("x" * 70_000, key="u1")
    url = world.system.api_url
    async with AsyncPublisher(url, "wrong", trust_env=False) as stranger:
        with pytest.raises(NotAuthenticated) as caught:
            await stranger.push(1, key="u1")
        assert caught.value.problem["status"] == 401
    key = manage(world.system.environment, "apikey", new_key(), "--scope", "read")
    async with AsyncPublisher(url, key.split()[-1], trust_env=False) as reader:
        with pytest.raises(Forbidden):
            await reader.push(1, key="u1")


@pytest.mark.long
async def test_a_restart_in_the_middle_loses_no_push_and_doubles_none(
    make_embedded: Callable[..., Embedded], own_system: Callable[[System], System], enter: Any
) -> None:
    system = own_system(make_embedded())
    world = await enter(system)
    key, count = new_key(), 300
    got: list[Any] = []

    async def work(number: int, publisher: AsyncPublisher) -> None:
        ways: list[Callable[[int], Any]] = [
            lambda n: publisher.push(n, key=key),
            lambda n: publisher.push_many([Push(n, key=key)]),
            lambda n: anext(publisher.stream([Push(n, key=key)])),
        ]
        for n in range(number, count, 3):
            await ways[number](n)
            got.append(n)

    async with AsyncPublisher(
        system.api_url, system.api_key, retry=PATIENT, trust_env=False
    ) as publisher:
        working = [asyncio.ensure_future(work(number, publisher)) for number in range(3)]
        await eventually(lambda: len(got) > 20)
        system.nodes[0].kill()
        await system.nodes[0].start_beside()
        await asyncio.gather(*working)
    assert await world.api.pending(key) == count
    client = await world.session(key, "text")
    assert sorted(await bodies(client, count)) == list(range(count))
