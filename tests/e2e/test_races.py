"""Pushes that race connects and disconnects: nothing lost, nothing twice in a session, in order."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from .clients import TRANSPORTS, Client, Closed
from .frames import Frame
from .harness import Cluster, System
from .world import World, new_key

RECONNECTS = 150
PUSHES = 300
# The short set proves each race with fewer rounds.
SIZES = pytest.mark.parametrize(
    ("rounds", "pushes"),
    [
        pytest.param(15, 30, id="some"),
        pytest.param(RECONNECTS, PUSHES, id="many", marks=pytest.mark.long),
    ],
)


class Receipts:
    """What one key received, session by session, checked as it comes."""

    def __init__(self) -> None:
        self.sessions: list[list[int]] = []

    def new_session(self) -> None:
        self.sessions.append([])

    def add(self, frame: Frame) -> None:
        number = frame.value["n"]
        before = self.sessions[-1]
        assert not before or number > before[-1], f"{number} came after {before[-10:]}"
        before.append(number)

    @property
    def first_receipts(self) -> list[int]:
        """Each number once, in the order in which it came first."""
        return list(dict.fromkeys(itertools.chain.from_iterable(self.sessions)))


async def push_all(world: World, key: str, count: int) -> list[int]:
    """Push the numbers, some at once and some one by one, while the client comes and goes."""
    return [await world.api.push({"key": key}, {"n": n, "to": key}) for n in range(count)]


async def read_to_the_end(client: Client, receipts: Receipts) -> None:
    """Say that nothing more will come from here, and take what the server has still sent."""
    client.finish()
    try:
        while True:
            receipts.add(await client.receive())
    except Closed:
        pass
    await client.close()


async def receive_until_quiet(world: World, key: str, client: Any, receipts: Receipts) -> None:
    """Receive until nothing is pending for the key."""
    while True:
        try:
            frame = await client.receive(0.5)
        except TimeoutError:
            if await world.api.pending(key) == 0:
                return
        else:
            receipts.add(frame)
            if frame.id:
                await client.ack(frame)


@SIZES
async def test_a_session_that_reads_to_its_end_misses_nothing(
    world: World, transport: str, rounds: int, pushes: int
) -> None:
    key = new_key()
    await world.token(key)
    receipts = Receipts()
    pushing = asyncio.create_task(push_all(world, key, pushes))
    reconnects = 0
    while reconnects < rounds or not pushing.done():
        receipts.new_session()
        client = await world.session(key, transport, node=reconnects)
        for _ in range(reconnects % 4):
            try:
                receipts.add(await client.receive(0.01))
            except TimeoutError:
                break
        await read_to_the_end(client, receipts)
        reconnects += 1
    await pushing
    receipts.new_session()
    await receive_until_quiet(world, key, await world.session(key, transport), receipts)
    assert receipts.first_receipts == list(range(pushes))


async def vanish_at_any_time(world: World, kind: str, rounds: int, pushes: int) -> None:
    """Come and go as a session that acknowledges, while pushes come: none is lost."""
    key = new_key()
    await world.token(key)
    receipts = Receipts()
    pushing = asyncio.create_task(push_all(world, key, pushes))
    ids: set[int] = set()
    reconnects = 0
    while reconnects < rounds or not pushing.done():
        receipts.new_session()
        client = await world.session(key, kind, node=reconnects, ack=True)
        for place in range(reconnects % 5):
            try:
                frame = await client.receive(0.02)
            except TimeoutError:
                break
            receipts.add(frame)
            ids.add(frame.id)
            if place < 3:
                await client.ack(frame)
        client.abort()
        reconnects += 1
    accepted = await pushing
    receipts.new_session()
    final = await world.session(key, kind, ack=True)
    await receive_until_quiet(world, key, final, receipts)
    assert receipts.first_receipts == list(range(pushes))
    assert ids <= set(accepted)


@pytest.mark.parametrize("kind", ["text", "binary"])
@SIZES
async def test_a_session_that_acknowledges_may_vanish_at_any_time(
    world: World, kind: str, rounds: int, pushes: int
) -> None:
    await vanish_at_any_time(world, kind, rounds, pushes)


async def test_a_device_that_comes_back_takes_nothing_from_one_that_is_there(
    cluster: Cluster, enter: Callable[[System], Awaitable[World]]
) -> None:
    """What a device is replayed before the worker's turn still goes to the others, live."""
    world = await enter(cluster)
    key = new_key()
    staying = [await world.session(key, t, node) for node, t in enumerate(TRANSPORTS)]
    for client in staying:
        await client.heartbeat()  # answered behind the replay, which might bring the message too
    with cluster.worker.paused():
        await world.api.push({"key": key}, b'"for all devices"')
        returning = await world.session(key, "tcp", node=1)
        assert await returning.receive_bodies(1) == [b'"for all devices"']
        await world.wait_for_pending(key, 0)
    await world.api.push({"key": key}, b'"the end"')
    assert await returning.receive_bodies(1) == [b'"the end"']
    for client in staying:
        assert await client.receive_bodies(2) == [b'"for all devices"', b'"the end"']


@SIZES
async def test_sessions_that_come_and_go_do_not_disturb_one_that_stays(
    world: World, rounds: int, pushes: int
) -> None:
    key = new_key()
    staying = await world.session(key, "text")
    pushing = asyncio.create_task(push_all(world, key, pushes))
    passed = 0
    while passed < rounds or not pushing.done():
        passing = await world.session(key, "tcp", node=1)
        passing.abort()
        passed += 1
    await pushing
    bodies = await staying.receive_bodies(pushes)
    assert bodies == [b'{"n": %d, "to": "%b"}' % (n, key.encode()) for n in range(pushes)]
