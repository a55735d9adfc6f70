"""The clients of these tests, and which cases are in the short set."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack

import pytest

from accounts.models import Token
from push.session.link_manager import LinkManager
from push.wire import Op
from tests import in_thread
from tests.push.conftest import stop_node
from tests.push.connect.clients import (
    NAMES,
    AsgiClient,
    Client,
    SocketClient,
)

# Each transport once, and each way of serving it.
SHORT = {
    ("resident", "text"),
    ("direct", "binary"),
    ("direct", "tcp"),
}


@pytest.hookimpl(tryfirst=True)  # before the longer proofs are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Make a longer proof of what a shorter one has with another way, or in the other mode.

    How a frame is read does not depend on the mode; the tests without other parameters have both.
    """
    for item in items:
        if "tests/push/connect/" not in item.nodeid or not hasattr(item, "callspec"):
            continue
        params = item.callspec.params
        if "way" in params and "name" in params:
            is_short = (params["way"][1], params["name"]) in SHORT
        else:
            is_short = params.get("mode") != "production" or len(params) == 1
        if not is_short:
            item.add_marker(pytest.mark.long)


@pytest.fixture(params=NAMES)
def name(request) -> str:
    return request.param


@pytest.fixture
async def make_client(way) -> AsyncIterator[Callable[[str], Client]]:
    """Makes clients that are served one way."""
    manager = LinkManager(asyncio.get_running_loop())

    def make(name: str) -> Client:
        # Raw TCP is our own server's in any case.
        return (
            AsgiClient(name) if way == "resident" and name != "tcp" else SocketClient(name, manager)
        )

    yield make
    manager.close()


@pytest.fixture
async def connect(transactional_db, make_client) -> AsyncIterator[Callable]:
    """Connects clients; u1's token is t, and u2's is t2."""
    await in_thread(Token.objects.issue, "u1", token="t")
    await in_thread(Token.objects.issue, "u2", token="t2")
    async with AsyncExitStack() as stack:
        stack.push_async_callback(stop_node)

        async def make(name: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> Client:
            client = make_client(name)
            client.headers = list(headers)
            assert await client.connect()
            stack.push_async_callback(client.leave)
            return client

        yield make


@pytest.fixture
async def client(connect, name) -> Client:
    """A session of u1 that acknowledges."""
    found = await connect(name)
    assert (await found.auth(ack=True)).op == Op.AUTH_REPLY
    return found
