"""A node: who is counted in and out, how it starts and stops, what it does after a gap."""

import asyncio
from typing import Any

import pytest

from imgo_site.asgi import application
from imgo_site.errors import TooManySessions, Unavailable
from offline.models import Pending
from push.accept.accept import Push, accept_push
from push.bus.group_names import room_group
from push.models import Node as NodeRow
from push.node import node as module
from push.node.hub import Hub
from push.node.node_instance import NodeInstance
from push.operations import drain_node, undrain_node
from push.session.outgoing import OutgoingMessage
from push.status.health import State
from push.wire import CloseCode
from tests import PATIENCE, eventually, in_thread
from tests.push.conftest import get_node, push_now, stop_node
from tests.push.sessions import admit, closed, ids


async def sessions_of(node, key: str) -> list[str]:
    return [entry.id for entry in await in_thread(node.registry.sessions, key)]


# Sessions


async def test_an_admitted_session_is_where_it_should_be(node):
    session = await admit(node, "u1", "a", "b")
    assert node.hub.sessions == {session.id: session}
    assert session.rooms == {"a", "b"}
    assert await sessions_of(node, "u1") == [session.id]
    assert await in_thread(node.registry.rooms) == {"a": 1, "b": 1}
    for_others = (Push(b"1", keys=("u2",)), Push(b"2", room="c"))
    for_it = (Push(b"3", keys=("u1",)), Push(b"4", room="a"), Push(b"5", to_all=True))
    for push in for_others:
        await in_thread(push_now, push)
    expected = [await in_thread(push_now, push) for push in (*for_it, Push(b"6", room="b"))]
    await eventually(lambda: len(ids(session)) >= 4)
    assert ids(session) == expected


async def test_nothing_is_left_of_a_dismissed_session(node):
    session = await admit(node, "u1", "a")
    await node.dismiss(session)
    await node.dismiss(session)
    assert session.is_closed
    assert (node.hub.sessions, node.entries) == ({}, {})
    assert await sessions_of(node, "u1") == []
    assert await in_thread(node.registry.rooms) == {}


async def test_rooms_can_be_joined_and_left(node):
    session = await admit(node, "u1", "a")
    await node.membership.join(session, "b")
    await node.membership.leave(session, "a")
    assert session.rooms == {"b"}
    assert await in_thread(node.registry.rooms) == {"b": 1}
    await in_thread(push_now, Push(b"1", room="a"))
    one = await in_thread(push_now, Push(b"2", room="b"))
    await eventually(lambda: ids(session))
    assert ids(session) == [one]


async def test_at_the_cap_a_session_is_refused(node, imgo):
    imgo(MAX_SESSIONS_PER_KEY=1)
    first = await admit(node)
    with pytest.raises(TooManySessions):
        await admit(node)
    assert node.hub.sessions == {first.id: first}
    await admit(node, "u2")
    await node.dismiss(first)
    await admit(node)


async def test_at_the_cap_the_oldest_can_be_replaced(node, imgo):
    imgo(MAX_SESSIONS_PER_KEY=2, SESSION_CAP_POLICY="close_oldest")
    sessions = [await admit(node) for _ in range(3)]
    await eventually(lambda: sessions[0].is_closed)
    assert [closed(session) for session in sessions] == [[CloseCode.REPLACED], [], []]
    assert await sessions_of(node, "u1") == [session.id for session in sessions[1:]]


def test_ids_of_sessions_are_their_own(transactional_db, mode):
    nodes = [module.Node(NodeInstance(), module.own_name()) for _ in range(3)]
    found = [node.new_session_id() for node in nodes for _ in range(50)]
    assert len(set(found)) == 150


class Slow:
    """A method that waits until it is `opened`, and then does what it did before."""

    def __init__(self, owner: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self._method = getattr(owner, name)
        self.entered, self.opened = asyncio.Event(), asyncio.Event()
        monkeypatch.setattr(owner, name, self)

    async def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.entered.set()
        await self.opened.wait()
        return await self._method(*arguments, **options)


@pytest.mark.parametrize("at", ["hub.join", "registry.join"])
async def test_session_dismissed_during_join_is_in_no_room(node, monkeypatch, at):
    session = await admit(node, "u1")
    owner, name = at.split(".")
    slow = Slow(getattr(node, owner), name, monkeypatch)
    joining = asyncio.create_task(node.membership.join(session, "a"))
    await slow.entered.wait()
    await node.dismiss(session)
    slow.opened.set()
    await joining
    assert (node.hub.groups, await in_thread(node.registry.rooms)) == ({}, {})
    await node.membership.leave(session, "a")


@pytest.mark.parametrize("at", ["registry.join", "presence.enter"])
async def test_join_that_fails_can_be_tried_again(node, monkeypatch, at):
    """A session that was told of an error is not in the room, so its next try joins."""
    session = await admit(node, "u1")

    async def fail(*_: Any) -> None:
        raise Unavailable("Redis is away.")

    with monkeypatch.context() as patch:
        owner, name = at.split(".")
        patch.setattr(getattr(node, owner), name, fail)
        with pytest.raises(Unavailable):
            await node.membership.join(session, "a")
    assert (session.rooms, room_group("a") in node.hub.groups) == (set(), False)
    assert await in_thread(node.registry.rooms) == {}
    await node.membership.join(session, "a")
    one = await in_thread(push_now, Push(b"1", room="a"))
    await eventually(lambda: ids(session) == [one])


async def test_join_that_fails_drops_the_messages_held_for_it(node, monkeypatch):
    session = await admit(node, "u1")
    session.hold(1_000)

    async def fail(*_: Any) -> None:
        node.hub.deliver(room_group("a"), OutgoingMessage(1, 5, b"1", True, room="a"))
        assert session._hold_left == 999
        raise Unavailable("Redis is away.")

    monkeypatch.setattr(node.registry, "join", fail)
    with pytest.raises(Unavailable):
        await node.membership.join(session, "a")
    assert session._hold_left == 1_000
    session.release()
    assert ids(session) == []


async def confirmed(node, order) -> None:
    """Give an order while the node reports its state, as it does every second."""
    giving = asyncio.ensure_future(in_thread(order, node.name))

    async def is_given() -> bool:
        await node.rounds.report()
        return giving.done()

    await eventually(is_given)
    await giving


async def test_drained_node_takes_sessions_again_when_that_is_undone(node, caplog, monkeypatch):
    monkeypatch.setattr("push.operations.get_registry", lambda: node.registry)
    caplog.set_level("INFO", "push.node.node")
    session = await admit(node)
    await confirmed(node, drain_node)
    await eventually(lambda: session.is_closed)
    await node.dismiss(session)
    with pytest.raises(Unavailable):
        await admit(node)
    await node.rounds.report()
    assert [one.is_draining for one in await in_thread(node.registry.nodes)] == [True]
    assert (node.health.state, node.health.is_alive) == (State.DRAINING, True)
    await confirmed(node, undrain_node)
    await eventually(lambda: not node.is_draining)
    await admit(node)
    await node.rounds.report()
    assert [one.is_draining for one in await in_thread(node.registry.nodes)] == [False]
    assert node.health.state is State.READY
    lines = [line for line in caplog.messages if line.startswith(f"node {node.name}")]
    assert lines[0].endswith("an operator started a drain, closing 1 sessions")
    assert "is drained, after" in lines[1]
    assert lines[2].endswith("accepts sessions again")


async def test_drain_that_is_undone_closes_no_more_sessions(node, imgo):
    imgo(DRAIN_SECONDS=3600.0)
    sessions = [await admit(node, f"u{n}") for n in range(3)]
    draining = asyncio.create_task(node.drain())
    await eventually(lambda: sessions[0].is_closed)
    await node.undrain()
    await asyncio.wait_for(draining, PATIENCE)
    assert [session.is_closed for session in sessions] == [True, False, False]


async def test_stop_of_a_node_cannot_be_undone(node):
    await stop_node()
    await node.undrain()
    assert node.is_draining
    assert node.health.state is State.STOPPING


@pytest.mark.parametrize("at", ["registry.add", "registry.join"])
async def test_session_admitted_during_stop_is_refused(node, monkeypatch, at):
    owner, name = at.split(".")
    slow = Slow(getattr(node, owner), name, monkeypatch)
    admitting = asyncio.create_task(admit(node, "u1", "a"))
    await slow.entered.wait()
    await node.drain()
    for session in list(node.hub.sessions.values()):  # as `stop` does
        await node.dismiss(session)
    slow.opened.set()
    with pytest.raises(Unavailable):
        await admitting
    assert (node.hub.groups, node.hub.sessions, node.entries) == ({}, {}, {})
    assert await sessions_of(node, "u1") == []
    assert await in_thread(node.registry.rooms) == {}


async def test_session_that_goes_during_renewal_stays_gone(node, monkeypatch):
    session = await admit(node, "u1", "a")
    await in_thread(node.registry.forget_node, node.id)  # the lease was lost
    slow = Slow(node.registry, "renew", monkeypatch)
    renewing = asyncio.create_task(node.rounds.renew())
    await slow.entered.wait()
    await node.dismiss(session)
    slow.opened.set()
    await renewing
    assert await sessions_of(node, "u1") == []
    assert await in_thread(node.registry.rooms) == {}


# Starting and stopping


async def test_all_who_ask_get_the_one_node(transactional_db, mode):
    assert not application.instance.is_running
    nodes = await asyncio.gather(*(get_node() for _ in range(5)))
    assert len(set(nodes)) == 1
    assert application.instance.is_running
    assert await in_thread(NodeRow.objects.count) == 1
    await stop_node()
    assert not application.instance.is_running
    await stop_node()


async def test_who_gives_up_waiting_does_not_stop_the_start(transactional_db, mode):
    gone = asyncio.create_task(get_node())
    stays = asyncio.create_task(get_node())
    await asyncio.sleep(0)
    gone.cancel()
    assert (await stays).id
    assert gone.cancelled()
    await stop_node()


async def test_a_start_that_failed_is_tried_again(database_down, mode):
    with pytest.raises(Exception, match="connection"):
        await get_node()
    assert not application.instance.is_running
    await in_thread(database_down)
    await get_node()
    assert application.instance.is_running
    await stop_node()


async def test_a_stopped_node_sends_its_sessions_elsewhere(transactional_db, mode):
    node = await get_node()
    sessions = [await admit(node, f"u{n}", "a") for n in range(3)]
    registry = node.registry
    await stop_node()
    assert [closed(session) for session in sessions] == [[CloseCode.GOING_AWAY]] * 3
    assert await in_thread(registry.nodes) == []
    assert await in_thread(registry.sessions, "u1") == []


async def test_stopped_node_refuses_sessions_and_keeps_the_registry_as_it_is(
    transactional_db, mode, redis_client
):
    node = await get_node()
    session = await admit(node, "u1", "a")
    await stop_node()
    with pytest.raises(Unavailable):
        await admit(node, "u2")
    await node.dismiss(session)  # its connection ends only now
    assert not redis_client.keys("imgo:registry:count:*")


async def test_a_start_that_failed_half_way_leaves_no_node_behind(
    transactional_db, mode, monkeypatch
):
    async def fail(hub) -> None:
        raise OSError("no layer")

    monkeypatch.setattr(Hub, "start", fail)
    with pytest.raises(OSError, match="no layer"):
        await get_node()
    assert await in_thread(module.open_registry().nodes) == []


async def test_a_stopping_node_writes_what_was_acknowledged(transactional_db, mode):
    node = await get_node()
    one = await in_thread(accept_push, Push(b"1", keys=("u1",)))
    node.acknowledger.received(one, "u1", "s1")
    await stop_node()
    assert not await in_thread(Pending.objects.exists)


async def test_a_node_has_the_name_that_is_set(transactional_db, mode, imgo):
    imgo(NODE_NAME="west-1")
    node = await get_node()
    assert [entry.name for entry in await in_thread(node.registry.nodes)] == ["west-1"]
    await stop_node()


@pytest.mark.parametrize("silent", ["client", "registry", "database"])
async def test_stop_ends_in_its_time_whatever_is_silent(node, monkeypatch, caplog, silent):
    for name, seconds in (("STOP", 1.0), ("DRAINED", 0.2), ("DISMISSED", 0.2)):
        monkeypatch.setattr(module, f"{name}_TIMEOUT", seconds)
    session = await admit(node)

    async def wait_for_ever(*_: Any) -> None:
        await asyncio.get_running_loop().create_future()

    targets = {
        "client": [(session.link, "drained")],
        "registry": [(node.registry, "remove"), (node.registry, "stop")],
        "database": [(node.acknowledger, "stop")],
    }
    with monkeypatch.context() as patch:
        for target, name in targets[silent]:
            patch.setattr(target, name, wait_for_ever)
        await asyncio.wait_for(stop_node(), PATIENCE)
    assert "did not end in time" in caplog.text
    assert node.hub.sessions == {}
    await node.registry.stop()
