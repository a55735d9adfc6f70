"""Online keys of whole nodes: moves, deaths, lost leases, stops and outages."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from push.models import OnlineKey, OnlineNode, OnlineState
from push.node.node import Node
from push.node.node_instance import NodeInstance
from push.online import lease_watch, local_keys
from push.session.session import Session
from tests import eventually, in_thread
from tests.push.sessions import admit
from tests.push.webhooks.conftest import entry

from .conftest import data, stored

pytestmark = pytest.mark.usefixtures("_stops_at_once")

GRACE = 0.4


@pytest.fixture
async def instances(
    transactional_db, redis_client, imgo, monkeypatch
) -> AsyncIterator[list[NodeInstance]]:
    """Two nodes that send no webhooks, so that their events stay to be seen."""
    imgo(
        EVENT_KEYS=["u*"],
        PRESENCE_GRACE=GRACE,
        WEBHOOKS=[entry(events=["key.online", "key.offline"])],
        NODE_LEASE=1.5,
    )
    monkeypatch.setattr(local_keys, "MARGIN", 0.1)
    monkeypatch.setattr("push.node.node.READ_EVERY", 0.1)
    monkeypatch.setattr("push.node.node.WRITE_EVERY", 0.02)
    monkeypatch.setattr("push.node.webhook_thread.WebhookThread.start", lambda _: None)
    monkeypatch.setattr(lease_watch, "READ_EVERY", 0.1)
    found = [NodeInstance("one"), NodeInstance("two")]
    yield found
    for instance in found:
        await instance.stop()


@pytest.fixture
async def nodes(instances) -> list[Node]:
    return [await instance.node() for instance in instances]


async def opened(node: Node, key: str) -> Session:
    session = await admit(node, key)
    node.record_opened(session)
    return session


async def have_happened(*expected: tuple[str, str]) -> None:
    happened: list[tuple[str, str]] = []

    async def are_there() -> bool:
        happened[:] = await in_thread(stored)
        return happened == list(expected)

    try:
        await eventually(are_there)
    finally:
        assert happened == list(expected)


async def is_online(key: str, where: int = 1) -> bool:
    """Whether the rows of so many nodes say so."""
    return await in_thread(OnlineKey.objects.filter(key=key).count) == where


async def test_key_that_moves_to_another_node_stays_online(nodes):
    first = await opened(nodes[0], "u1")
    await have_happened(("key.online", "u1"))
    await nodes[0].dismiss(first)
    second = await opened(nodes[1], "u1")

    def nodes_with_keys() -> list[str]:
        # The second node makes its row with its first key.
        names = dict(OnlineNode.objects.values_list("id", "name"))
        return [names[node] for node in OnlineKey.objects.values_list("node", flat=True)]

    async def has_moved() -> bool:
        return await in_thread(nodes_with_keys) == ["two"]

    await eventually(has_moved)
    await nodes[1].dismiss(second)
    await have_happened(("key.online", "u1"), ("key.offline", "u1"))
    opening, end = await in_thread(data)
    assert (opening["session"], opening["node"]) == (first.id, "one")
    assert (end["session"], end["node"]) == (second.id, "two")
    assert end["reason"] == "the client has gone"


async def test_session_that_was_never_opened_is_no_event(nodes):
    session = await admit(nodes[0], "u1")
    other = await opened(nodes[0], "x1")
    await nodes[0].dismiss(session)
    await nodes[0].dismiss(other)
    await opened(nodes[0], "u2")
    await have_happened(("key.online", "u2"))


async def test_keys_of_a_dead_node_go_offline_unless_another_node_has_them(nodes):
    for key in ("u1", "u2"):
        await opened(nodes[0], key)
    # Events of different nodes have no order: the second node's may be written first.
    await have_happened(("key.online", "u1"), ("key.online", "u2"))
    await opened(nodes[1], "u2")
    await eventually(lambda: is_online("u2", 2))
    await nodes[0].runtime.stop(0.0)  # it beats no more
    await eventually(lambda: is_online("u2", 1))
    await have_happened(("key.online", "u1"), ("key.online", "u2"), ("key.offline", "u1"))
    assert (await in_thread(data))[2]["reason"] == "the node of its last session was lost"


async def test_node_whose_lease_was_taken_inserts_all_its_keys_again(nodes):
    here = await opened(nodes[0], "u1")
    gone = await opened(nodes[0], "u2")
    await have_happened(("key.online", "u1"), ("key.online", "u2"))
    await nodes[0].dismiss(gone)
    # As another node does that takes it for dead.
    await in_thread(OnlineNode.objects.filter(name="one").update, is_ended=True)

    async def words_of(key: str) -> list[str]:
        return [name for name, other in await in_thread(stored) if other == key]

    async def is_settled() -> bool:
        states = await in_thread(lambda: dict(OnlineState.objects.values_list("key", "is_online")))
        return states == {"u1": True, "u2": False} and await is_online("u1")

    await eventually(is_settled)
    for key in ("u1", "u2"):
        words = await words_of(key)
        assert words == ["key.online", "key.offline"] * (len(words) // 2) + words[:1] * (
            len(words) % 2
        )
    await nodes[0].dismiss(here)
    await eventually(lambda: is_online("u1", 0))


async def test_lease_that_a_failover_lost_is_taken_anew_with_all_keys(nodes):
    await opened(nodes[0], "u1")
    await have_happened(("key.online", "u1"))

    def forget() -> None:
        OnlineKey.objects.all().delete()
        OnlineState.objects.all().delete()
        OnlineNode.objects.filter(name="one").delete()

    await in_thread(forget)
    await eventually(lambda: is_online("u1"))
    await have_happened(("key.online", "u1"), ("key.online", "u1"))
    first, second = [row["number"] for row in await in_thread(data)]
    assert second > first


async def test_other_timeline_causes_no_event_for_keys_that_are_known(nodes):
    await opened(nodes[0], "u1")
    await have_happened(("key.online", "u1"))
    await in_thread(OnlineNode.objects.filter(name="one").update, cluster="before")
    old = await in_thread(lambda: OnlineNode.objects.get(name="one").pk)

    async def is_replaced() -> bool:
        return not await in_thread(OnlineNode.objects.filter(pk=old).exists)

    await eventually(is_replaced)
    assert await is_online("u1")
    assert await in_thread(stored) == [("key.online", "u1")]


async def test_keys_of_a_stopped_node_have_the_grace_to_come_back(instances, nodes):
    for key in ("u1", "u2"):
        await opened(nodes[0], key)
    await have_happened(("key.online", "u1"), ("key.online", "u2"))
    await instances[0].stop()
    await opened(nodes[1], "u1")
    await have_happened(("key.online", "u1"), ("key.online", "u2"), ("key.offline", "u2"))
    assert await is_online("u1")
    end = (await in_thread(data))[2]
    assert (end["code"], end["node"]) == (4000, "one")


async def test_outage_of_the_database_delays_events_and_loses_none(nodes, terminate):
    session = await opened(nodes[0], "u1")
    await have_happened(("key.online", "u1"))

    def rename(old: str, new: str) -> None:
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {old} RENAME TO {new}")

    await in_thread(rename, "push_onlinestate", "elsewhere")
    await nodes[0].dismiss(session)
    await opened(nodes[0], "u2")
    await asyncio.sleep(2 * GRACE)
    await in_thread(terminate)
    await in_thread(rename, "elsewhere", "push_onlinestate")
    await have_happened(("key.online", "u1"), ("key.online", "u2"), ("key.offline", "u1"))


async def test_node_without_event_keys_writes_nothing(node):
    assert node.online is None
    await opened(node, "u1")
    assert not await in_thread(OnlineNode.objects.exists)
