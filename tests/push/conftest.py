"""What the tests of push/ share: listening to groups of the real channel layer, and a node."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from channels.layers import get_channel_layer

from imgo_site.asgi import application
from imgo_site.conf import conf
from push.accept.accept import Push, accept_push
from push.fanout import drain
from push.node.hub import Hub
from push.node.node import Node
from push.node.node_instance import NodeInstance
from push.registry.base import Registry
from push.registry.memory_registry import MemoryRegistry
from push.registry.redis_registry import RedisRegistry

Message = dict[str, Any]


async def get_node() -> Node:
    """The node of the site's ASGI application."""
    return await application.instance.node()


async def stop_node() -> None:
    await application.instance.stop()


@pytest.fixture(autouse=True)
def _new_instance() -> Iterator[None]:
    """A node that was stopped is no matter of the next test."""
    yield
    application.instance = NodeInstance()


@pytest.fixture(autouse=True)
def _no_removed_session_in_a_group(monkeypatch) -> Iterator[None]:
    """Fail if a session is in a group of a hub that has removed it: nothing would take it out."""
    hubs: list[Hub] = []
    make = Hub.__init__

    def keep(hub: Hub, *arguments: Any) -> None:
        make(hub, *arguments)
        hubs.append(hub)

    monkeypatch.setattr(Hub, "__init__", keep)
    yield
    for hub in hubs:
        if not hub.layer_groups.channel:
            continue  # it was never started: a test gave it groups by hand
        members = {session.id for group in hub.groups.values() for session in group}
        assert members <= hub.sessions.keys()


@pytest.fixture
async def listen() -> AsyncIterator[Callable[..., Any]]:
    """Joins groups: `heard = await listen("g1", "g2")`; then `await heard()` gives what has been
    sent to them up to now, in order."""
    layer = get_channel_layer()
    channel = await layer.new_channel()

    async def join(*groups: str) -> Callable[[], Awaitable[list[Message]]]:
        for group in groups:
            await layer.group_add(group, channel)

        async def heard() -> list[Message]:
            await layer.send(channel, {"type": "end"})
            found = []
            while (message := await asyncio.wait_for(layer.receive(channel), 10))["type"] != "end":
                found.append(message)
            return found

        return heard

    yield join
    await layer.flush()


@pytest.fixture
def mode_of(settings, monkeypatch, redis_client) -> Callable[[str], None]:
    """Sets the layer and the registry of a mode; the database is Postgres in both."""

    def set_mode(name: str) -> None:
        if name == "embedded":
            settings.CHANNEL_LAYERS = {"default": {"BACKEND": "push.layers.InProcessChannelLayer"}}
            registry: Registry = MemoryRegistry()
        else:
            registry = RedisRegistry(settings.REDIS_URL)
        monkeypatch.setattr("push.node.node.open_registry", lambda: registry)
        for module in ("fanout", "api.v1", "api.rooms", "api.legacy", "api.goim", "events.views"):
            monkeypatch.setattr(f"push.{module}.get_registry", lambda: registry)

    return set_mode


@pytest.fixture(params=["embedded", "production"])
def mode(request, mode_of) -> str:
    """Set layer and registry of one mode after the other, and return its name."""
    mode_of(request.param)
    return request.param


# Every mode can have either link: two of the four, and the rest is left to tests/e2e.
LINKS = [("embedded", "resident"), ("production", "direct")]


@pytest.fixture(params=LINKS, ids=" ".join)
def way(request, mode_of) -> str:
    """How sessions are served, in one of the two modes."""
    mode, link = request.param
    mode_of(mode)
    return link


@pytest.fixture
def _stops_at_once(imgo) -> None:
    """A node that stops does not spread what it closes."""
    imgo(DRAIN_SECONDS=0.0)


@pytest.fixture
async def node(mode, transactional_db, _stops_at_once) -> AsyncIterator[Node]:
    """The node of the site."""
    found = await get_node()
    yield found
    await stop_node()


@pytest.fixture
async def production_node(
    mode_of, transactional_db, monkeypatch, _stops_at_once
) -> AsyncIterator[Node]:
    """The node of the site, which listens to Redis, and connects again without a pause."""
    monkeypatch.setattr("push.bus.redis_listener.RETRY_INTERVAL", 0.01)
    mode_of("production")
    yield await get_node()
    await stop_node()


def push_now(push: Push) -> int:
    """Accept a push and fan it out, as the API and a worker do."""
    one = accept_push(push)
    for partition in range(conf.PARTITIONS):
        drain(partition)
    return one
