"""Two nodes in one process: each has its sessions, its state and its end for itself."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from channels.layers import get_channel_layer
from django.core.handlers.asgi import ASGIRequest

from imgo_site.conf import conf
from imgo_site.errors import Unavailable
from imgo_site.process_parts import process
from offline.models import Reach
from push.accept.accept import Push
from push.api.health import HealthView, ReadyView
from push.metrics import definitions as metrics
from push.node.node import STOP_TIMEOUT, Node
from push.node.node_instance import NodeInstance
from push.operations import drain_node, undrain_node
from push.registry.select import get_registry
from push.session.session_metrics import SessionFigures
from push.status.health import State
from push.status.instance import INSTANCE
from tests import eventually, in_thread
from tests.push.conftest import push_now
from tests.push.sessions import admit, closed, ids

DATABASE_THREADS = {"imgo-logins", "imgo-sessions", "imgo-cluster"}

pytestmark = pytest.mark.usefixtures("_stops_at_once")


def answer(instance: NodeInstance, view: Any) -> tuple[int, dict[str, Any]]:
    """The answer of a probe that came to this instance's server."""
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], INSTANCE: instance}
    response = view.as_view()(ASGIRequest(scope, None))
    return response.status_code, response.data


def database_threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name in DATABASE_THREADS]


@pytest.fixture
async def instances(transactional_db, redis_client) -> AsyncIterator[list[NodeInstance]]:
    found = [NodeInstance("one"), NodeInstance("two")]
    for instance in found:
        await instance.node()
    yield found
    for instance in found:
        await instance.stop()


@pytest.fixture
async def nodes(instances) -> list[Node]:
    return [await instance.node() for instance in instances]


async def confirmed(nodes: list[Node], order: Callable[[str], Any], name: str) -> None:
    """Give an order while the nodes report their state, as they do every second."""
    giving = asyncio.ensure_future(in_thread(order, name))

    async def is_given() -> bool:
        for node in nodes:
            await node.rounds.report()
        return giving.done()

    await eventually(is_given)
    await giving


async def test_push_to_a_room_reaches_and_counts_the_sessions_of_both_nodes(nodes):
    sessions = [await admit(node, "u1", "a") for node in nodes]
    number = await in_thread(push_now, Push(b"1", room="a"))
    await eventually(lambda: all(ids(session) == [number] for session in sessions))
    for node in nodes:
        await node.hub.reach_counts.flush()
    row = await in_thread(Reach.objects.get, message_id=number)
    assert (row.sessions, row.nodes) == (2, 2)
    assert await in_thread(get_registry().rooms) == {"a": 2}
    assert [node.hub.written.deliveries for node in nodes] == [1, 1]
    for node in nodes:
        await node.rounds.report()
    listed = await in_thread(get_registry().nodes)
    assert [(one.name, one.sessions, one.deliveries) for one in listed] == [
        ("one", 1, 1),
        ("two", 1, 1),
    ]
    process.get(SessionFigures).update()
    assert metrics.SESSIONS.labels("tcp")._value.get() == 2


async def test_push_to_a_key_is_settled_by_the_node_that_had_it(nodes):
    first, second = [await admit(node, key) for node, key in zip(nodes, ("u1", "u2"), strict=True)]
    number = await in_thread(push_now, Push(b"1", keys=("u2",)))
    await eventually(lambda: ids(second) == [number])
    assert ids(first) == []
    assert [node.hub.written.deliveries for node in nodes] == [0, 1]


async def test_drain_of_one_node_leaves_the_other_ready(instances, nodes):
    sessions = [await admit(node, "u1") for node in nodes]
    await confirmed(nodes, drain_node, "one")
    await eventually(lambda: closed(sessions[0]))
    assert not closed(sessions[1])
    assert [one.health.state for one in instances] == [State.DRAINING, State.READY]
    assert [(await in_thread(answer, one, ReadyView))[0] for one in instances] == [503, 200]
    _, found = await in_thread(answer, instances[0], ReadyView)
    assert found["checks"]["process"] == "draining"
    with pytest.raises(Unavailable):
        await admit(nodes[0], "u2")
    await admit(nodes[1], "u2")
    await confirmed(nodes, undrain_node, "one")
    await eventually(lambda: instances[0].health.state is State.READY)
    await admit(nodes[0], "u2")


async def test_failing_task_of_one_node_is_not_the_others(instances, nodes, monkeypatch):
    monkeypatch.setattr(nodes[0].rounds.runtime, "failing", lambda: ["audit"])
    first, second = [(await in_thread(answer, one, ReadyView))[1] for one in instances]
    assert first["checks"]["tasks"] == "failing: audit"
    assert "tasks" not in second["checks"]


async def test_stop_of_one_node_leaves_the_other_serving(instances, nodes):
    sessions = [await admit(node, "u1", "a") for node in nodes]
    begin = time.monotonic()
    await instances[0].stop()
    assert time.monotonic() - begin < conf.DRAIN_SECONDS + STOP_TIMEOUT
    assert closed(sessions[0])
    assert [(await in_thread(answer, one, HealthView))[0] for one in instances] == [503, 200]
    assert (await in_thread(answer, instances[1], ReadyView))[0] == 200
    assert [one.name for one in await in_thread(get_registry().nodes)] == ["two"]
    held = [one.id for one in await in_thread(get_registry().sessions, "u1")]
    assert held == [sessions[1].id]
    later = await admit(nodes[1], "u2", "a")
    number = await in_thread(push_now, Push(b"1", room="a"))
    stored = await in_thread(push_now, Push(b"2", keys=("u1",)))
    await eventually(lambda: ids(sessions[1]) == [number, stored])
    await eventually(lambda: ids(later) == [number])
    assert await nodes[1].hub.echoes.send(5.0)
    await nodes[1].rounds.renew()
    assert await in_thread(get_registry().rooms) == {"a": 2}


async def test_both_ends_leave_no_task_thread_or_connection(
    transactional_db, redis_client, new_database_threads
):
    """Only what the process has for readers and publishers is left, and closes with it."""
    tasks, connections = asyncio.all_tasks(), len(redis_client.client_list())
    threads = set(threading.enumerate())
    found = [NodeInstance("one"), NodeInstance("two")]
    for number, instance in enumerate(found):
        node = await instance.node()
        await admit(node, f"u{number}", "a")
        await node.rounds.report()
        await node.rounds.audit()
    await in_thread(push_now, Push(b"1", room="a"))
    assert len(redis_client.client_list()) > connections
    for instance in found:
        await instance.stop()
    await eventually(lambda: asyncio.all_tasks() == tasks)
    await eventually(lambda: not database_threads())
    await in_thread(process.close)
    await eventually(lambda: len(redis_client.client_list()) <= connections)
    left = [one.name for one in set(threading.enumerate()) - threads]
    assert [name for name in left if name.startswith("imgo")] == []
    assert get_channel_layer()._get_layer().channels == {}
    assert not redis_client.keys("imgo:registry:node*")
