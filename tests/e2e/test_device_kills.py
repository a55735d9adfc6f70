"""Nodes and the worker are killed while the devices of keys acknowledge.

What must hold for each device: it gets each message at least once, its first receipts are in order,
no session gets a message twice, and no session gets one that is over: the device acknowledged it in
an earlier session, the receipt was committed before this session began, and the fan-out was done.
If the fan-out was not done, the session may get the late live copy, like every open session.
"""

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

import psycopg
import pytest
import websockets

from tests import CHAOS_SEED

from .clients import AUTH, AUTH_REPLY, MESSAGE, TRANSPORTS, Client, Closed, Frame
from .harness import Cluster, Process, System, manage
from .world import World, new_key

KEYS = 4
NAMES = ("phone", "laptop", "")
PUSHES = 150  # to each key
KILLS = 6
PENDING_MAX = 60.0  # seconds after the last kill until nothing is pending
IDLE_MAX = 2.0  # seconds without a message after which a client connects again
READ = 31  # the op of reports of what other devices have read
LOST = (Closed, OSError, TimeoutError, websockets.WebSocketException)  # of a killed node
# A copy may be between Redis and a node for a moment after its fan-out.
OVER = """
    SELECT message_id FROM offline_event
    WHERE key = %s AND device = %s AND kind = 'acknowledged'
        AND at < now() - interval '2 seconds'
        AND message_id NOT IN (SELECT message_id FROM offline_outbox)
"""


class Device:
    """One device of a key: it connects again and again, and acknowledges what it gets."""

    def __init__(self, world: World, database: str, key: str, name: str, seed: int) -> None:
        self._world, self._database = world, database
        self.key, self.name = key, name
        self._draw = random.Random(f"{seed} {key} {name}")
        self.first_receipts: dict[int, None] = {}
        self.reported: set[int] = set()  # as read by other devices
        self.wrong: list[str] = []
        self.is_open = asyncio.Event()

    async def run(self) -> None:
        """Be a client until the task is cancelled."""
        while True:
            with suppress(*LOST):
                await self._session()

    async def _session(self) -> None:
        node = self._draw.randrange(len(self._world.system.nodes))
        over = await asyncio.to_thread(self._over)
        client = await self._world.connect(self._draw.choice(TRANSPORTS), node)
        token = await self._world.token(self.key)
        await client.send(AUTH, {"token": token, "ack": True, "device": self.name or None})
        if (await client.receive()).op != AUTH_REPLY:
            return  # refused, and closed
        self.is_open.set()
        seen: set[int] = set()
        try:
            while self._draw.random() > 0.01:
                await self._take(client, await client.receive(IDLE_MAX), over, seen)
        finally:
            client.abort()

    def _over(self) -> set[int]:
        with psycopg.connect(self._database) as database:
            return {row[0] for row in database.execute(OVER, (self.key, self.name))}

    async def _take(self, client: Client, frame: Frame, over: set[int], seen: set[int]) -> None:
        if frame.op == READ:
            self.reported |= {int(i) for i in frame.value["ids"]}
            return
        assert frame.op == MESSAGE, frame
        if frame.id in seen:
            self.wrong.append(f"{frame.id} came twice to one session")
        if frame.id in over:
            self.wrong.append(f"{frame.id} came again although it was over")
        seen.add(frame.id)
        self.first_receipts.setdefault(frame.id)
        if self._draw.random() < 0.8:  # the others are acknowledged when they come again
            await client.ack(frame)


async def kill_at_random(processes: list[Process], draw: random.Random) -> None:
    """Kill processes one after the other, each at a random moment, and start them again."""
    for _ in range(KILLS):
        await asyncio.sleep(draw.uniform(0.1, 1.0))  # the load goes on
        process = draw.choice(processes)
        process.kill()
        await process.start_beside()


@pytest.mark.long
async def test_devices_lose_nothing_while_processes_are_killed(
    make_cluster: Callable[..., Cluster],
    own_system: Callable[[System], System],
    enter: Callable[[System], Awaitable[World]],
) -> None:
    seed = random.Random(f"{os.environ[CHAOS_SEED]} devices").getrandbits(32)
    draw = random.Random(seed)
    cluster = make_cluster(nodes=3)
    world = await enter(own_system(cluster))
    keys = [f"each-{new_key()}" for _ in range(KEYS)]
    for key in keys:
        await world.token(key)
    devices = [
        Device(world, cluster.database.url, key, name, seed) for key in keys for name in NAMES
    ]
    accepted: dict[str, list[int]] = {key: [] for key in keys}
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(device.run()) for device in devices]
        await asyncio.gather(*(device.is_open.wait() for device in devices))
        killer = group.create_task(kill_at_random([*cluster.nodes, cluster.worker], draw))
        for number in range(PUSHES):
            for key in keys:
                accepted[key].append(await world.api.push({"key": key}, number))
        await killer
        for key in keys:
            await world.wait_for_pending(key, 0, PENDING_MAX)
        for task in tasks:
            task.cancel()
    for device in devices:
        where = f"seed {seed}, {device.key}, device {device.name!r}"
        assert list(device.first_receipts) == accepted[device.key], where
        assert device.wrong == [], where
        assert device.reported <= set(accepted[device.key]), where
        assert bool(device.reported) is bool(device.name), where
    for key in keys:
        await assert_reported(world, key)
    assert "Everything is accounted for" in manage(cluster.environment, "conserve")


async def assert_reported(world: World, key: str) -> None:
    """Let a device acknowledge, and expect the report on another node, and no older message."""
    phone = await world.session(key, node=0, ack=True, device="phone")
    laptop = await world.session(key, node=1, ack=True, device="laptop")
    pushed = await world.api.push({"key": key}, "read")
    frame = await phone.receive()
    assert (frame.id, (await laptop.receive()).id) == (pushed, pushed)
    await phone.ack(frame)
    report = await laptop.receive()
    assert (report.op, report.value) == (READ, {"ids": [str(pushed)]})
