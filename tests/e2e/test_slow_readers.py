"""A client that does not read: closed at its byte budget, its messages kept, the others unhurt."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from tests import eventually

from .api_client import encoded_push
from .frames import HEARTBEAT
from .harness import Embedded, System
from .world import World, new_key

BUDGET = 64 * 1024  # bytes
BODY = b'"' + b"x" * 50_000 + b'"'
ARRAY = 50  # pushes in one request
PUSHES = 200  # more than the kernel's buffers of both sides hold
RECEIVE_BUFFER = 4096  # bytes

Enter = Callable[[System], Awaitable[World]]


@pytest.fixture(scope="module")
def tight(make_embedded: Callable[..., Embedded]) -> Iterator[System]:
    """A node whose sessions have a small byte budget."""
    with make_embedded(IMGO_SESSION_BYTES=str(BUDGET)) as system:
        yield system


async def slow_session(world: World, key: str, transport: str, **auth: Any) -> Any:
    """A session on a connection whose kernel keeps little."""
    options = {"receive_buffer": RECEIVE_BUFFER} if transport == "tcp" else {}
    client = await world.connect(transport, **options)
    return await client.auth({"token": await world.token(key), **auth})


async def push_too_much(world: World, key: str) -> list[int]:
    """Push more than a session that does not read can be sent."""
    pushes = [encoded_push({"key": key}, BODY)] * ARRAY
    return [
        push_id for _ in range(PUSHES // ARRAY) for push_id in await world.api.push_many(pushes)
    ]


@pytest.mark.parametrize(
    ("transport", "beats"), [("tcp", False), ("tcp", True), ("text", False), ("binary", False)]
)
@pytest.mark.long(but=["binary-False"])
async def test_a_slow_reader_is_closed_and_its_messages_are_kept(
    tight: System, enter: Enter, transport: str, beats: bool
) -> None:
    world = await enter(tight)
    key, other = new_key(), new_key()
    slow = await slow_session(world, key, transport, ack=True)
    brisk = await world.session(other, transport)

    async def beat() -> None:
        while True:
            await slow.send(HEARTBEAT)
            await asyncio.sleep(0.05)  # its pace

    beating = asyncio.create_task(beat()) if beats else None
    ids = await push_too_much(world, key)
    await world.wait_for_sessions(key, 0, timeout=10)
    if beating:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
    took = []
    for _ in range(5):  # one of them at once: a machine may be busy
        start = time.monotonic()
        await world.api.push({"key": other}, b'"for the brisk one"')
        assert await brisk.receive_bodies(1) == [b'"for the brisk one"']
        took.append(time.monotonic() - start)
    assert min(took) < 1
    assert await world.api.pending(key) == PUSHES

    back = await world.session(key, transport, ack=True)
    received = [await back.receive() for _ in range(PUSHES)]
    assert [frame.id for frame in received] == ids
    for start in range(0, PUSHES, 50):  # a frame's body has 1024 bytes at most
        await back.ack(*received[start : start + 50])
    await world.wait_for_pending(key, 0)


@pytest.mark.long
async def test_an_old_clients_messages_that_it_was_not_sent_are_kept(
    tight: System, enter: Enter
) -> None:
    """It cannot acknowledge: what the kernel took counts, what it did not take is replayed."""
    world = await enter(tight)
    key = new_key()
    slow = await slow_session(world, key, "tcp")
    for number in range(PUSHES):
        await world.api.push({"key": key}, b'%b%03d"' % (BODY[:-1], number))
    await world.wait_for_sessions(key, 0, timeout=10)
    back = await world.session(key, "text")
    numbers: list[int] = []
    while not numbers or numbers[-1] != PUSHES - 1:
        (body,) = await back.receive_bodies(1)
        numbers.append(int(body[-4:-1]))
    assert numbers[0] > 0
    assert numbers == list(range(numbers[0], PUSHES))
    slow.abort()


@pytest.mark.long
async def test_a_long_replay_waits_for_a_reader_that_takes_its_time(
    tight: System, enter: Enter, transport: str
) -> None:
    """More is pending than the budget holds: pages are read when the client has taken them."""
    world = await enter(tight)
    key = new_key()
    body = b'"' + b"y" * 200 + b'"'
    for _ in range(3):
        pushes = [b'{"to":{"key":"%b"},"body":%b}' % (key.encode(), body) for _ in range(200)]
        await world.api.push_many(pushes)
    client = await slow_session(world, key, transport)
    assert await client.receive_bodies(600) == [body] * 600
    await world.wait_for_pending(key, 0)
    await client.heartbeat()


async def test_a_replay_larger_than_the_budget_is_sent_to_one_that_reads(
    tight: System, enter: Enter, transport: str
) -> None:
    world = await enter(tight)
    key = new_key()
    for _ in range(5):
        await world.api.push({"key": key}, BODY)
    client = await world.session(key, transport)
    assert await client.receive_bodies(5) == [BODY] * 5
    await world.wait_for_pending(key, 0)


@pytest.mark.long
async def test_a_session_that_never_reads_its_replay_is_closed(
    make_embedded: Callable[..., Embedded],
    own_system: Callable[[System], System],
    enter: Enter,
) -> None:
    world = await enter(own_system(make_embedded(IMGO_HEARTBEAT_TIMEOUT="2")))
    key = new_key()
    await push_too_much(world, key)
    slow = await slow_session(world, key, "tcp", ack=True)
    await world.wait_for_sessions(key, 0, timeout=15)
    assert await world.api.pending(key) == PUSHES
    slow.abort()


@pytest.mark.long
async def test_idle_node_notices_a_client_that_vanished_during_a_send(
    tight: System, enter: Enter, transport: str
) -> None:
    world = await enter(tight)
    key = new_key()
    slow = await slow_session(world, key, transport, ack=True)
    for _ in range(PUSHES):
        await world.api.push({"key": key}, BODY)
    slow.abort()

    async def is_gone() -> bool:
        return await world.api.sessions(key) == 0

    await eventually(is_gone)
    assert await world.api.pending(key) == PUSHES
