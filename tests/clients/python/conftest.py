"""A client and the server that a test scripts."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from imgo_client import Client
from tests import eventually

from .peers import Log, Script, Server


@pytest.fixture(params=["ws", "tcp", "http"])
def scheme(request: pytest.FixtureRequest) -> str:
    """The scheme of the client's URL: one for each transport."""
    return str(request.param)


@pytest.fixture
async def serve(scheme: str) -> AsyncIterator[Callable[[Script], Awaitable[Server]]]:
    """Starts a server with a script. After the test nothing of the client is left behind."""
    before = asyncio.all_tasks()

    def left() -> set[asyncio.Task[Any]]:
        return asyncio.all_tasks() - before - {asyncio.current_task()}

    async with AsyncExitStack() as stack:
        yield lambda script: stack.enter_async_context(Server(scheme, script).running())
        assert [task for task in left() if is_the_clients(task)] == []
    # The server may just have accepted a connection that the client has given up.
    await eventually(lambda: not left())


def is_the_clients(task: asyncio.Task[Any]) -> bool:
    """Whether it runs a coroutine of the package's own, or of what that connects with."""
    code = getattr(task.get_coro(), "cr_code", None)
    if code is None:  # the loop ends a generator of httpx, which nobody waits for
        return False
    file = code.co_filename
    return "imgo_client" in file or file.endswith("websockets/asyncio/client.py")


@pytest.fixture
def make() -> Callable[..., tuple[Client, Log]]:
    """Makes a client and its log."""

    def client_and_log(server: Server, **options: Any) -> tuple[Client, Log]:
        client = Client(server.url, "abc", **{"backoff": (0.01, 0.05), "timeout": 5, **options})
        return client, Log(client)

    return client_and_log
