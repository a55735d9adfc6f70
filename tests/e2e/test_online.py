"""Online and offline events of running nodes: what a receiver sees ends as what is true."""

import asyncio
import logging
import os
import random
import signal
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import redis

from tests import CHAOS_SEED, eventually
from tests.services import Postgres, free_port, postgres_programs, start_first

from .clients import Closed, TcpClient
from .frames import AUTH, AUTH_REPLY
from .harness import Cluster, Database, Embedded, Node, Process, System
from .test_webhooks import Receiver, run
from .world import World

logger = logging.getLogger(__name__)

GRACE = 1.0
LEASE = 6.0
ARRIVAL_MAX = 120.0  # seconds: leases, one after the other, and pauses after failures

Enter = Callable[[System], Awaitable[World]]
Seen = dict[str, list[tuple[int, str]]]  # key → (number, type) of each event that came


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver(free_port())
    await receiver.start()
    yield receiver
    await receiver.stop()


def settings(receiver: Receiver) -> dict[str, str]:
    return {
        "IMGO_EVENT_KEYS": "user-*",
        "IMGO_PRESENCE_GRACE": str(GRACE),
        "IMGO_NODE_LEASE": str(LEASE),
        "IMGO_DRAIN_SECONDS": "1",
        "IMGO_WEBHOOK_TIMEOUT": "2",
        "IMGO_EVENT_ROOMS": "room-*",
        "IMGO_WEBHOOKS": receiver.settings(events=["*"]),
    }


def seen(receiver: Receiver) -> Seen:
    """What came of each key, in order, without repetitions."""
    by_key: dict[str, dict[int, str]] = defaultdict(dict)
    for event in receiver.events:
        data = event["data"]
        if "key" not in data:
            continue
        assert by_key[data["key"]].setdefault(data["number"], event["type"]) == event["type"]
    return {key: list(numbers.items()) for key, numbers in by_key.items()}


def of_rooms(receiver: Receiver) -> list[tuple[str, dict[str, Any]]]:
    """Type and data of each event of a room, in order."""
    return [(e["type"], e["data"]) for e in receiver.events if "room" in e["data"]]


def assert_ordered(by_key: Seen) -> None:
    """Numbers grow by one, and online alternates with offline."""
    for key, events in by_key.items():
        numbers = [number for number, _ in events]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), (key, events)
        expected = ("key.online", "key.offline")
        assert all(name == expected[n % 2] for n, (_, name) in enumerate(events)), (key, events)


async def last_words(receiver: Receiver, expected: dict[str, bool]) -> None:
    """Wait until the last word of each key is what is expected."""

    def are_true() -> bool:
        by_key = seen(receiver)
        return all(
            (key in by_key and by_key[key][-1][1] == "key.online") is is_online
            for key, is_online in expected.items()
        )

    try:
        await eventually(are_true, ARRIVAL_MAX)
    except AssertionError:
        seen_events = seen(receiver)
        wrong = {
            key: seen_events.get(key)
            for key, is_online in expected.items()
            if (seen_events.get(key, [(0, "")])[-1][1] == "key.online") is not is_online
        }
        raise AssertionError(f"the last words are wrong: {wrong}") from None


async def test_embedded_server_reports_comings_goings_and_those_of_its_dead_predecessor(
    receiver: Receiver, make_embedded: Callable[..., Embedded], enter: Enter
) -> None:
    system = await run(make_embedded(**settings(receiver)))
    try:
        world = await enter(system)
        client = await world.session("user-1", "text")
        for key in ("user-2", "user-3", "other"):
            await world.session(key, rooms=["room-1", "lobby"])
        await last_words(receiver, {"user-1": True, "user-2": True, "user-3": True})
        await client.close()
        await last_words(receiver, {"user-1": False})
        opening, end = data_of(receiver, "user-1")
        assert (opening["transport"], opening["address"]) == ("websocket", "127.0.0.1")
        assert (end["session"], end["reason"]) == (opening["session"], "the client has gone")
        state = await world.api.get("/api/v1/keys/user-1")
        closed_at, seen_at = (
            datetime.fromisoformat(text) for text in (state["closed"]["at"], state["last_seen"])
        )
        assert not state["online"]
        assert abs((seen_at - closed_at).total_seconds()) < 0.01  # the event has whole milliseconds
        await asyncio.to_thread(system.nodes[0].kill)
        await asyncio.to_thread(system.nodes[0].start)
        await world.session("user-2")
        await last_words(receiver, {"user-1": False, "user-2": True, "user-3": False})
        by_key = seen(receiver)
        assert_ordered(by_key)
        assert {key: len(events) for key, events in by_key.items()} == {
            "user-1": 2, "user-2": 1, "user-3": 2,
        }  # fmt: skip
        await eventually(lambda: len(of_rooms(receiver)) == 2, ARRIVAL_MAX)
        (occupied, first), (vacated, last) = of_rooms(receiver)
        assert (occupied, vacated) == ("room.occupied", "room.vacated")
        assert (first["room"], last["number"] - first["number"]) == ("room-1", 1)
    finally:
        await asyncio.to_thread(system.stop)


class Device:
    """A client that comes and goes at random, until it is told to stay or to leave."""

    def __init__(self, key: str, token: str, nodes: list[Node], dice: random.Random) -> None:
        self.key = key
        self._token = token
        self._nodes = nodes
        self._dice = dice
        self.client: TcpClient | None = None
        self._is_wanted: bool | None = None  # None: now and then
        self._hurry = asyncio.Event()

    def settle(self, *, is_wanted: bool) -> None:
        """Stay from now on, or leave."""
        self._is_wanted = is_wanted
        self._hurry.set()

    def storm(self) -> None:
        """Leave and come back at once."""
        self._hurry.set()

    async def live(self) -> None:
        while True:
            self._hurry.clear()
            if self._is_wanted is not False and await self._connect():
                await self._stay()
            elif self._is_wanted is not None:
                await self._wait(0.3)
            if self._is_wanted is None:
                await self._wait(self._dice.choice([0.0, 0.3, 1.0, 3.0]) * self._dice.random())

    async def _connect(self) -> bool:
        client = None
        try:
            async with asyncio.timeout(8):
                client = await TcpClient.open(self._dice.choice(self._nodes))
                await client.send(AUTH, self._token)
                if (await client.receive()).op == AUTH_REPLY:
                    self.client = client
                    return True
        except (OSError, Closed, TimeoutError):
            pass
        if client is not None:
            client.abort()
        await self._wait(0.3)
        return False

    async def _stay(self) -> None:
        assert self.client is not None
        left = self._dice.choice([0.0, 0.5, 2.0, 8.0]) * self._dice.random()
        with suppress(Closed):
            while self._is_wanted or left > 0:
                with suppress(TimeoutError):
                    await self.client.receive(0.2)  # op 6, or nothing
                left -= 0.2
                if self._hurry.is_set() and not self._is_wanted:
                    break
        if self._dice.random() < 0.3:
            self.client.abort()
        else:
            await self.client.close()
        self.client = None

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), seconds)


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A server of these tests' own, which may be stopped."""
    server = start_first(Postgres, tmp_path_factory.mktemp("postgres"), postgres_programs())
    yield server
    server.remove()


@pytest.fixture
async def cluster(
    receiver: Receiver, postgres: Postgres, homes: Iterator[Path]
) -> AsyncIterator[Cluster]:
    """Two nodes on a Postgres and a Redis that may be stopped."""
    template = Database(postgres.url)
    await asyncio.to_thread(template.migrate)
    system = Cluster(next(homes), template, **settings(receiver))
    await asyncio.to_thread(system.start)
    yield system
    postgres.start()
    await asyncio.to_thread(system.stop)
    template.drop()


class Faults:
    """Faults of an installation; each one ends before the method does."""

    def __init__(self, cluster: Cluster, postgres: Postgres, dice: random.Random) -> None:
        self._cluster = cluster
        self._postgres = postgres
        self._dice = dice

    def _node(self) -> Node:
        return self._dice.choice(self._cluster.nodes)

    async def kill_node(self) -> None:
        node = self._node()
        await asyncio.to_thread(node.kill)
        await asyncio.sleep(self._dice.choice([0.0, LEASE + 3]))
        await node.start_beside()

    async def freeze_node(self) -> None:
        with self._node().paused():
            await asyncio.sleep(LEASE + 4)

    async def restart_nodes(self) -> None:
        for node in self._cluster.nodes:
            node.signal(signal.SIGTERM)
            await asyncio.to_thread(node.wait_until_ended)
            await node.start_beside()

    async def stop_postgres(self) -> None:
        if self._dice.random() < 0.5:
            self._postgres.kill()
        else:
            self._postgres.stop()
        await asyncio.sleep(20)
        await self._postgres.start_beside()

    async def empty_redis(self) -> None:
        with redis.Redis.from_url(self._cluster.redis.url, protocol=2) as client:
            client.flushall()

    async def kill_redis(self) -> None:
        self._cluster.redis.kill()
        await asyncio.sleep(2)
        await self._cluster.redis.start_beside()


ALL = ("kill_node", "freeze_node", "restart_nodes", "stop_postgres", "empty_redis", "kill_redis")


async def supervise(processes: list[Process]) -> None:
    for process in processes:
        assert process.is_running, process.tail()


@pytest.mark.timeout(900)
@pytest.mark.long
async def test_history_of_random_devices_under_faults_is_what_is_true(
    receiver: Receiver, cluster: Cluster, postgres: Postgres, enter: Enter
) -> None:
    """Numbers grow, online alternates with offline, and the last word is true."""
    dice = random.Random(int(os.environ[CHAOS_SEED]))
    world = await enter(cluster)
    keys = [f"user-{number}" for number in range(25)]
    tokens = {key: await world.token(key) for key in keys}
    devices = [
        Device(key, tokens[key], cluster.nodes, random.Random(dice.random()))
        for key in keys
        for _ in range(dice.choice([1, 1, 2]))
    ]
    living = [asyncio.create_task(device.live()) for device in devices]
    faults = Faults(cluster, postgres, dice)
    names = [*ALL, *dice.choices(ALL, k=4)]
    dice.shuffle(names)
    try:
        for name in names:
            await asyncio.sleep(3 * dice.random())
            if dice.random() < 0.4:
                for device in devices:
                    device.storm()
            if dice.random() < 0.3:
                receiver.answers = [b"\x00garbage\r\n\r\n", None][: dice.choice([1, 2])]
            logger.info("%s, after %d events", name, len(receiver.events))
            await getattr(faults, name)()
        await supervise(cluster.processes)
        stays = {key: dice.random() < 0.5 for key in keys}
        for device in devices:
            device.settle(is_wanted=stays[device.key])
        await last_words(receiver, stays)
        await asyncio.sleep(LEASE + 5)  # nothing comes that changes it
        await last_words(receiver, stays)
        by_key = seen(receiver)
        assert_ordered(by_key)
        assert sum(map(len, by_key.values())) > 2 * len(keys)
    finally:
        for task in living:
            task.cancel()
        await asyncio.gather(*living, return_exceptions=True)
        for device in devices:
            if device.client is not None:
                device.client.abort()


async def words(receiver: Receiver, key: str, *expected: str) -> None:
    """Wait until these events of a key, and no others, have come."""

    def have_come() -> bool:
        return [name for _, name in seen(receiver).get(key, [])] == list(expected)

    await eventually(have_come, ARRIVAL_MAX)


@pytest.mark.timeout(300)
@pytest.mark.long
async def test_frozen_node_is_offline_for_others_and_online_again_when_it_goes_on(
    receiver: Receiver, cluster: Cluster, enter: Enter
) -> None:
    world = await enter(cluster)
    client = await world.session("user-1", node=0)
    await words(receiver, "user-1", "key.online")
    with cluster.nodes[0].paused():
        await words(receiver, "user-1", "key.online", "key.offline")
    await words(receiver, "user-1", "key.online", "key.offline", "key.online")
    await client.heartbeat()
    await client.close()
    await words(receiver, "user-1", "key.online", "key.offline", "key.online", "key.offline")
    assert_ordered(seen(receiver))


@pytest.mark.timeout(300)
@pytest.mark.long
async def test_keys_that_move_in_time_are_no_events(
    receiver: Receiver, cluster: Cluster, postgres: Postgres, enter: Enter
) -> None:
    """A rolling restart, an outage of Postgres and an empty Redis are none either."""
    world = await enter(cluster)
    first = await world.session("user-1", node=0)
    stays = await world.session("user-2", node=1)
    await last_words(receiver, {"user-1": True, "user-2": True})
    node = cluster.nodes[0]
    node.signal(signal.SIGTERM)
    assert (await first.ended()).code == 4000
    first = await world.session("user-1", node=1)
    await asyncio.to_thread(node.wait_until_ended)
    await node.start_beside()
    postgres.stop()
    await asyncio.sleep(20)
    await postgres.start_beside()
    with redis.Redis.from_url(cluster.redis.url, protocol=2) as connection:
        connection.flushall()
    await asyncio.sleep(2 * LEASE)
    for client in (first, stays):
        await client.heartbeat()
    assert {key: len(events) for key, events in seen(receiver).items()} == {
        "user-1": 1, "user-2": 1,
    }  # fmt: skip
    await first.close()
    await words(receiver, "user-1", "key.online", "key.offline")


def data_of(receiver: Receiver, key: str) -> list[dict[str, Any]]:
    """The data of each event of a key, without repetitions."""
    of_key = [event["data"] for event in receiver.events if event["data"].get("key") == key]
    return list({data["number"]: data for data in of_key}.values())


@pytest.mark.timeout(300)
@pytest.mark.long
async def test_killed_nodes_keys_go_offline_with_what_is_known_of_them(
    receiver: Receiver, cluster: Cluster, enter: Enter
) -> None:
    world = await enter(cluster)
    for key in ("user-1", "user-2"):
        await world.session(key, node=0)
    await world.session("user-2", node=1)
    await last_words(receiver, {"user-1": True, "user-2": True})

    async def is_recorded() -> bool:  # the node writes records once a second
        return (await world.api.get("/api/v1/keys/user-1"))["opened"] is not None

    await eventually(is_recorded)
    await asyncio.to_thread(cluster.nodes[0].kill)
    await words(receiver, "user-1", "key.online", "key.offline")
    opening, end = data_of(receiver, "user-1")
    assert end["reason"] == "the node of its last session was lost"
    assert (end["session"], end["address"]) == (opening["session"], "127.0.0.1")
    await words(receiver, "user-2", "key.online")
    await cluster.nodes[0].start_beside()
