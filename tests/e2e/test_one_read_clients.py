"""imgo's Java client takes what one `read()` returns for one frame: it must lose nothing by that.

`ONE_READ_CONNECTS` (1,000 for a measurement) and `ONE_READ_GAP` change how much is tried, and the
pause between two frames. A client whose process gets no CPU for that long cannot read in time, so
the pause is longer here than the default.
"""

import asyncio
import contextlib
import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from .api_client import encoded_push
from .frames import AUTH, AUTH_REPLY, HEARTBEAT, HEARTBEAT_REPLY, MESSAGE, Frame, pack, unpack
from .harness import HOST, Embedded, System
from .world import World, new_key, new_room

CONNECTS = int(os.environ.get("ONE_READ_CONNECTS", "12"))
GAP = os.environ.get("ONE_READ_GAP", "0.5")
PENDING_MAX = 50 if CONNECTS > 100 else 3
TOGETHER = 12  # clients that connect at the same time
READ_MAX = 65_536  # bytes of one read
TIMEOUT = 10.0  # seconds

Enter = Callable[[System], Any]


@pytest.fixture(scope="module")
def pacing(make_embedded: Callable[..., Embedded]) -> Iterator[System]:
    """A node with a longer pause between two frames."""
    with make_embedded(IMGO_TCP_FRAME_GAP=GAP) as system:
        yield system


class OneRead:
    """The habit of imgo's Java client. What it cannot make sense of is garbled."""

    def __init__(self, port: int, body: bytes) -> None:
        self.garbled = 0  # reads
        self.frames = 0  # that the server has sent, read in time or not
        self._socket = socket.create_connection((HOST, port), timeout=TIMEOUT)
        self._socket.sendall(pack(AUTH, 1, body))

    def frame(self) -> Frame | None:
        """Return the first frame of the next read; None if more or less than one was in it."""
        frames, rest = unpack(self._socket.recv(READ_MAX))
        self.frames += len(frames)
        if len(frames) != 1 or rest:
            self.garbled += 1
            return None
        return frames[0]

    def read(self, count: int) -> list[Frame | None]:
        """Read until the server has sent `count` frames, then close the connection."""
        reads = []
        with contextlib.closing(self._socket), contextlib.suppress(TimeoutError):
            while self.frames < count:
                reads.append(self.frame())
        return reads

    def send(self, op: int, seq: int) -> None:
        """Send a frame without a body."""
        self._socket.sendall(pack(op, seq))


async def push_many(world: World, key: str, count: int) -> None:
    """Push the numbers up to `count`."""
    if count:
        await world.api.push_many([encoded_push({"key": key}, n) for n in range(count)])


def read_replay(port: int, token: str, count: int) -> tuple[int, list[bytes]]:
    """Connect and read as many messages as were pending: garbled reads, and the bodies."""
    client = OneRead(port, token.encode())
    frames = client.read(1 + count)
    bodies = [frame.body for frame in frames if frame is not None and frame.op == MESSAGE]
    return client.garbled, bodies


async def test_one_read_client_loses_nothing_of_its_replay(pacing: System, enter: Enter) -> None:
    world: World = await enter(pacing)
    draw = random.Random(CONNECTS)
    jobs = []
    for _ in range(CONNECTS):
        key, count = new_key(), draw.randint(0, PENDING_MAX)
        token = await world.token(key)
        await push_many(world, key, count)
        jobs.append((token, count))
    with ThreadPoolExecutor(TOGETHER) as threads:
        port = pacing.nodes[0].tcp_port
        results = list(threads.map(lambda job: read_replay(port, *job), jobs))
    lost = sum(count - len(bodies) for (_, count), (_, bodies) in zip(jobs, results, strict=True))
    garbled = sum(garbled for garbled, _ in results)
    assert (lost, garbled) == (0, 0), f"of {sum(count for _, count in jobs)} messages"
    for (_, count), (_, bodies) in zip(jobs, results, strict=True):
        assert bodies == [b"%d" % n for n in range(count)]


async def test_one_read_client_gets_live_pushes_and_replies_one_by_one(
    pacing: System, enter: Enter
) -> None:
    world: World = await enter(pacing)
    key = new_key()
    token = await world.token(key)
    client = await asyncio.to_thread(OneRead, pacing.nodes[0].tcp_port, token.encode())
    reading = asyncio.create_task(asyncio.to_thread(client.read, 7))
    await world.wait_for_sessions(key, 1)
    await asyncio.gather(*(world.api.push({"key": key}, n) for n in range(5)))
    client.send(HEARTBEAT, 7)
    frames = [frame for frame in await reading if frame is not None]
    assert client.garbled == 0
    assert frames[0].op == AUTH_REPLY
    bodies = sorted(frame.body for frame in frames if frame.op == MESSAGE)
    assert bodies == [b"%d" % n for n in range(5)]
    assert [frame.seq for frame in frames if frame.op == HEARTBEAT_REPLY] == [7]


async def test_session_with_an_auth_object_is_not_paced(pacing: System, enter: Enter) -> None:
    world: World = await enter(pacing)
    seconds = {}
    for auth in ({}, {"rooms": [new_room()]}):
        key = new_key()
        await push_many(world, key, 4)
        token = await world.token(key)
        client = await world.connect("tcp")
        begin = time.monotonic()
        await client.auth({"token": token, **auth} if auth else token)
        assert len(await client.receive_bodies(4)) == 4
        seconds[bool(auth)] = time.monotonic() - begin
    assert seconds[True] < seconds[False]
    assert seconds[False] > 3 * float(GAP)
