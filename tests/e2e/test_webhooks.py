"""Webhooks of running nodes: every event arrives, in order per key, whatever fails meanwhile."""

import asyncio
import base64
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook

from tests import NO_TLS, eventually
from tests.push.hooks.fake_backend import Backend, Request, response
from tests.services import free_port

from .harness import Cluster, Embedded, System, manage
from .world import World, new_key

SECRET = "whsec_" + base64.b64encode(b"of the tests, with enough bytes!").decode()
SEND = 4
KEYS, MESSAGES = 4, 16  # of a load, and messages to each key
ARRIVAL_MAX = 90.0  # seconds: a killed node's lease, and pauses after failures

Enter = Callable[[System], Awaitable[World]]


@dataclass
class Receiver:
    """The user's backend: verifies each request, and notes the events of those it accepts."""

    port: int
    answers: list[bytes | None] = field(default_factory=list)  # before it accepts; None: hangs
    events: list[dict[str, Any]] = field(default_factory=list)
    batches: dict[str, bytes] = field(default_factory=dict)  # bodies by webhook-id
    requests: int = 0
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/imgo/webhook/"

    def settings(self, **entry: Any) -> str:
        return json.dumps([{"url": self.url, "secret": SECRET, "events": ["*"], **entry}])

    async def start(self) -> None:
        served = Backend(self._answer)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            try:
                await served.serve(reader, writer)
            finally:
                self._tasks.discard(task)

        self._server = await asyncio.start_server(serve, "127.0.0.1", self.port)

    async def stop(self) -> None:
        """End at once, with all connections."""
        if self._server is not None:
            self._server.close()
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._server = None

    def _answer(self, request: Request) -> bytes | None:
        self.requests += 1
        Webhook(SECRET).verify(request.raw, request.headers)
        body, name = request.body, request.headers["webhook-id"]
        assert body["type"] == "batch"
        assert self.batches.setdefault(name, request.raw) == request.raw
        if self.answers:
            return self.answers.pop(0)
        self.events += body["events"]
        return response(204)

    def of_type(self, name: str) -> list[dict[str, Any]]:
        """The data of all events of a type."""
        return [event["data"] for event in self.events if event["type"] == name]

    def order(self, name: str) -> dict[str, list[int]]:
        """The ids of a type's events by key, each where it came first."""
        by_key: dict[str, dict[int, None]] = defaultdict(dict)
        for data in self.of_type(name):
            by_key[data["key"]].setdefault(int(data["id"]))
        return {key: list(ids) for key, ids in by_key.items()}


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver(free_port())
    await receiver.start()
    yield receiver
    await receiver.stop()


async def run(system: System) -> System:
    await asyncio.to_thread(system.start)
    return system


async def test_each_type_of_event_arrives_signed(
    receiver: Receiver, make_embedded: Callable[..., Embedded], enter: Enter
) -> None:
    system = await run(make_embedded(IMGO_WEBHOOKS=receiver.settings(), IMGO_OFFLINE_MAX="2"))
    try:
        world = await enter(system)
        acking, plain, away, late = (new_key() for _ in range(4))
        client = await world.session(acking, ack=True)
        acknowledged = await world.api.push({"key": acking}, b"1")
        await client.ack(await client.receive())
        other = await world.session(plain)
        delivered = await world.api.push({"key": plain}, b"1")
        await other.receive()
        dropped, *_ = [await world.api.push({"key": away}, b"1") for _ in range(3)]
        expired = await world.api.push({"key": late}, b"1", ttl=1)
        assert (await other.ask(SEND, {"typing": True})).value == {}
        await asyncio.sleep(1.1)
        await asyncio.to_thread(manage, system.environment, "prune")
        await eventually(lambda: len(receiver.events) >= 5)
        by_type = {event["type"]: event["data"] for event in receiver.events}
        session = by_type["message.acknowledged"].pop("session")
        assert by_type["message.delivered"].pop("session") == by_type["message.received"]["session"]
        assert session
        assert by_type["message.acknowledged"] == {"key": acking, "id": str(acknowledged)}
        assert by_type["message.delivered"] == {"key": plain, "id": str(delivered)}
        assert by_type["message.expired"] == {"key": late, "id": str(expired)}
        assert by_type["message.dropped"] == {
            "key": away, "id": str(dropped), "reason": "offline_max",
        }  # fmt: skip
        upstream = by_type["message.received"]
        assert (upstream["key"], upstream["op"], upstream["body"]) == (plain, 4, {"typing": True})
        assert len(receiver.events) == 5
        (row,) = json.loads(manage(system.environment, "webhooks", "--json"))
        assert (row["waiting"], row["parked"]) == (0, 0)
    finally:
        await asyncio.to_thread(system.stop)


async def load(world: World, keys: list[str], between: Callable[[int], Awaitable[None]]) -> None:
    """Push to each key, and acknowledge each message; `between` runs before each message."""
    clients = {key: await world.session(key, node=1, ack=True) for key in keys}
    for number in range(MESSAGES):
        await between(number)
        for key, client in clients.items():
            await world.api.push({"key": key}, number)
            await client.ack(await client.receive())


async def assert_all_arrive(receiver: Receiver, world: World, keys: list[str]) -> None:
    def have_arrived() -> bool:
        order = receiver.order("message.acknowledged")
        return all(len(order.get(key, [])) == MESSAGES for key in keys)

    for key in keys:
        await world.wait_for_pending(key, 0)
    await eventually(have_arrived, ARRIVAL_MAX)
    for ids in receiver.order("message.acknowledged").values():
        assert ids == sorted(ids)


@pytest.mark.timeout(300)
@pytest.mark.long
async def test_failing_receiver_gets_each_event_in_order(
    receiver: Receiver, make_embedded: Callable[..., Embedded], enter: Enter
) -> None:
    system = await run(make_embedded(IMGO_WEBHOOKS=receiver.settings(), IMGO_WEBHOOK_TIMEOUT="1"))
    try:
        world, keys = await enter(system), [new_key() for _ in range(KEYS)]
        receiver.answers = [response(500), None, b"\x00garbage\r\n\r\n"]

        async def trouble(number: int) -> None:
            if number == 6:
                await receiver.stop()
            elif number == 12:
                await receiver.start()

        await load(world, keys, trouble)
        await assert_all_arrive(receiver, world, keys)
        assert receiver.requests < KEYS * MESSAGES
    finally:
        await asyncio.to_thread(system.stop)


@pytest.mark.timeout(300)
@pytest.mark.long
async def test_killed_embedded_server_sends_the_rest_after_its_restart(
    receiver: Receiver, make_embedded: Callable[..., Embedded], enter: Enter
) -> None:
    system = await run(make_embedded(IMGO_WEBHOOKS=receiver.settings()))
    try:
        world, keys = await enter(system), [new_key() for _ in range(KEYS)]
        await receiver.stop()

        async def nothing(_: int) -> None:
            pass

        await load(world, keys, nothing)
        for key in keys:
            await world.wait_for_pending(key, 0)
        await asyncio.to_thread(system.nodes[0].kill)
        await receiver.start()
        await asyncio.to_thread(system.nodes[0].start)
        await assert_all_arrive(receiver, await enter(system), keys)
    finally:
        await asyncio.to_thread(system.stop)


async def delivered(system: System, number: int) -> float:
    """Batches that a node has delivered, by its metrics."""
    headers = {"Authorization": f"Api-Key {system.api_key}"}
    async with httpx.AsyncClient(trust_env=False, verify=NO_TLS, headers=headers) as http:
        text = (await http.get(f"{system.nodes[number].url}/metrics", timeout=20)).text
    name = 'imgo_webhook_deliveries_total{outcome="delivered"} '
    (value,) = [line.removeprefix(name) for line in text.splitlines() if line.startswith(name)]
    return float(value)


@pytest.mark.timeout(300)
@pytest.mark.long
async def test_one_node_sends_and_another_follows_when_it_is_killed(
    receiver: Receiver, make_cluster: Callable[..., Cluster], enter: Enter
) -> None:
    system = make_cluster(IMGO_WEBHOOKS=receiver.settings(), IMGO_WEBHOOK_TIMEOUT="1")
    for process in system.processes:
        process.launch()
        if process is system.nodes[0]:
            await asyncio.to_thread(process.wait_until_ready)  # it acquires the lease
            await eventually(lambda: "this node sends" in system.nodes[0].log.read_text())
    await asyncio.to_thread(lambda: [each.wait_until_ready() for each in system.processes])
    try:
        world, keys = await enter(system), [new_key() for _ in range(KEYS)]

        async def trouble(number: int) -> None:
            if number == 5:
                await eventually(lambda: len(receiver.events) > KEYS)
                # Counted when the result is stored, after the answer.
                await eventually(partial(delivered, system, 0))
                assert not await delivered(system, 1)
                receiver.answers = [response(500), None, None]
            elif number == 12:
                await asyncio.to_thread(system.nodes[0].kill)

        await load(world, keys, trouble)
        await assert_all_arrive(receiver, world, keys)
        await eventually(partial(delivered, system, 1))
    finally:
        await asyncio.to_thread(system.stop)
