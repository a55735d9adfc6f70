"""Nodes over both stores."""

from collections.abc import AsyncIterator, Callable

import pytest

from push.presence.memory_store import MemoryPresence, MemoryPresenceTables
from push.presence.redis_store import RedisPresence
from tests.push.presence.nodes import PresenceNode

Make = Callable[[str], PresenceNode]


@pytest.fixture
def _policies(imgo, monkeypatch) -> None:
    imgo(ROOMS={"chat-*": {"presence": True}}, PRESENCE_GRACE=0.0, NODE_LEASE=1.2)
    monkeypatch.setattr("push.presence.diff_writer.INTERVAL", 0.05)
    monkeypatch.setattr("push.presence.diff_writer.SOON", 0.01)
    monkeypatch.setattr("push.presence.diff_writer.LIST_INTERVAL", 0.05)
    monkeypatch.setattr("push.presence.node_presence.GAP_PATIENCE", 0.05)


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.services)])
def make(request, settings, _policies) -> Make:
    """Makes nodes of one store: `make("n1")`. They are not started."""
    return _maker(request.param, request, settings)


@pytest.fixture
def make_redis(request, settings, _policies, redis_client) -> Make:
    """Makes nodes whose store is in Redis."""
    return _maker("redis", request, settings)


def _maker(kind: str, request, settings) -> Make:
    tables, numbers, made = MemoryPresenceTables(), set(), []
    if kind == "redis":
        request.getfixturevalue("redis_client")

    def one(name: str) -> PresenceNode:
        store = (
            RedisPresence(settings.REDIS_URL, name)
            if kind == "redis"
            else MemoryPresence(tables, name)
        )
        made.append(PresenceNode(name, len(made) + 1, store, numbers))
        return made[-1]

    request.node.made_nodes = made
    return one


@pytest.fixture(autouse=True)
async def _stop_nodes(request) -> AsyncIterator[None]:
    yield
    for node in getattr(request.node, "made_nodes", ()):
        await node.presence.stop()
        store = node.presence.store
        if isinstance(store, RedisPresence):  # of a node that a test has killed
            if store._listener is not None:
                await store._listener.close()
            if store._redis is not None:
                await store._redis.aclose()
