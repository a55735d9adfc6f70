"""The rounds of a node: for its sessions, for the layer, for its place in the cluster."""

import asyncio
import threading
import time
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError
from django.test import Client

from accounts.identity import Identity, proof_of
from accounts.models import Token, digest
from imgo_site.database_clock import Reading, boot_time
from offline.models import RECEIVED, Outbox
from offline.settlement import record_receipts
from offline.values import Receipt
from push.accept.accept import Push, accept_pushes
from push.bus.group_names import key_group, room_group
from push.metrics import definitions as metrics
from push.models import Node as NodeRow
from push.node import rounds
from push.node.cluster_jobs import ClusterJobs
from push.status import snapshot
from push.wire import CloseCode
from tests import PATIENCE, eventually, in_thread
from tests.push.sessions import admit, closed, ids, message


@pytest.fixture
async def node(node):
    """A node whose rounds are done by the test."""
    await asyncio.gather(node.rounds.stop(), node.cluster_jobs.stop())
    return node


def value_of(counter) -> float:
    return counter._value.get()


async def sessions_of(node, key: str) -> list[str]:
    return [entry.id for entry in await in_thread(node.registry.sessions, key)]


# For its sessions


async def test_a_silent_session_is_closed(node, imgo):
    imgo(HEARTBEAT_TIMEOUT=60.0)
    silent, alive = await admit(node), await admit(node)
    silent.last_seen -= 61
    await node.rounds.close_silent()
    assert (closed(silent), closed(alive)) == ([CloseCode.HEARTBEAT_TIMEOUT], [])


async def test_a_session_ends_with_its_identity(node):
    ended, later = await admit(node), await admit(node)
    ended.expires_at = time.time() - 0.1
    later.expires_at = time.time() + 60
    await node.rounds.close_silent()
    assert (closed(ended), closed(later)) == ([CloseCode.EXPIRED], [])


async def test_session_ends_by_the_databases_time_not_the_hosts(node):
    """A host whose clock is two hours slow would keep an expired session for two hours."""
    session = await admit(node)
    session.expires_at = time.time() + 3600
    now = boot_time()
    node.clock.take(Reading(time.time() + 7200, now, now))
    await node.rounds.close_silent()
    assert closed(session) == [CloseCode.EXPIRED]


async def test_announcement_renews_the_databases_time(node):
    now = boot_time()
    node.clock.take(Reading(time.time() + 7200, now, now))
    await node.rounds.announce()
    assert abs(node.clock.now() - time.time()) < 10


async def test_the_memory_of_a_replay_is_kept_for_a_while_only(node):
    session = await admit(node)
    session.replay(message(1))
    await node.rounds.close_silent()
    session.deliver(message(1))
    assert ids(session) == [1]
    session.opened -= rounds.REPLAY_MEMORY + 1
    await node.rounds.close_silent()
    session.deliver(message(1))
    assert ids(session) == [1, 1]


async def token_session(node, key: str):
    """A session of `key` that was let in with a stored token."""
    _, text = await in_thread(Token.objects.issue, key)
    session = await admit(node, key)
    session.identity = Identity(key, source="token", proof=proof_of(digest(text)))
    return session


async def test_who_has_no_token_any_more_is_closed(node, imgo):
    imgo(REVALIDATE_INTERVAL=rounds.TICK)
    revoked, replaced, stays = [await token_session(node, f"u{n}") for n in range(3)]
    await node.rounds.revalidate()
    await in_thread(Token.objects.filter(key="u0").delete)
    await in_thread(Token.objects.issue, "u1")
    await node.rounds.revalidate()
    codes = [closed(session) for session in (revoked, replaced, stays)]
    assert codes == [[CloseCode.REVOKED], [CloseCode.REVOKED], []]


async def test_a_user_who_was_disabled_is_closed(node, imgo):
    imgo(REVALIDATE_INTERVAL=rounds.TICK)

    def sign_in() -> tuple[User, bytes]:
        user, client = User.objects.create_user("ann"), Client()
        client.force_login(user)
        return user, client.cookies["sessionid"].value.encode()

    user, cookie = await in_thread(sign_in)
    session = await admit(node, str(user.pk))
    session.identity = Identity(session.key, source="session", proof=cookie)
    await node.rounds.revalidate()
    assert closed(session) == []
    await in_thread(User.objects.update, is_active=False)
    await node.rounds.revalidate()
    assert closed(session) == [CloseCode.REVOKED]


async def test_all_have_their_turn_within_the_interval(node, imgo, monkeypatch):
    imgo(REVALIDATE_INTERVAL=4 * rounds.TICK)
    examined = []
    monkeypatch.setattr(rounds, "revoked", lambda found: examined.append(found) or [])
    sessions = [await admit(node, f"u{n}") for n in range(10)]
    for _ in range(4):
        await node.rounds.revalidate()
    assert [len(some) for some in examined] == [3, 3, 3, 1]
    assert {one.key for some in examined for one in some} == {s.key for s in sessions}
    await node.rounds.revalidate()
    assert len(examined) == 5


async def test_an_audit_finds_what_is_pending_for_a_key_that_is_here(node, imgo):
    imgo(AUDIT_INTERVAL=rounds.TICK, SWEEP_AFTER=0.0)
    session, other = await admit(node), await admit(node, "u2")
    found = await in_thread(accept_pushes, [Push(b"1", keys=("u1", "absent"))] * 3)
    await in_thread(Outbox.objects.all().delete)
    await node.rounds.audit()
    assert (ids(session), ids(other)) == (found, [])
    await node.rounds.audit()
    assert ids(session) == found


async def test_there_is_no_audit_while_the_layer_does_not_carry(node, imgo, monkeypatch):
    """A key's sessions on other nodes would not get the same in the same order."""
    imgo(AUDIT_INTERVAL=rounds.TICK, SWEEP_AFTER=0.0)
    monkeypatch.setattr(rounds, "TICK", 0.1)
    session = await admit(node)
    await in_thread(accept_pushes, [Push(b"1", keys=("u1",))])
    await in_thread(Outbox.objects.all().delete)

    async def swallow(group: str, message: dict) -> None:
        pass

    with monkeypatch.context() as patch:
        patch.setattr(node.hub.layer, "group_send", swallow)
        await node.rounds.audit()
        assert ids(session) == []
        assert node.hub.echoes._waiters == {}  # nothing gathers while the layer is away

    async def is_found() -> bool:
        await node.rounds.audit()
        return bool(ids(session))

    await eventually(is_found)
    await node.rounds.audit()
    assert len(ids(session)) == 1


async def test_an_audit_of_nobody_asks_nothing(node, thread_queries):
    queries = await thread_queries()
    await node.rounds.audit()
    await node.rounds.revalidate()
    assert queries == []


# For its place among the others


async def test_what_the_registry_lost_is_written_again(node, mode, redis_client):
    session = await admit(node, "u1", "a")
    redis_client.flushdb()
    await in_thread(node.registry.forget_node, node.id)
    await node.rounds.renew()
    assert await sessions_of(node, "u1") == [session.id]
    assert await in_thread(node.registry.rooms) == {"a": 1}
    (seen,) = await in_thread(node.registry.nodes)
    assert (seen.id, seen.name, seen.sessions) == (node.id, node.name, 1)


async def test_renewal_counts_a_session_that_has_not_joined_its_groups_yet(node, monkeypatch):
    add = node.hub.add

    async def add_after_a_renewal(*arguments: Any) -> None:
        await node.rounds.renew()
        await add(*arguments)

    monkeypatch.setattr(node.hub, "add", add_after_a_renewal)
    await admit(node, "u1")
    assert [one.sessions for one in await in_thread(node.registry.nodes)] == [1]


async def test_a_lease_is_renewed_while_the_database_is_away(node, monkeypatch):
    async def fail(*_: object) -> None:
        raise DatabaseError("away")

    monkeypatch.setattr(rounds.cluster_threads, "run", fail)
    await node.rounds.renew()


async def test_renewal_of_the_process_ends_before_its_round(node, monkeypatch):
    """Written after the node has left, it would bring the node's entry back."""
    begun, go_on, written = threading.Event(), threading.Event(), []

    def announce_slowly(process: Any, registry: Any) -> None:
        begun.set()
        assert go_on.wait(PATIENCE)
        written.append(process)

    monkeypatch.setattr("push.node.process_list.announce", announce_slowly)
    renewing = asyncio.create_task(node.rounds.announce_process())
    assert await asyncio.to_thread(begun.wait, PATIENCE)
    renewing.cancel()
    await asyncio.wait([renewing], timeout=0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await renewing
    assert [process.kind for process in written] == ["node"]


async def test_an_announcement_is_a_sign_of_life_in_the_database(node):
    row = await in_thread(NodeRow.objects.get)
    await node.rounds.announce()
    again = await in_thread(NodeRow.objects.get)
    assert (again.pk, again.name) == (row.pk, node.name)
    assert again.last_seen > row.last_seen


async def test_an_empty_group_is_left_after_its_linger(node, imgo):
    imgo(GROUP_LINGER=0.0)
    session = await admit(node, "u1", "a")
    await node.dismiss(session)
    await node.rounds.leave_groups()
    assert room_group("a") not in node.hub.layer_groups
    assert key_group("u1") not in node.hub.layer_groups


async def test_a_node_hears_itself(node):
    node.hub.echoes.last -= rounds.ECHO_TIMEOUT / 2
    before = node.hub.echoes.last
    await node.rounds.echo()
    await eventually(lambda: node.hub.echoes.last > before)


@pytest.fixture
async def silent(production_node, redis_client):
    """A node that has heard nothing for long, though its connection seems to stand."""
    node = production_node
    await asyncio.gather(node.rounds.stop(), node.cluster_jobs.stop())
    node.hub.echoes.last = asyncio.get_running_loop().time() - 2 * rounds.ECHO_TIMEOUT
    return node


async def test_a_layer_that_is_silent_is_connected_to_again(silent, redis_client):
    session = await admit(silent)
    before = {client["id"] for client in redis_client.client_list(_type="pubsub")}
    again = value_of(metrics.LAYER_RECONNECTS.labels("silent"))
    (one,) = await in_thread(accept_pushes, [Push(b"1", keys=("u1",))])
    await silent.rounds.echo()
    await eventually(lambda: ids(session) == [one])

    def is_another() -> bool:
        after = {client["id"] for client in redis_client.client_list(_type="pubsub")}
        return len(after) == 1 and not after & before

    await eventually(is_another)
    assert value_of(metrics.LAYER_RECONNECTS.labels("silent")) - again == 1
    await silent.rounds.echo()  # it has been heard of: nothing more to do
    assert value_of(metrics.LAYER_RECONNECTS.labels("silent")) - again == 1


@pytest.mark.parametrize(
    ("heard", "reconnects"),
    [(rounds.SILENCE_MAX + 1, 1), (0.0, 0)],
    ids=["nothing is heard", "others are heard"],
)
async def test_late_echo_reconnects_only_a_silent_layer(production_node, heard, reconnects):
    """A node that is busy hears its echo late, behind the others' messages."""
    await asyncio.gather(production_node.rounds.stop(), production_node.cluster_jobs.stop())
    now, hub = asyncio.get_running_loop().time(), production_node.hub
    hub.echoes.last, hub.last_heard = now - rounds.SILENCE_MAX - 1, now - heard
    before = value_of(metrics.LAYER_RECONNECTS.labels("silent"))
    await production_node.rounds.echo()
    assert value_of(metrics.LAYER_RECONNECTS.labels("silent")) - before == reconnects


async def test_connection_made_anew_is_not_silent(production_node, redis_client):
    """To break it too would lose what is sent to rooms meanwhile."""
    node = production_node
    await asyncio.gather(node.rounds.stop(), node.cluster_jobs.stop())
    gaps = node.hub.gaps
    redis_client.client_kill_filter(_type="pubsub")
    await eventually(lambda: node.hub.gaps > gaps and not node.gap_recovery.is_open)
    node.hub.echoes.last = node.hub.last_heard = 0.0
    before = value_of(metrics.LAYER_RECONNECTS.labels("silent"))
    await node.rounds.echo()
    assert value_of(metrics.LAYER_RECONNECTS.labels("silent")) == before


async def test_what_others_had_while_the_layer_was_silent_comes_too(silent):
    session = await admit(silent)
    (one,) = await in_thread(accept_pushes, [Push(b"1", keys=("u1",))])
    receipt = Receipt(one, "u1", RECEIVED, "other-1", rounds.ECHO_TIMEOUT)
    await in_thread(record_receipts, [receipt])
    await silent.rounds.echo()
    await eventually(lambda: ids(session) == [one])


# For all nodes


async def test_a_node_says_how_much_it_delivered(node):
    node.hub.written.deliveries = 7
    await node.rounds.report()
    assert [one.deliveries for one in node.registry.nodes()] == [7]


async def test_a_node_that_drains_says_so(node):
    await node.drain()
    await node.rounds.report()
    assert [one.is_draining for one in node.registry.nodes()] == [True]


async def test_a_node_says_what_waits_for_its_sessions(node):
    first, second = await admit(node), await admit(node)
    second.link.waiting = 9
    await node.rounds.report()
    entries = [node.entries[one.id] for one in (first, second)]
    assert node.registry.waiting(entries) == [0, 9]


@pytest.mark.parametrize(
    ("interval", "is_done"), [(30.0, True), (0.0, False)], ids=["revalidates", "never"]
)
async def test_the_rounds_begin_with_the_node(
    production_node, imgo, monkeypatch, interval, is_done
):
    started = []
    imgo(REVALIDATE_INTERVAL=interval)
    jobs = ClusterJobs(production_node.hub, snapshot.RoomsCache())
    for one in (rounds.Rounds(production_node), jobs):
        monkeypatch.setattr(one.runtime, "repeat", lambda name, *_: started.append(name))
        one.start()
    assert ("revalidate" in started) == is_done
    assert {"close_silent", "sweep", "audit", "echo", "prune", "send_canaries", "inform"} <= set(
        started
    )
