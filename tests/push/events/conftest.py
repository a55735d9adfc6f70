"""Fixtures for streams of events, served both ways."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from accounts.models import Token
from push.session.link_manager import LinkManager
from tests import PATIENCE, in_thread
from tests.push.conftest import stop_node
from tests.push.events.clients import AsgiStream, SocketStream, StreamClient


@pytest.fixture
async def client(
    way, transactional_db, imgo, monkeypatch
) -> AsyncIterator[Callable[[], StreamClient]]:
    """Makes clients; u1's token is t, and u2's is t2.

    A busy machine may take longer than the usual limits: the first session starts the node, and
    requests run on threads of this process.
    """
    monkeypatch.setattr("push.events.views.LAYER_TIMEOUT", PATIENCE)
    imgo(
        ROOMS={"chat-*": {"history": 100}, "full": {"max_sessions": 1}},
        PARTITIONS=1,
        DRAIN_SECONDS=0.0,
        HANDSHAKE_TIMEOUT=PATIENCE,
    )
    await in_thread(Token.objects.issue, "u1", token="t")
    await in_thread(Token.objects.issue, "u2", token="t2", rooms=["chat-1"])
    manager = LinkManager(asyncio.get_running_loop())
    async with AsyncExitStack() as stack:
        stack.callback(manager.close)
        stack.push_async_callback(stop_node)

        def make() -> StreamClient:
            one = SocketStream(manager) if way == "direct" else AsgiStream()
            stack.push_async_callback(one.leave)
            return one

        yield make


@pytest.fixture
def stream(client) -> Callable[..., Any]:
    """Opens a stream of u1, reads its first event, and returns the client."""

    async def make(query: str = "", token: str = "t", **headers: str) -> StreamClient:
        one = client()
        headers.setdefault("authorization", f"Bearer {token}")
        assert await one.open(query, **headers) == 200, await one.answer()
        await one.opened()
        return one

    return make
