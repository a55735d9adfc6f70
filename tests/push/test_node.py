"""A node: who is counted in and out, what it looks after, how it starts and stops."""

import asyncio
import time
from datetime import timedelta

import pytest
from django.utils import timezone

from imgo_site.errors import TooManySessions, Unavailable
from offline.models import Message, Pending
from push import node as module
from push.groups import key_group, room_group
from push.hub import Hub
from push.models import Dedupe
from push.models import Node as NodeRow
from push.node import get_node, is_running, stop_node
from push.registry import Entry
from push.services import Push, accept_push
from push.session import Session
from push.wire import CloseCode
from tests import eventually, in_thread

from .conftest import push_now
from .sessions import frames, make_session, message


async def admit(node, key: str = "u1", *rooms: str, **options) -> Session:
    session = make_session(node.new_session_id(), key=key, acks=True, **options)
    session.last_seen = asyncio.get_running_loop().time()
    session.opened = time.time()
    entry = Entry(session.id, key, node.id, "tcp", "192.0.2.1", "", session.opened)
    try:
        await node.admit(session, entry, list(rooms))
    except BaseException:
        await node.dismiss(session)
        raise
    return session


async def sessions_of(node, key: str) -> list[str]:
    return [entry.id for entry in await in_thread(node.registry.sessions, key)]


def closed(session: Session) -> list[int]:
    return [code for code, _ in session.link.closed]


def ids(session: Session) -> list[int]:
    return [frame.id for frame in frames(session)]


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
    await node.join_room(session, "b")
    await node.leave_room(session, "a")
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
    nodes = [module.Node() for _ in range(3)]
    found = [node.new_session_id() for node in nodes for _ in range(50)]
    assert len(set(found)) == 150


# Care


async def test_a_silent_session_is_closed(node, imgo):
    imgo(HEARTBEAT_TIMEOUT=60.0)
    silent, alive = await admit(node), await admit(node)
    silent.last_seen -= 61
    await node._close_silent()
    assert (closed(silent), closed(alive)) == ([CloseCode.HEARTBEAT_TIMEOUT], [])


async def test_a_session_ends_with_its_identity(node):
    ended, later = await admit(node), await admit(node)
    ended.expires_at = time.time() - 0.1
    later.expires_at = time.time() + 60
    await node._close_silent()
    assert (closed(ended), closed(later)) == ([CloseCode.EXPIRED], [])


async def test_the_memory_of_a_replay_is_kept_for_a_while_only(node):
    session = await admit(node)
    session.replay(message(1))
    await node._close_silent()
    session.deliver(message(1))
    assert ids(session) == [1]
    session.opened -= module.REPLAY_MEMORY + 1
    await node._close_silent()
    session.deliver(message(1))
    assert ids(session) == [1, 1]


async def test_what_the_registry_lost_is_written_again(node, mode, redis_client):
    session = await admit(node, "u1", "a")
    redis_client.flushdb()
    await in_thread(node.registry.forget_node, node.id)
    await node._renew()
    assert await sessions_of(node, "u1") == [session.id]
    assert await in_thread(node.registry.rooms) == {"a": 1}
    (seen,) = await in_thread(node.registry.nodes)
    assert (seen.id, seen.name, seen.sessions) == (node.id, node.name, 1)


async def test_a_renewal_is_a_sign_of_life_in_the_database(node):
    row = await in_thread(NodeRow.objects.get)
    await node._renew()
    again = await in_thread(NodeRow.objects.get)
    assert (again.pk, again.name) == (row.pk, node.name)
    assert again.last_seen > row.last_seen


async def test_what_is_past_its_time_is_deleted(node, imgo):
    def make() -> None:
        old = accept_push(Push(b"1", keys=("u1",), dedupe_id="old"))
        accept_push(Push(b"1", keys=("u1",), dedupe_id="new"))
        Message.objects.filter(pk=old).update(expires_at=timezone.now())
        Dedupe.objects.filter(message_id=old).update(created_at=timezone.now() - timedelta(days=2))

    await in_thread(make)
    await node._expire()
    assert await in_thread(Message.objects.count) == 1
    assert (await in_thread(Dedupe.objects.get)).dedupe_id == "new"


async def test_an_empty_group_is_left_after_its_linger(node, imgo):
    imgo(GROUP_LINGER=0.0)
    session = await admit(node, "u1", "a")
    await node.dismiss(session)
    await node._leave_groups()
    assert room_group("a") not in node.hub._joined
    assert key_group("u1") not in node.hub._joined


async def test_care_goes_on_after_a_failure(caplog):
    calls = []

    async def care() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise Unavailable("away")
        if len(calls) == 2:
            raise LookupError("a bug")

    task = asyncio.create_task(module._repeat(care, 0.001))
    await eventually(lambda: len(calls) >= 4)
    task.cancel()
    away, bug = [r for r in caplog.records if r.name == "push.node"]
    assert (away.levelname, away.exc_info) == ("WARNING", None)
    assert bug.exc_info[0] is LookupError


# Starting and stopping


async def test_all_who_ask_get_the_one_node(transactional_db, mode):
    assert not is_running()
    nodes = await asyncio.gather(*(get_node() for _ in range(5)))
    assert len(set(nodes)) == 1
    assert is_running()
    assert await in_thread(NodeRow.objects.count) == 1
    await stop_node()
    assert not is_running()
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
    assert not is_running()
    await in_thread(database_down)
    await get_node()
    assert is_running()
    await stop_node()


async def test_a_stopped_node_sends_its_sessions_elsewhere(transactional_db, mode):
    node = await get_node()
    sessions = [await admit(node, f"u{n}", "a") for n in range(3)]
    registry = node.registry
    await stop_node()
    assert [closed(session) for session in sessions] == [[CloseCode.GOING_AWAY]] * 3
    assert await in_thread(registry.nodes) == []
    assert await in_thread(registry.sessions, "u1") == []


async def test_who_comes_to_a_stopped_node_is_refused_and_the_registry_stays_as_it_is(
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
    assert await in_thread(module.get_registry().nodes) == []


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
