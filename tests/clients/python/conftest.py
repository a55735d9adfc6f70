"""A client and the server that a test scripts."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from imgo_client import Client

from .peers import Log, Script, Server


@pytest.fixture(params=["ws", "tcp"])
def scheme(request: pytest.FixtureRequest) -> str:
    """Each transport."""
    return str(request.param)


@pytest.fixture
async def serve(scheme: str) -> AsyncIterator[Callable[[Script], Awaitable[Server]]]:
    """Starts a server with a script. After the test nothing of the client is left behind."""
    before = asyncio.all_tasks()
    async with AsyncExitStack() as stack:
        yield lambda script: stack.enter_async_context(Server(scheme, script).running())
    assert asyncio.all_tasks() - before == {asyncio.current_task()}


@pytest.fixture
def make() -> Callable[..., tuple[Client, Log]]:
    """Makes a client and its log."""

    def client_and_log(server: Server, **options: Any) -> tuple[Client, Log]:
        client = Client(server.url, "abc", **{"backoff": (0.01, 0.05), "timeout": 5, **options})
        return client, Log(client)

    return client_and_log
