"""The number of partitions changes under load: nothing is lost, doubled or out of order."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from tests import PATIENCE, eventually

from .api_client import encoded_push
from .harness import Cluster, Embedded, System, Workers, manage
from .world import World, new_key

KEYS = 12
UNSWEPT = {"IMGO_SWEEP_AFTER": "60"}  # seconds: what no worker takes is missed by the test

Enter = Callable[[System], Awaitable[World]]
Start = Callable[[System], System]


class Load:
    """Pushes the numbers from 0 to each of some keys, one of each key in a request."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._keys = [new_key() for _ in range(KEYS)]
        self._received: list[list[int]] = [[] for _ in self._keys]
        self._is_over = False
        self.count = 0

    async def start(self) -> None:
        sessions = [
            await self._world.session(key, node=n, ack=True) for n, key in enumerate(self._keys)
        ]
        self._readers = [
            asyncio.create_task(self._read(session, received))
            for session, received in zip(sessions, self._received, strict=True)
        ]
        self._pushing = asyncio.create_task(self._push())

    @staticmethod
    async def _read(session, received: list[int]) -> None:
        while True:
            frame = await session.receive(3 * PATIENCE)
            received.append(json.loads(frame.body))
            await session.ack(frame)

    async def _push(self) -> None:
        while not self._is_over:
            pushes = [encoded_push({"key": key}, self.count) for key in self._keys]
            await self._world.api.push_many(pushes)
            self.count += 1

    async def pushed(self, more: int) -> None:
        """Wait for as many further pushes to each key."""
        count = self.count + more
        await eventually(lambda: self.count >= count)

    async def stop(self) -> list[list[int]]:
        """Stop pushing; return what each session has received once nothing is missing."""
        self._is_over = True
        await self._pushing
        await eventually(lambda: all(len(one) >= self.count for one in self._received))
        for reader in self._readers:
            assert not reader.done()
            reader.cancel()
        return self._received


@pytest.mark.parametrize("kind", ["worker", "workers"])
@pytest.mark.long
async def test_the_number_changes_under_load(
    make_cluster: Callable[..., Cluster], own_system: Start, enter: Enter, kind: str
) -> None:
    cluster = make_cluster(**UNSWEPT)
    if kind == "workers":
        place = cluster.processes.index(cluster.worker)
        cluster.worker = Workers(cluster.home, "workers", cluster.environment)
        cluster.processes[place] = cluster.worker
    world = await enter(own_system(cluster))
    load = Load(world)
    await load.start()
    for number in (8, 3, 4):
        await load.pushed(20)
        text = await asyncio.to_thread(manage, cluster.environment, "partitions", str(number))
        assert text == f"Messages are spread over {number} partitions."
    await load.pushed(20)
    received = await load.stop()
    assert received == [list(range(load.count))] * KEYS


async def test_the_number_of_a_node_by_itself_changes(
    make_embedded: Callable[..., Embedded], own_system: Start, enter: Enter
) -> None:
    embedded = make_embedded(**UNSWEPT)
    world = await enter(own_system(embedded))
    load = Load(world)
    await load.start()
    await load.pushed(5)
    await asyncio.to_thread(manage, embedded.environment, "partitions", "2")
    await load.pushed(20)
    received = await load.stop()
    assert received == [list(range(load.count))] * KEYS
    state = json.loads(
        await asyncio.to_thread(manage, embedded.environment, "partitions", "--json")
    )
    assert (state["partitions"], state["open"]) == (2, True)
