"""`manage.py drain`: the order to a node, what is printed, and the wait for the last session."""

import asyncio
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from django.core.management import CommandError

from push.bus.group_names import node_group
from push.management.commands import drain
from push.registry.base import Entry, NodeEntry
from push.registry.redis_registry import RedisRegistry
from tests import in_thread

SESSIONS = [Entry(f"a1-{n}", "u1", "a1", "tcp", "127.0.0.1", "", 0.0) for n in (1, 2)]


@pytest.fixture
async def node(redis_client, settings):
    """The registry of a node that reports it is draining; it has two sessions."""
    registry = RedisRegistry(settings.REDIS_URL)
    await registry.start(NodeEntry("a1", "web1", 1, time.time()))
    for entry in SESSIONS:
        await registry.add(entry, 0, evict=False)
    await registry.report(0, {}, is_draining=True)
    yield registry
    await registry.stop()


@pytest.fixture
def pauses(monkeypatch) -> Callable[[Callable[[], None]], None]:
    """Sets what happens in each pause of the command; no time passes."""

    def use(act: Callable[[], None]) -> None:
        clock = SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: act())
        monkeypatch.setattr(drain, "time", clock)

    return use


@pytest.mark.parametrize("name", ["web1", "a1"])
async def test_drain_orders_the_node_and_prints_its_sessions(node, listen, run, imgo, name):
    imgo(DRAIN_SECONDS=7.5)
    heard = await listen(node_group("a1"))
    printed = await in_thread(run, "drain", name)
    assert printed == f"{name} is draining: its 2 sessions close within 7.5 s.\n"
    assert [order["type"] for order in await heard()] == ["imgo.drain"]


async def test_drain_as_json_is_the_node_and_its_sessions(node, data):
    assert await in_thread(data, "drain", "web1") == {"node": "web1", "sessions": 2}


async def test_wait_ends_when_the_last_session_is_closed(node, run, pauses):
    loop, left = asyncio.get_running_loop(), list(SESSIONS)

    def close_one() -> None:
        asyncio.run_coroutine_threadsafe(node.remove(left.pop(), []), loop).result()

    pauses(close_one)
    printed = await in_thread(run, "drain", "web1", "--wait")
    assert printed == "web1 is draining: its 2 sessions are closed.\n"
    assert left == []


async def test_wait_is_given_up_with_the_number_of_sessions_left(node, run, imgo, monkeypatch):
    imgo(DRAIN_SECONDS=0.0)
    monkeypatch.setattr(drain, "GRACE", -1.0)
    with pytest.raises(CommandError, match=r"^web1 still has 2 sessions\.$"):
        await in_thread(run, "drain", "web1", "--wait")


async def test_undo_orders_the_node_to_take_sessions_again(node, listen, run, data):
    await node.report(0, {}, is_draining=False)
    heard = await listen(node_group("a1"))
    assert await in_thread(run, "drain", "web1", "--undo") == "web1 takes sessions again.\n"
    assert await in_thread(data, "drain", "web1", "--undo") == {"node": "web1", "draining": False}
    assert [order["type"] for order in await heard()] == ["imgo.undrain"] * 2


@pytest.mark.parametrize("option", [[], ["--wait"], ["--undo"]])
async def test_unknown_node_is_an_error(node, run, option):
    with pytest.raises(CommandError, match="no live node 'web7'"):
        await in_thread(run, "drain", "web7", *option)


def test_embedded_server_is_to_be_stopped_instead(run, settings):
    settings.REDIS_URL = ""
    with pytest.raises(CommandError, match="stop it: Ctrl-C or SIGTERM"):
        run("drain", "web1")
