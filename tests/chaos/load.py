"""A load on a cluster: devices that come back by themselves, pushers that try again or go on.

All that happens goes into a `History`.
"""

import asyncio
import random
import secrets
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from typing import Self

import httpx

from tests import NO_TLS, eventually
from tests.e2e.clients import TRANSPORTS
from tests.e2e.harness import Cluster, Node, logs

from .device import EVENTS, Device, Gap
from .follower import Follower
from .history import History, Push
from .pusher import Pusher

FOLLOWERS = 2  # of the room with history of each pusher
ACKING_SHARE = 0.5  # of the devices acknowledge
TWO_DEVICES_EVERY = 10  # keys
TOKENS_AT_ONCE = 8
WAYS = (*TRANSPORTS, EVENTS)  # that devices connect by, in turns


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

    `history` is that of the keys; `rooms` has those for keys, and misses what is live only. `kept`
    is that of rooms with history: each of its keys is a follower.
    """

    cluster: Cluster
    plan: Plan = field(default_factory=Plan)
    history: History = field(default_factory=History)
    rooms: History = field(default_factory=History)
    kept: History = field(default_factory=History)

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
        rooms = [kept_room(room) for room, _ in self._shares()]
        self.followers = [
            Follower(self, number, room) for room in rooms for number in range(FOLLOWERS)
        ]
        self._count = 0
        self._device_tasks: list[asyncio.Task[None]] = []
        self._push_tasks: list[asyncio.Task[None]] = []

    def _make_devices(self) -> Iterator[Device]:
        number = keys = 0
        while number < self.plan.devices:
            key = f"chaos-{secrets.token_hex(6)}"
            for place in range(2 if keys % TWO_DEVICES_EVERY == 0 else 1):
                acks = self.random.random() < ACKING_SHARE
                transport = WAYS[number % len(WAYS)]
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

    @property
    def clients(self) -> list[Device]:
        return [*self.devices, *self.followers]

    def followers_of(self, room: str) -> list[str]:
        """The keys of those who follow a room with history."""
        return [follower.key for follower in self.followers if follower.room == room]

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

    def kept_violations(self) -> list[str]:
        """What is wrong in the rooms with history, where nothing is missed and no gap is told."""
        result = self.kept.check()
        wrong = [f"{kind}: {count}" for kind, count in result.violations.items()]
        if result.duplicates:
            wrong.append(f"an offset came twice to a follower: {result.duplicates}")
        return wrong + [line for follower in self.followers for line in follower.told]

    def caught_up(self, end: float) -> float:
        """Seconds from `end` until all that was accepted before it had arrived.

        That is what was pushed to keys and to rooms with history; other rooms are live only.
        """
        return max(self.history.caught_up(end), self.kept.caught_up(end))

    # Begin and end

    async def __aenter__(self) -> Self:
        await self._make_tokens()
        self._device_tasks = [asyncio.create_task(device.run()) for device in self.clients]
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
        keys = iter(client.key for client in self.clients)
        headers = {"Authorization": f"Api-Key {self.cluster.api_key}"}
        url = f"{self.cluster.api_url}/api/v1/tokens"
        async with httpx.AsyncClient(
            headers=headers, timeout=30, trust_env=False, verify=NO_TLS
        ) as http:

            async def make(mine: Iterable[str]) -> None:
                for key in mine:
                    if key in self.tokens:  # of a key with two devices
                        continue
                    self.tokens[key] = ""
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
            return all(device.is_there for device in self.clients)

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
            await eventually(lambda: not self.history.waiting and not self.kept.waiting, timeout)
        with suppress(AssertionError):
            await eventually(self._none_missing, timeout / 2)
        await eventually(lambda: self._is_quiet(quiet), timeout)

    async def _none_missing(self) -> bool:
        await asyncio.sleep(0.2)  # a check looks at everything
        return not self.history.check().lost and not self.kept.check().lost

    def _is_quiet(self, seconds: float) -> bool:
        last = max(self.history.last_receipt, self.kept.last_receipt)
        return self.history.clock() - last > seconds


def kept_room(room: str) -> str:
    """The room with history beside a pusher's room that is live only."""
    return f"kept-{room}"
