"""The resident link: sessions under other ASGI servers than ours, one with TLS."""

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from .frames import MESSAGE
from .harness import System, logs
from .servers import Daphne, Other, Uvicorn
from .test_races import vanish_at_any_time
from .test_slow_readers import BODY
from .world import World, new_key, new_room

UNAUTHORIZED = 4401

Enter = Callable[[System], Awaitable[World]]


@pytest.fixture(scope="module", params=[Uvicorn, Daphne])
def other(
    request: pytest.FixtureRequest, homes: Iterator[Path], sqlite_template: Path
) -> Iterator[System]:
    """Under one server after the other."""
    with Other(next(homes), sqlite_template, request.param) as system:
        yield system
    assert logs.complaints() == []


@pytest.fixture
async def world(other: System, enter: Enter) -> World:
    return await enter(other)


@pytest.fixture(params=["text", "binary"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_a_session_gets_what_it_missed_and_what_comes(world: World, kind: str) -> None:
    key, room = new_key(), new_room()
    await world.api.push({"key": key}, b'"missed"')
    client = await world.session(key, kind, rooms=[room])
    await world.api.push({"key": key}, b'"live"')
    assert await client.receive_bodies(2) == [b'"missed"', b'"live"']
    await world.api.push({"room": room}, b'"for the room"')
    assert await client.receive_bodies(1) == [b'"for the room"']
    await client.heartbeat()
    await world.wait_for_pending(key, 0)


@pytest.mark.long(but=["Uvicorn-text", "Daphne-binary"])
async def test_a_session_that_acknowledges_may_vanish_at_any_time(world: World, kind: str) -> None:
    await vanish_at_any_time(world, kind, rounds=30, pushes=60)


async def test_a_refused_client_is_told_why(world: World, kind: str) -> None:
    client = await world.connect(kind)
    ending = await client.refused("no token of ours")
    assert ending is not None
    assert ending.code == UNAUTHORIZED  # Daphne's close frames have no reason


async def test_a_session_that_leaves_is_forgotten(world: World, kind: str) -> None:
    key = new_key()
    client = await world.session(key, kind)
    await world.wait_for_sessions(key, 1)
    await client.close()
    await world.wait_for_sessions(key, 0)
    client = await world.session(key, kind)
    client.abort()
    await world.wait_for_sessions(key, 0)


async def test_a_large_message_arrives_whole(world: World, kind: str) -> None:
    key = new_key()
    client = await world.session(key, kind)
    await world.api.push({"key": key}, BODY)
    frame = await client.receive()
    assert (frame.op, frame.body) == (MESSAGE, BODY)
