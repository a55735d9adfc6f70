"""Clients that vanish at any moment and come back: nothing is lost, and all is in order."""

import asyncio
import random
from collections import defaultdict

import pytest

from push.accept.accept import Push
from tests import in_thread
from tests.push.conftest import push_now

ROUNDS = 12


def source_of(frame: dict) -> str:
    return frame.get("room", "the key")


async def push(draw: random.Random, sources: list[str], pushed: dict[str, list[int]]) -> None:
    """Push a few messages to each source in turn, the next number to each."""
    for _ in range(draw.randint(1, 6)):
        source = draw.choice(sources)
        number = len(pushed[source])
        pushed[source].append(number)
        to = {"keys": ("u1",)} if source == "the key" else {"room": source}
        await in_thread(push_now, Push(b"%d" % number, **to))


def note(frame: dict, got: dict[str, list[int]]) -> None:
    """Keep a number; it may have come before, and if it did not, it is the next one."""
    numbers, number = got[source_of(frame)], frame["body"]
    if number >= len(numbers):
        assert number == len(numbers), (source_of(frame), numbers[-3:], number)
        numbers.append(number)


@pytest.mark.long(but=["production direct-True-2-0", "embedded resident-False-1-0"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rooms", [["chat-1"], ["chat-1", "chat-2"], []], ids=len)
@pytest.mark.parametrize("with_key", [True, False])
async def test_a_client_that_vanishes_anywhere_misses_nothing(stream, rooms, with_key, seed):
    sources = [*rooms, *(["the key"] if with_key or not rooms else [])]
    draw = random.Random(seed)
    pushed: dict[str, list[int]] = defaultdict(list)
    got: dict[str, list[int]] = defaultdict(list)
    query = "&".join(f"rooms={room}" for room in rooms)
    last_id = ""
    for _ in range(ROUNDS):
        one = await stream(query, **({"last-event-id": last_id} if last_id else {}))
        if last_id:
            assert all(one.rooms[room]["recovered"] for room in rooms)
        pushing = asyncio.create_task(push(draw, sources, pushed))
        for _ in range(draw.randint(1, 8)):
            try:
                block = await asyncio.wait_for(one.block(), 0.3)
            except TimeoutError:
                break
            if block.data:
                note(block.value, got)
        last_id = one.last_id or last_id
        await pushing
        await one.leave()
    one = await stream(query, **({"last-event-id": last_id} if last_id else {}))
    await push(draw, sources, pushed)
    while got != pushed:
        note(await one.event(), got)
