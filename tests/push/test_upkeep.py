"""The rounds of a node: for its sessions, for the layer, and for all nodes together."""

import asyncio
import json
import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, OperationalError
from django.test import Client
from django.utils import timezone

from accounts.identity import Identity, proof_of
from accounts.models import Token, digest
from imgo_site.database_clock import Reading, boot_time
from imgo_site.names import DASHBOARD_ROOM
from offline import outbox_queue
from offline.models import RECEIVED, Event, Message, Outbox, Pending
from offline.settlement import record_receipts
from offline.values import Receipt
from push import fanout, metrics, snapshot
from push import upkeep as module
from push.groups import key_group, partition_of, room_group
from push.models import Canary, Dedupe, Duty
from push.models import Node as NodeRow
from push.services import Push, accept_push, accept_pushes
from push.wire import CloseCode
from tests import PATIENCE, eventually, in_thread

from .sessions import admit, closed, frames, ids, message


@pytest.fixture
async def node(node):
    """A node whose rounds are done by the test."""
    await node.upkeep.stop()
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
    await node.upkeep.close_silent()
    assert (closed(silent), closed(alive)) == ([CloseCode.HEARTBEAT_TIMEOUT], [])


async def test_a_session_ends_with_its_identity(node):
    ended, later = await admit(node), await admit(node)
    ended.expires_at = time.time() - 0.1
    later.expires_at = time.time() + 60
    await node.upkeep.close_silent()
    assert (closed(ended), closed(later)) == ([CloseCode.EXPIRED], [])


async def test_session_ends_by_the_databases_time_not_the_hosts(node):
    """A host whose clock is two hours slow would keep an expired session for two hours."""
    session = await admit(node)
    session.expires_at = time.time() + 3600
    now = boot_time()
    node.clock.take(Reading(time.time() + 7200, now, now))
    await node.upkeep.close_silent()
    assert closed(session) == [CloseCode.EXPIRED]


async def test_announcement_renews_the_databases_time(node):
    now = boot_time()
    node.clock.take(Reading(time.time() + 7200, now, now))
    await node.upkeep.announce()
    assert abs(node.clock.now() - time.time()) < 10


async def test_the_memory_of_a_replay_is_kept_for_a_while_only(node):
    session = await admit(node)
    session.replay(message(1))
    await node.upkeep.close_silent()
    session.deliver(message(1))
    assert ids(session) == [1]
    session.opened -= module.REPLAY_MEMORY + 1
    await node.upkeep.close_silent()
    session.deliver(message(1))
    assert ids(session) == [1, 1]


async def token_session(node, key: str):
    """A session of `key` that was let in with a stored token."""
    _, text = await in_thread(Token.objects.issue, key)
    session = await admit(node, key)
    session.identity = Identity(key, source="token", proof=proof_of(digest(text)))
    return session


async def test_who_has_no_token_any_more_is_closed(node, imgo):
    imgo(REVALIDATE_INTERVAL=module.TICK)
    revoked, replaced, stays = [await token_session(node, f"u{n}") for n in range(3)]
    await node.upkeep.revalidate()
    await in_thread(Token.objects.filter(key="u0").delete)
    await in_thread(Token.objects.issue, "u1")
    await node.upkeep.revalidate()
    codes = [closed(session) for session in (revoked, replaced, stays)]
    assert codes == [[CloseCode.REVOKED], [CloseCode.REVOKED], []]


async def test_a_user_who_was_disabled_is_closed(node, imgo):
    imgo(REVALIDATE_INTERVAL=module.TICK)

    def sign_in() -> tuple[User, bytes]:
        user, client = User.objects.create_user("ann"), Client()
        client.force_login(user)
        return user, client.cookies["sessionid"].value.encode()

    user, cookie = await in_thread(sign_in)
    session = await admit(node, str(user.pk))
    session.identity = Identity(session.key, source="session", proof=cookie)
    await node.upkeep.revalidate()
    assert closed(session) == []
    await in_thread(User.objects.update, is_active=False)
    await node.upkeep.revalidate()
    assert closed(session) == [CloseCode.REVOKED]


async def test_all_have_their_turn_within_the_interval(node, imgo, monkeypatch):
    imgo(REVALIDATE_INTERVAL=4 * module.TICK)
    looked_at = []
    monkeypatch.setattr(module, "revoked", lambda found: looked_at.append(found) or [])
    sessions = [await admit(node, f"u{n}") for n in range(10)]
    for _ in range(4):
        await node.upkeep.revalidate()
    assert [len(some) for some in looked_at] == [3, 3, 3, 1]
    assert {one.key for some in looked_at for one in some} == {s.key for s in sessions}
    await node.upkeep.revalidate()
    assert len(looked_at) == 5


async def test_an_audit_finds_what_is_pending_for_a_key_that_is_here(node, imgo):
    imgo(AUDIT_INTERVAL=module.TICK, SWEEP_AFTER=0.0)
    session, other = await admit(node), await admit(node, "u2")
    found = await in_thread(accept_pushes, [Push(b"1", keys=("u1", "absent"))] * 3)
    await in_thread(Outbox.objects.all().delete)
    await node.upkeep.audit()
    assert (ids(session), ids(other)) == (found, [])
    await node.upkeep.audit()
    assert ids(session) == found


async def test_there_is_no_audit_while_the_layer_does_not_carry(node, imgo, monkeypatch):
    """A key's sessions on other nodes would not get the same in the same order."""
    imgo(AUDIT_INTERVAL=module.TICK, SWEEP_AFTER=0.0)
    monkeypatch.setattr(module, "TICK", 0.1)
    session = await admit(node)
    await in_thread(accept_pushes, [Push(b"1", keys=("u1",))])
    await in_thread(Outbox.objects.all().delete)

    async def swallow(group: str, message: dict) -> None:
        pass

    with monkeypatch.context() as patch:
        patch.setattr(node.hub.layer, "group_send", swallow)
        await node.upkeep.audit()
        assert ids(session) == []
        assert node.hub._echoes == {}  # nothing gathers while the layer is away

    async def is_found() -> bool:
        await node.upkeep.audit()
        return bool(ids(session))

    await eventually(is_found)
    await node.upkeep.audit()
    assert len(ids(session)) == 1


async def test_an_audit_of_nobody_asks_nothing(node, thread_queries):
    queries = await thread_queries()
    await node.upkeep.audit()
    await node.upkeep.revalidate()
    assert queries == []


# For its place among the others


async def test_what_the_registry_lost_is_written_again(node, mode, redis_client):
    session = await admit(node, "u1", "a")
    redis_client.flushdb()
    await in_thread(node.registry.forget_node, node.id)
    await node.upkeep.renew()
    assert await sessions_of(node, "u1") == [session.id]
    assert await in_thread(node.registry.rooms) == {"a": 1}
    (seen,) = await in_thread(node.registry.nodes)
    assert (seen.id, seen.name, seen.sessions) == (node.id, node.name, 1)


async def test_renewal_counts_a_session_that_has_not_joined_its_groups_yet(node, monkeypatch):
    add = node.hub.add

    async def add_after_a_renewal(*arguments: Any) -> None:
        await node.upkeep.renew()
        await add(*arguments)

    monkeypatch.setattr(node.hub, "add", add_after_a_renewal)
    await admit(node, "u1")
    assert [one.sessions for one in await in_thread(node.registry.nodes)] == [1]


async def test_a_lease_is_renewed_while_the_database_is_away(node, monkeypatch):
    async def fail(*_: object) -> None:
        raise DatabaseError("away")

    monkeypatch.setattr(module.cluster_threads, "run", fail)
    await node.upkeep.renew()


async def test_renewal_of_the_process_ends_before_its_round(node, monkeypatch):
    """Written after the node has left, it would bring the node's entry back."""
    begun, go_on, written = threading.Event(), threading.Event(), []

    def announce_slowly(process: Any) -> None:
        begun.set()
        assert go_on.wait(PATIENCE)
        written.append(process)

    monkeypatch.setattr("push.process_list.announce", announce_slowly)
    renewing = asyncio.create_task(node.upkeep.announce_process())
    assert await asyncio.to_thread(begun.wait, PATIENCE)
    renewing.cancel()
    await asyncio.wait([renewing], timeout=0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await renewing
    assert [process.kind for process in written] == ["node"]


async def test_an_announcement_is_a_sign_of_life_in_the_database(node):
    row = await in_thread(NodeRow.objects.get)
    await node.upkeep.announce()
    again = await in_thread(NodeRow.objects.get)
    assert (again.pk, again.name) == (row.pk, node.name)
    assert again.last_seen > row.last_seen


async def test_an_empty_group_is_left_after_its_linger(node, imgo):
    imgo(GROUP_LINGER=0.0)
    session = await admit(node, "u1", "a")
    await node.dismiss(session)
    await node.upkeep.leave_groups()
    assert room_group("a") not in node.hub._joined
    assert key_group("u1") not in node.hub._joined


async def test_a_node_hears_itself(node):
    node.hub.last_echo -= module.ECHO_TIMEOUT / 2
    before = node.hub.last_echo
    await node.upkeep.echo()
    await eventually(lambda: node.hub.last_echo > before)


@pytest.fixture
async def silent(production_node, redis_client):
    """A node that has heard nothing for long, though its connection seems to stand."""
    node = production_node
    await node.upkeep.stop()
    node.hub.last_echo = asyncio.get_running_loop().time() - 2 * module.ECHO_TIMEOUT
    return node


async def test_a_layer_that_is_silent_is_connected_to_again(silent, redis_client):
    session = await admit(silent)
    before = {client["id"] for client in redis_client.client_list(_type="pubsub")}
    again = value_of(metrics.LAYER_RECONNECTS.labels("silent"))
    (one,) = await in_thread(accept_pushes, [Push(b"1", keys=("u1",))])
    await silent.upkeep.echo()
    await eventually(lambda: ids(session) == [one])

    def is_another() -> bool:
        after = {client["id"] for client in redis_client.client_list(_type="pubsub")}
        return len(after) == 1 and not after & before

    await eventually(is_another)
    assert value_of(metrics.LAYER_RECONNECTS.labels("silent")) - again == 1
    await silent.upkeep.echo()  # it has been heard of: nothing more to do
    assert value_of(metrics.LAYER_RECONNECTS.labels("silent")) - again == 1


@pytest.mark.parametrize(
    ("heard", "reconnects"),
    [(module.SILENCE_MAX + 1, 1), (0.0, 0)],
    ids=["nothing is heard", "others are heard"],
)
async def test_late_echo_reconnects_only_a_silent_layer(production_node, heard, reconnects):
    """A node that is busy hears its echo late, behind the others' messages."""
    await production_node.upkeep.stop()
    now, hub = asyncio.get_running_loop().time(), production_node.hub
    hub.last_echo, hub.last_heard = now - module.SILENCE_MAX - 1, now - heard
    before = value_of(metrics.LAYER_RECONNECTS.labels("silent"))
    await production_node.upkeep.echo()
    assert value_of(metrics.LAYER_RECONNECTS.labels("silent")) - before == reconnects


async def test_connection_made_anew_is_not_silent(production_node, redis_client):
    """To break it too would lose what is sent to rooms meanwhile."""
    node = production_node
    await node.upkeep.stop()
    gaps = node.hub.gaps
    redis_client.client_kill_filter(_type="pubsub")
    await eventually(lambda: node.hub.gaps > gaps and not node._holds)
    node.hub.last_echo = node.hub.last_heard = 0.0
    before = value_of(metrics.LAYER_RECONNECTS.labels("silent"))
    await node.upkeep.echo()
    assert value_of(metrics.LAYER_RECONNECTS.labels("silent")) == before


async def test_what_others_had_while_the_layer_was_silent_comes_too(silent):
    session = await admit(silent)
    (one,) = await in_thread(accept_pushes, [Push(b"1", keys=("u1",))])
    receipt = Receipt(one, "u1", RECEIVED, "other-1", module.ECHO_TIMEOUT)
    await in_thread(record_receipts, [receipt])
    await silent.upkeep.echo()
    await eventually(lambda: ids(session) == [one])


# For all nodes


async def test_a_sweep_sends_what_is_overdue_and_nothing_young(node, imgo):
    imgo(PARTITIONS=8, SWEEP_AFTER=60.0)
    names = {partition_of(f"u{n}", 8): f"u{n}" for n in range(99)}
    sessions = [await admit(node, names[p]) for p in (2, 7)]
    young, old = await in_thread(accept_pushes, [Push(b"1", keys=(s.key,)) for s in sessions])
    imgo(PARTITIONS=4)  # nobody looks into the queue of partition 7 any more
    before = value_of(metrics.SWEPT)
    await node.upkeep.sweep()
    assert await in_thread(Outbox.objects.count) == 2
    since = timezone.now() - timedelta(seconds=61)
    await in_thread(Outbox.objects.filter(message=old).update, created_at=since)
    await node.upkeep.sweep()
    await eventually(lambda: ids(sessions[1]) == [old])
    assert ids(sessions[0]) == []
    assert value_of(metrics.SWEPT) - before == 1
    row = await in_thread(Outbox.objects.get)
    assert row.message_id == young


async def test_a_sweep_leaves_a_partition_to_who_is_at_it(node, imgo, monkeypatch):
    imgo(SWEEP_AFTER=-1.0)
    keys = {partition_of(f"u{n}", 4): f"u{n}" for n in range(99)}
    await in_thread(accept_pushes, [Push(b"1", keys=(keys[p],)) for p in (1, 2)])
    loop, has, may_end = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    def occupy() -> None:
        with outbox_queue.draining(1, wait=False):
            loop.call_soon_threadsafe(has.set)
            asyncio.run_coroutine_threadsafe(may_end.wait(), loop).result(10)

    busy = asyncio.create_task(in_thread(occupy))
    await has.wait()
    await node.upkeep.sweep()
    assert (await in_thread(Outbox.objects.get)).partition == 1
    may_end.set()
    await busy
    await node.upkeep.sweep()
    assert not await in_thread(Outbox.objects.exists)


async def test_a_message_that_cannot_be_sent_is_parked_by_sweeps(node, imgo, monkeypatch):
    imgo(SWEEP_AFTER=-1.0)

    def refuse(envelopes) -> None:
        if envelopes:
            raise ValueError("poison")

    monkeypatch.setattr(fanout, "publish", refuse)
    await in_thread(accept_push, Push(b"1", keys=("u1",)))
    for _ in range(10):
        await node.upkeep.sweep()
    row = await in_thread(Outbox.objects.get)
    assert (row.attempts, row.parked_at is None) == (5, False)


async def test_canaries_are_sent_when_they_are_due_and_say_who_is_silent(node, imgo, tasks):
    imgo(CANARY_INTERVAL=10.0)
    await node.upkeep.send_canaries()
    assert tasks() == [("push.canary", n) for n in range(4)]
    await node.upkeep.send_canaries()
    assert tasks() == []
    past = timezone.now() - timedelta(seconds=40)
    await in_thread(Canary.objects.update, sent_at=past, first_at=past)
    for partition in (0, 2):
        await in_thread(Canary.objects.heard, partition)
    silence = await in_thread(Canary.objects.silence, 60.0)
    assert {n: round(seconds, -1) for n, seconds in silence.items()} == {0: 0, 1: 40, 2: 0, 3: 40}
    assert await in_thread(Canary.objects.silence, 30.0) == {}  # nobody was asked
    imgo(PARTITIONS=2)
    await node.upkeep.send_canaries()
    assert tasks() == [("push.canary", 0), ("push.canary", 1)]
    assert list(await in_thread(Canary.objects.silence, 30.0)) == [0, 1]


async def test_without_the_broker_canaries_are_silent_and_nothing_else_fails(
    node, broker_down, caplog
):
    await node.upkeep.send_canaries()
    assert "the broker cannot be reached for a canary" in caplog.text
    assert not any(record.exc_info for record in caplog.records)


async def test_what_is_past_its_time_is_settled_and_forgotten(node):
    def make() -> tuple[int, int]:
        expired, over, _ = accept_pushes([Push(b"1", keys=("u1",))] * 3)
        past = timezone.now() - timedelta(seconds=1)
        Pending.objects.filter(message=expired).update(expires_at=past)
        Message.objects.filter(pk=over).update(keep_until=past)
        for name in ("old", "new"):
            accept_push(Push(b"1", keys=("u2",), dedupe_id=name))
        Dedupe.objects.filter(dedupe_id="old").update(created_at=past - timedelta(days=2))
        return expired, over

    expired, over = await in_thread(make)
    before = value_of(metrics.DROPS.labels("expired"))
    await node.upkeep.prune()
    assert (await in_thread(Event.objects.get)).message_id == expired
    assert value_of(metrics.DROPS.labels("expired")) - before == 1
    assert not await in_thread(Message.objects.filter(pk=over).exists)
    assert await in_thread(Message.objects.count) == 4
    assert (await in_thread(Dedupe.objects.get)).dedupe_id == "new"


async def test_what_one_node_prunes_another_does_not_look_at(node, thread_queries):
    await node.upkeep.prune()
    queries = await thread_queries()
    await node.upkeep.prune()
    assert {sql.split()[0] for sql in queries} <= {"INSERT", "UPDATE"}


async def test_the_balance_is_struck_for_all(node, caplog):
    def lose() -> None:
        accept_pushes([Push(b"1", keys=("u1", "u2"))] * 2)
        Pending.objects.filter(message=Message.objects.latest("pk"), key="u1").delete()
        Duty.objects.update(until=timezone.now())

    await node.upkeep.balance()
    assert (await in_thread(Duty.objects.get, name="balance")).result["accepted"] == 0
    assert "unaccounted for" not in caplog.text
    await in_thread(lose)
    await node.upkeep.balance()
    result = (await in_thread(Duty.objects.get, name="balance")).result
    assert (result["accepted"], result["pending"], result["missing"]) == (4, 3, 1)
    assert "1 deliveries are unaccounted for" in caplog.text


async def test_a_duty_is_claimed_by_one(transactional_db):
    claims = await asyncio.gather(*(in_thread(Duty.objects.claim, "d", 60.0) for _ in range(10)))
    assert sorted(claims) == [False] * 9 + [True]
    assert await in_thread(Duty.objects.claim, "other", 60.0)
    assert not await in_thread(Duty.objects.claim, "d", 60.0)
    await in_thread(Duty.objects.filter(name="d").update, until=timezone.now())
    assert await in_thread(Duty.objects.claim, "d", 60.0)


# For the dashboard


async def test_pictures_are_sent_while_a_dashboard_is_open(node, redis_client, monkeypatch):
    monkeypatch.setattr(snapshot, "EVERY", 3600.0)
    await node.upkeep.inform()
    assert not await in_thread(Duty.objects.filter(name="dashboard").exists)  # nobody looks
    watcher = await admit(node, "\x01dashboard", DASHBOARD_ROOM)
    await node.upkeep.inform()
    await node.upkeep.inform()  # it is nobody's turn again yet
    (frame,) = await eventually(lambda: frames(watcher))
    picture = json.loads(frame.body)
    assert picture["mark"] == snapshot.mark()
    assert picture["problems"] == []


async def test_a_node_says_how_much_it_delivered(node, monkeypatch):
    monkeypatch.setattr("push.upkeep.deliveries", [7])
    await node.upkeep.report()
    assert [one.deliveries for one in node.registry.nodes()] == [7]


async def test_a_node_that_drains_says_so(node):
    await node.drain()
    await node.upkeep.report()
    assert [one.is_draining for one in node.registry.nodes()] == [True]


async def test_a_node_says_what_waits_for_its_sessions(node):
    first, second = await admit(node), await admit(node)
    second.link.waiting = 9
    await node.upkeep.report()
    entries = [node.entries[one.id] for one in (first, second)]
    assert node.registry.waiting(entries) == [0, 9]


async def test_sample_whose_answer_is_lost_is_kept_once(node, monkeypatch):
    add = snapshot.add_sample

    def lose_answer(found) -> None:
        add(found)
        raise OperationalError("the answer was lost")

    monkeypatch.setattr(snapshot, "add_sample", lose_answer)
    with pytest.raises(OperationalError):
        await node.upkeep.sample()
    assert len(await in_thread(snapshot.history)) == 1


async def test_one_node_keeps_a_sample(node):
    await node.upkeep.sample()
    await node.upkeep.sample()
    (kept,) = await in_thread(snapshot.history)
    assert kept["pushes"] == 0


@pytest.mark.parametrize(
    ("interval", "is_done"), [(30.0, True), (0.0, False)], ids=["revalidates", "never"]
)
async def test_the_rounds_begin_with_the_node(
    production_node, imgo, monkeypatch, interval, is_done
):
    rounds = []
    imgo(REVALIDATE_INTERVAL=interval)
    upkeep = module.Upkeep(production_node)
    monkeypatch.setattr(upkeep.runtime, "repeat", lambda name, *_: rounds.append(name))
    upkeep.start()
    assert ("revalidate" in rounds) == is_done
    assert {"close_silent", "sweep", "audit", "echo", "prune", "send_canaries", "inform"} <= set(
        rounds
    )
