"""Devices of one key in random order, over each transport, against a model of what is pending.

`tests/push/connect/test_devices_model.py` does the same within one process, and forgets devices.
"""

import random
from collections.abc import Awaitable, Callable

import psycopg
import pytest

from tests import PATIENCE, eventually

from .clients import ACK, AUTH, AUTH_REPLY, MESSAGE, TRANSPORTS, Client, open_client
from .event_client import EventsClient
from .harness import Cluster, System, manage
from .world import World, new_key

NAMES = ("", "phone", "laptop", "tablet")
WITNESS = "witness"
STEPS = 40
SEEDS = range(4)
READ = 31  # the op of reports of what other devices have read
PENDING = "SELECT message_id, device FROM offline_pending WHERE key = %s"


class Session:
    """An open session of a device, with the messages that it has got."""

    def __init__(self, client: Client, device: str) -> None:
        self.client = client
        self.device = device
        self.got: list[int] = []

    async def take(self, expected: list[int]) -> None:
        """Expect exactly these messages next."""
        found: list[int] = []
        while len(found) < len(expected):
            frame = await self.client.receive(PATIENCE)
            if frame.op != READ:
                assert frame.op == MESSAGE, frame
                found.append(frame.id)
        assert found == expected
        self.got += found


class Scenario:
    """One key: what is done to it, and what must follow. `rows`: (message id, device) pending."""

    def __init__(self, world: World, transport: str, database: str, seed: int) -> None:
        self.world, self.transport, self.database = world, transport, database
        self.draw = random.Random(f"{seed} {transport}")
        self.key = f"each-{new_key()}"
        self.rows: set[tuple[int, str]] = set()
        self.devices: set[str] = set()
        self.sessions: list[Session] = []

    async def run(self) -> None:
        await self.connect(WITNESS)  # with it, each push has reached the node before the next step
        acts = [self.push] * 4 + [self.connect_any, self.acknowledge] * 3 + [self.leave] * 2
        for _ in range(STEPS):
            await self.draw.choice([*acts, self.cancel])()
            await eventually(self.is_as_expected)
        for name in NAMES:
            await self.connect(name)
        await self.push()  # behind it, nothing else can have come
        for session in self.sessions:
            session.client.abort()

    async def is_as_expected(self) -> bool:
        async with await psycopg.AsyncConnection.connect(self.database) as database:
            found = await (await database.execute(PENDING, (self.key,))).fetchall()
        return set(found) == self.rows

    async def push(self) -> None:
        pushed = await self.world.api.push({"key": self.key}, "{}")
        self.rows |= {(pushed, device) for device in self.devices}
        for session in self.sessions:
            await session.take([pushed])

    async def connect_any(self) -> None:
        await self.connect(self.draw.choice(NAMES))

    async def connect(self, name: str) -> None:
        token, node = await self.world.token(self.key), self.world.node()
        is_stream = self.transport == "events"
        client: Client = (
            await EventsClient.open(node) if is_stream else await open_client(node, self.transport)
        )
        await client.send(AUTH, {"token": token, "ack": True, "device": name or None})
        assert (await client.receive(PATIENCE)).op == AUTH_REPLY
        self.devices.add(name)
        session = Session(client, name)
        self.sessions.append(session)
        await session.take(sorted(i for i, device in self.rows if device == name))

    def _others(self) -> list[Session]:
        return self.sessions[1:]

    async def leave(self) -> None:
        if self._others():
            session = self.draw.choice(self._others())
            self.sessions.remove(session)
            session.client.abort()

    async def acknowledge(self) -> None:
        sessions = [session for session in self._others() if session.got]
        if not sessions:
            return
        session = self.draw.choice(sessions)
        ids = self.draw.sample(session.got, self.draw.randint(1, len(session.got)))
        await session.client.send(ACK, [str(message_id) for message_id in ids])
        self.rows -= {(message_id, session.device) for message_id in ids}

    async def cancel(self) -> None:
        if self.rows:
            message_id, _ = self.draw.choice(sorted(self.rows))
            answer = await self.world.api.http.delete(f"/api/v1/pushes/{message_id}")
            assert answer.status_code == 200, answer.text
            self.rows = {row for row in self.rows if row[0] != message_id}


@pytest.mark.long
@pytest.mark.parametrize("transport", [*TRANSPORTS, "events"])
async def test_devices_get_exactly_what_is_pending_for_them(
    make_cluster: Callable[..., Cluster],
    own_system: Callable[[System], System],
    enter: Callable[[System], Awaitable[World]],
    transport: str,
) -> None:
    cluster = make_cluster(nodes=1)
    world = await enter(own_system(cluster))
    for seed in SEEDS:
        await Scenario(world, transport, cluster.database.url, seed).run()
    assert "Everything is accounted for" in manage(cluster.environment, "conserve")
