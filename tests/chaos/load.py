"""A load on a cluster: devices that come back by themselves, pushers that try again or go on.

All that happens goes into a `History`.
"""

import asyncio
import random
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from typing import Any, Self

import httpx
import websockets

from tests import NO_TLS, eventually
from tests.e2e.clients import (
    AUTH,
    AUTH_REPLY,
    DISCONNECT,
    HEARTBEAT,
    MESSAGE,
    TRANSPORTS,
    Closed,
    open_client,
)
from tests.e2e.harness import Cluster, Node, logs

from .history import History, Push, Session
from .pusher import Pusher

BACK_OFF = (0.2, 1.0)  # seconds until a device tries to come back
OPEN_TIMEOUT = 10.0  # seconds for connect and auth
HEARTBEAT_EVERY = 30.0  # seconds without a message
ACKING_SHARE = 0.5  # of the devices acknowledge
TWO_DEVICES_EVERY = 10  # keys
TOKENS_AT_ONCE = 8
# How a connection ends, or cannot be made: the peer, the network, a handshake cut off.
LOST = (OSError, Closed, TimeoutError, asyncio.IncompleteReadError, websockets.WebSocketException)


@dataclass(eq=False)
class Gap:
    """A time that a device was away, and why: a close code, or none when there was no goodbye.

    `tries`: its vain ones to come back, told for people.
    """

    device: str
    node: Node
    code: int | None
    closed: float
    back: float = inf
    tries: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """How long it was away."""
        return self.back - self.closed


class Device:
    """One client of a key; it comes back to any node that is up.

    It asks no node twice in a row that has refused it, as a proxy in front of nodes would not.
    """

    def __init__(self, load: "Load", name: str, key: str, transport: str, *, acks: bool) -> None:
        self.name = name
        self.key = key
        self.transport = transport
        self.acks = acks
        self.room = ""  # one that acknowledges is in the room of those who push to its key
        self.node: Node | None = None
        self.session: Session | None = None
        self._in_room: Session | None = None
        self.gaps: list[Gap] = []
        self.refusals: Counter[str] = Counter()
        self._refused_by: Node | None = None
        self._load = load
        self._random = random.Random(load.random.random())

    async def run(self) -> None:
        """Have session after session, until cancelled."""
        while True:
            node, start = self._choose_node(), self._load.history.clock()
            try:
                client = await self._open(node)
            except LOST as error:
                self._refused(node, start, error)
            else:
                self._refused_by = None
                code = await self._stay(client)
                self._ended(code)
            await asyncio.sleep(self._random.uniform(*BACK_OFF))

    @property
    def is_there(self) -> bool:
        """Whether it has a session."""
        return self.session is not None

    def _choose_node(self) -> Node:
        up = self._load.nodes_up()
        others = [node for node in up if node is not self._refused_by]
        return self._random.choice(others or up or self._load.cluster.nodes)

    def _refused(self, node: Node, start: float, error: BaseException) -> None:
        what = f"{type(error).__name__} {getattr(error, 'code', '')}"
        self.refusals[what] += 1
        self._refused_by = node
        if self.gaps:
            gap = self.gaps[-1]
            gap.tries.append(f"{start - gap.closed:.1f} s: {node.name} {what.strip()}")

    async def _open(self, node: Node) -> Any:
        """A client with a session. Raises what is in `LOST`."""
        async with asyncio.timeout(OPEN_TIMEOUT):
            client = await open_client(node, self.transport)
            try:
                token = self._load.tokens[self.key]
                more = {"token": token, "ack": True, "rooms": [self.room]}
                await client.send(AUTH, more if self.acks else token)
                reply = await client.receive()
                if reply.op == DISCONNECT:
                    raise Closed(reply.value["code"], reply.value["reason"])
                assert reply.op == AUTH_REPLY, f"instead of an auth reply: {reply}"
            except BaseException:
                client.abort()
                raise
        self.session, self.node = self._load.history.opened(self.name, self.key), node
        self._in_room = self._load.rooms.opened(self.name, self.room)
        if self.gaps and self.gaps[-1].back == inf:
            self.gaps[-1].back = self.session.opened
        return client

    async def _stay(self, client: Any) -> int | None:
        """Receive until the connection ends; returns the close code, if one was said."""
        code = None
        try:
            while True:
                try:
                    frame = await client.receive(HEARTBEAT_EVERY)
                except TimeoutError:
                    with suppress(Closed):  # what has been sent before can still be read
                        await client.send(HEARTBEAT)
                    continue
                if frame.op == MESSAGE:
                    self._received(frame.body.decode(), frame.id)
                    if self.acks:
                        assert frame.id, f"no id in a session that acknowledges: {frame}"
                        with suppress(Closed):
                            await client.ack(frame)
                elif frame.op == DISCONNECT:
                    code = frame.value["code"]
        except LOST as error:
            return code or getattr(error, "code", None)
        finally:
            client.abort()

    def _received(self, body: str, message_id: int) -> None:
        assert self.session is not None
        assert self._in_room is not None
        if body in self._load.rooms.pushes:
            self._load.rooms.received(self._in_room, body, message_id)
        else:
            self._load.history.received(self.session, body, message_id)

    def _ended(self, code: int | None) -> None:
        assert self.session is not None
        assert self._in_room is not None
        assert self.node is not None
        self._load.history.closed(self.session)
        self._load.rooms.closed(self._in_room)
        self.gaps.append(Gap(self.name, self.node, code, self.session.closed))
        self.session = self.node = None


@dataclass
class Plan:
    """How large a load is. `pause`: seconds between two calls of a pusher, on average."""

    devices: int = 11
    pushers: int = 4
    pause: float = 0.05
    seed: int = 0
    through_nodes: int = 4  # every so many pushers call the nodes instead of the API process


@dataclass
class Load:
    """The devices and the pushers. A context manager: all devices are there when it is entered.

    `history` is that of the keys; `rooms` has those for keys, and misses what is live only.
    """

    cluster: Cluster
    plan: Plan = field(default_factory=Plan)
    history: History = field(default_factory=History)
    rooms: History = field(default_factory=History)

    def __post_init__(self) -> None:
        self.random = random.Random(self.plan.seed)
        self.pause = self.plan.pause
        self.is_pushing = False
        self.tokens: dict[str, str] = {}
        # In every body, and in no log.
        self.marker = secrets.token_hex(8)
        logs.forbid(self.marker)
        self.devices = list(self._make_devices())
        self._assign_rooms()
        self._count = 0
        self._device_tasks: list[asyncio.Task[None]] = []
        self._push_tasks: list[asyncio.Task[None]] = []

    def _make_devices(self) -> Iterator[Device]:
        number = keys = 0
        while number < self.plan.devices:
            key = f"chaos-{secrets.token_hex(6)}"
            for place in range(2 if keys % TWO_DEVICES_EVERY == 0 else 1):
                acks = self.random.random() < ACKING_SHARE
                transport = TRANSPORTS[number % len(TRANSPORTS)]
                name = f"{key}/{place}/{transport}{'+ack' if acks else ''}"
                yield Device(self, name, key, transport, acks=acks)
                number += 1
            keys += 1

    @property
    def keys(self) -> list[str]:
        """The keys of the devices."""
        return list(dict.fromkeys(device.key for device in self.devices))

    @property
    def gaps(self) -> list[Gap]:
        """The times that devices were away."""
        return [gap for device in self.devices for gap in device.gaps]

    def nodes_up(self) -> list[Node]:
        """The nodes whose process runs."""
        return [node for node in self.cluster.nodes if node.is_running]

    def on(self, node: Node) -> list[Device]:
        """The devices that have their session there."""
        return [device for device in self.devices if device.node is node]

    def new_push(self, history: History, numbers: dict[str, int]) -> Push:
        """A push with a body of its own, which is about to be sent."""
        self._count += 1
        return history.attempt(f'{{"m":"{self.marker}","b":{self._count}}}', numbers)

    def room_violations(self) -> dict[str, int]:
        """How many of each kind there are in the rooms, where to miss something is none."""
        found = self.rooms.check().violations
        found.pop("lost", None)
        return found

    # Begin and end

    async def __aenter__(self) -> Self:
        await self._make_tokens()
        self._device_tasks = [asyncio.create_task(device.run()) for device in self.devices]
        await self.all_there(30)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.is_pushing = False
        tasks = [*self._push_tasks, *self._device_tasks]
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        errors = [e for e in results if isinstance(e, Exception)]
        assert not errors, f"a task of the load failed: {errors!r}"

    async def _make_tokens(self) -> None:
        keys = iter(self.keys)
        headers = {"Authorization": f"Api-Key {self.cluster.api_key}"}
        url = f"{self.cluster.api_url}/api/v1/tokens"
        async with httpx.AsyncClient(
            headers=headers, timeout=30, trust_env=False, verify=NO_TLS
        ) as http:

            async def make(mine: Iterable[str]) -> None:
                for key in mine:
                    answer = await http.post(url, json={"key": key})
                    assert answer.status_code == 201, answer.text
                    self.tokens[key] = answer.json()["token"]
                    logs.forbid(self.tokens[key])

            await asyncio.gather(*(make(keys) for _ in range(TOKENS_AT_ONCE)))

    def push(self) -> None:
        """Have the pushers begin."""
        self.is_pushing = True
        for place, (room, keys) in enumerate(self._shares()):
            through_nodes = place % self.plan.through_nodes == self.plan.through_nodes - 1
            url = self._a_node if through_nodes else self._the_api
            pusher = Pusher(self, keys, room, url)
            self._push_tasks.append(asyncio.create_task(pusher.run()))

    def _shares(self) -> Iterator[tuple[str, list[str]]]:
        """A room and keys for each pusher."""
        keys = self.keys
        count = min(self.plan.pushers, len(keys))
        return ((f"{self.marker}-{place}", keys[place::count]) for place in range(count))

    def _assign_rooms(self) -> None:
        rooms = {key: room for room, keys in self._shares() for key in keys}
        for device in self.devices:
            device.room = rooms[device.key] if device.acks else ""

    def _the_api(self) -> str:
        return self.cluster.api_url

    def _a_node(self) -> str:
        return self.random.choice(self.nodes_up() or self.cluster.nodes).url

    # Wait for it

    def is_well(self) -> None:
        """Raises what a task of the load has failed with."""
        for task in (*self._device_tasks, *self._push_tasks):
            if task.done() and not task.cancelled() and (error := task.exception()):
                raise error

    async def all_there(self, timeout: float = 15) -> None:
        """Wait until every device has a session."""

        def are_there() -> bool:
            self.is_well()
            return all(device.is_there for device in self.devices)

        await eventually(are_there, timeout)

    async def accepts(self, count: int, timeout: float = 60) -> None:
        """Wait until so many more pushes were accepted."""
        wanted = self.history.accepted + count

        def are_accepted() -> bool:
            self.is_well()
            return self.history.accepted >= wanted

        await eventually(are_accepted, timeout)

    async def recovers(self, since: float, timeout: float = 60) -> float:
        """Wait until a push that was accepted after `since` has arrived; seconds from then."""

        def has_arrived() -> bool:
            self.is_well()
            return self.history.recovery(since) < inf

        await eventually(has_arrived, timeout)
        return self.history.recovery(since)

    async def drain(self, timeout: float = 30, quiet: float = 1.0) -> None:
        """Push no more, and wait until all that was accepted has arrived and nothing else comes.

        Does not fail when the time is over: what is missing then is for `History.check` to tell.
        """
        self.is_pushing = False
        await asyncio.gather(*self._push_tasks)
        self._push_tasks.clear()
        with suppress(AssertionError):
            await self.all_there(timeout)
        with suppress(AssertionError):
            await eventually(lambda: not self.history.waiting, timeout)
        with suppress(AssertionError):
            await eventually(self._none_missing, timeout / 2)
        await eventually(lambda: self._is_quiet(quiet), timeout)

    async def _none_missing(self) -> bool:
        await asyncio.sleep(0.2)  # a check looks at everything
        return not self.history.check().lost

    def _is_quiet(self, seconds: float) -> bool:
        return self.history.clock() - self.history.last_receipt > seconds
