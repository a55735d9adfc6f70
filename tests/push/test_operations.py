"""What operators do, at the channel layer: who is told what."""

import time

import pytest

from accounts.models import Token
from imgo_site.errors import BadRequest, NotFound, Unavailable
from push.bus.group_names import key_group, node_group
from push.operations import drain_node, kick_key, kick_session, revoke_token, undrain_node
from push.registry.base import Entry, NodeEntry
from push.registry.redis_registry import RedisRegistry
from push.wire import CloseCode
from tests import in_thread


@pytest.fixture
async def registries(redis_client, settings):
    """Makes the registries of live nodes: (id, name)."""
    made = []

    async def make(node_id: str, name: str) -> RedisRegistry:
        registry = RedisRegistry(settings.REDIS_URL)
        await registry.start(NodeEntry(node_id, name, len(made) + 1, time.time()))
        made.append(registry)
        return registry

    yield make
    for registry in made:
        await registry.stop()


def entry(node_id: str, key: str) -> Entry:
    return Entry(f"{node_id}-1", key, node_id, "tcp", "127.0.0.1", "", time.time())


async def test_drain_of_a_name_that_a_killed_node_had_too_drains_all_of_them(registries, listen):
    for node_id, name in (("a1", "web"), ("b2", "web"), ("c3", "other")):
        registry = await registries(node_id, name)
        await registry.add(entry(node_id, "u1"), 0, evict=False)
        if node_id != "a1":  # that one was killed
            await registry.report(0, {}, is_draining=True)
    heard = await listen(*map(node_group, ("a1", "b2", "c3")))
    assert await in_thread(drain_node, "web") == 2
    assert [order["group"] for order in await heard()] == [node_group("a1"), node_group("b2")]
    assert await in_thread(drain_node, "c3") == 1
    assert [order["group"] for order in await heard()] == [node_group("c3")]
    with pytest.raises(NotFound, match="no live node 'nobody'"):
        await in_thread(drain_node, "nobody")
    assert await heard() == []


@pytest.mark.parametrize(("order", "state"), [(drain_node, False), (undrain_node, True)])
async def test_order_to_a_node_that_does_not_confirm_it_fails(
    registries, monkeypatch, order, state
):
    monkeypatch.setattr("push.operations.CONFIRM_TIMEOUT", 0.2)
    registry = await registries("a1", "web")
    await registry.report(0, {}, is_draining=state)
    with pytest.raises(Unavailable, match="web has not confirmed"):
        await in_thread(order, "web")


def test_the_sessions_of_a_token_are_closed_when_it_is_gone_for_all(
    db, django_capture_on_commit_callbacks, monkeypatch
):
    told = []
    monkeypatch.setattr("push.operations.publish", lambda orders, _: told.extend(orders))
    Token.objects.issue("u1")
    with django_capture_on_commit_callbacks(execute=True):
        revoke_token("u1")
        assert told == []  # until the commit it still opens sessions
    assert [order["group"] for order in told] == [key_group("u1")]


async def test_a_key_is_kicked_everywhere_and_a_session_where_it_is(registries, listen):
    for node_id in ("a1", "b2"):
        registry = await registries(node_id, node_id)
        await registry.add(entry(node_id, "u1"), 0, evict=False)
    heard = await listen(key_group("u1"), node_group("a1"), node_group("b2"))
    assert await in_thread(kick_key, "u1") == 2
    assert await in_thread(kick_key, "u2") == 0
    await in_thread(kick_session, "b2-1")
    assert [(order["group"], order["sessions"], order["code"]) for order in await heard()] == [
        (key_group("u1"), [], CloseCode.KICKED),
        (node_group("b2"), ["b2-1"], CloseCode.KICKED),
    ]
    for wrong in ("", "b2", "b2-", "-1", "b2-x", "b 2-1"):
        with pytest.raises(BadRequest, match="is not a session's id"):
            await in_thread(kick_session, wrong)
