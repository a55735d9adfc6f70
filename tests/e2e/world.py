"""One test's view of an installation: its clients and publisher, all closed at the test's end."""

import asyncio
import secrets
from typing import Any, Self
from zlib import crc32

from tests import PATIENCE, eventually

from .api_client import Publisher
from .clients import Client, open_client
from .harness import Node, System

PARTITIONS = 4  # the default


def new_key() -> str:
    """A subscriber key that no other test uses; a number, because imgo's paths want one."""
    return str(secrets.randbelow(2**62) + 2**61)


def new_room() -> str:
    """A room that no other test uses; a number, for the same reason."""
    return str(secrets.randbelow(2**31 - 1) + 1)


class World:
    """Opens sessions and pushes."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.api = Publisher(system.api_url, system.api_key, system.nodes[0].tls)
        self._clients: list[Client] = []
        self._tokens: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(client.close() for client in self._clients))
        await self.api.close()

    def node(self, number: int = 0) -> Node:
        """A node; where there is one only, all numbers are its."""
        return self.system.nodes[number % len(self.system.nodes)]

    async def token(self, key: str) -> str:
        """The token of a key."""
        if key not in self._tokens:
            self._tokens[key] = await self.api.make_token(key)
        return self._tokens[key]

    async def connect(self, door: str = "tcp", node: int = 0, **options: Any) -> Any:
        """A connection that has not authenticated."""
        client = await open_client(self.node(node), door, **options)
        self._clients.append(client)
        return client

    async def session(self, key: str, door: str = "tcp", node: int = 0, **auth: Any) -> Any:
        """A session of `key`; `auth` goes into the auth body."""
        token = await self.token(key)  # before: a connection has only so long to authenticate
        client = await self.connect(door, node)
        return await client.auth({"token": token, **auth} if auth else token)

    async def settle(self) -> None:
        """Wait until what was pushed so far has been sent to whoever is there."""
        keys: dict[int, str] = {}
        while len(keys) < PARTITIONS:  # one of each partition, for each is sent on its own
            key = new_key()
            keys[crc32(key.encode()) % PARTITIONS] = key
        witnesses = [await self.session(key) for key in keys.values()]
        await self.api.push({"keys": list(keys.values())}, b'"settled"')
        for witness in witnesses:
            await witness.receive_bodies(1)
            await witness.close()

    async def wait_for_sessions(self, key: str, count: int, timeout: float = PATIENCE) -> None:
        """Wait until the key has as many sessions."""

        async def are_there() -> bool:
            return await self.api.sessions(key) == count

        await eventually(are_there, timeout)

    async def wait_for_pending(self, key: str, count: int, timeout: float = PATIENCE) -> None:
        """Wait until as many messages are pending for the key."""

        async def are_pending() -> bool:
            return await self.api.pending(key) == count

        await eventually(are_pending, timeout)
