"""Recovery: what has passed a node by is delivered, in order and once."""

import asyncio

import pytest
from django.db import DatabaseError
from django.db.models.functions import Now

from offline import key_messages
from offline.models import RECEIVED, Message, Outbox, Pending
from offline.settlement import record_receipts
from offline.values import Receipt
from push.accept.accept import Push, accept_pushes
from push.bus.envelope import as_layer_message, message_envelope
from push.bus.group_names import key_group
from push.metrics import definitions as metrics
from push.node import missed_messages as module
from push.node.missed_messages import recover
from tests import eventually, in_thread
from tests.push.conftest import push_now
from tests.push.sessions import admit, frames, ids, message

U1 = key_group("u1")


@pytest.fixture
async def node(node, imgo):
    """A node that looks for nothing by itself, and to which nothing is too young."""
    imgo(SWEEP_AFTER=0.0)
    await asyncio.gather(node.rounds.stop(), node.cluster_jobs.stop())
    return node


async def missed(count: int, key: str = "u1") -> list[int]:
    """Messages that no node was told of."""
    pushes = [Push(b"%d" % n, keys=(key,)) for n in range(count)]
    found = await in_thread(accept_pushes, pushes)
    await in_thread(Outbox.objects.all().delete)
    return found


async def arrives(node, message_id: int, key: str = "u1") -> None:
    """A message comes in from the layer."""
    row = await in_thread(Message.objects.get, pk=message_id)
    node.hub.handle(as_layer_message(message_envelope(key_group(key), row, key)))


async def had(message_id: int, key: str = "u1", *, age: float) -> None:
    """A session of another node has had the message so many seconds ago."""
    receipt = Receipt(message_id, key, RECEIVED, "other-1", age)
    assert await in_thread(record_receipts, [receipt]) == 1


async def run(node, *keys: str, gap: float = 0.0) -> int:
    since = asyncio.get_running_loop().time() - gap if gap else None
    return await recover(node.hub, node.acknowledger, keys or ("u1",), since)


# In order and once


async def test_a_look_for_what_is_pending_does_not_overtake_the_fan_out(node):
    session = await admit(node)
    first, second = await in_thread(accept_pushes, [Push(b"1", keys=("u1",))] * 2)
    await in_thread(Pending.objects.filter(message=first).delete)  # another device had it
    assert await run(node) == 0
    await arrives(node, first)
    await in_thread(Outbox.objects.filter(message=first).delete)
    assert await run(node) == 0
    await in_thread(Outbox.objects.filter(message=second).update, parked_at=Now())
    assert await run(node) == 1
    assert ids(session) == [first, second]


async def test_what_is_pending_comes_before_what_was_held_back_and_nothing_twice(node):
    session = await admit(node)
    found = await missed(4)
    hold = node.hub.holds.hold([U1])
    await arrives(node, found[2])
    await arrives(node, found[3])
    assert ids(session) == []
    assert await run(node, gap=1.0) == 4
    node.hub.holds.release(hold)
    assert ids(session) == found
    await arrives(node, found[0])  # from the layer, late
    later = await in_thread(push_now, Push(b"1", keys=("u1",)))
    await eventually(lambda: later in ids(session))
    assert ids(session) == [*found, later]


async def test_what_is_young_is_left_to_the_way_that_it_is_on(node, imgo):
    imgo(SWEEP_AFTER=60.0)
    session = await admit(node)
    found = await missed(2)
    assert await run(node) == 0
    assert ids(session) == []
    assert await run(node, gap=1.0) == 2  # after a gap there may be no such way
    assert ids(session) == found


async def test_what_comes_while_it_is_read_follows(node, monkeypatch):
    session = await admit(node)
    found = await missed(3)
    read = key_messages.read_missed

    def slowly(*args):
        pages = read(*args)
        asyncio.run_coroutine_threadsafe(arrives(node, found[2]), loop).result(10)
        asyncio.run_coroutine_threadsafe(arrives(node, later), loop).result(10)
        return pages

    (later,) = await missed(1)
    await had(later, age=100.0)  # the database holds it for nobody
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(key_messages, "read_missed", slowly)
    await run(node)
    assert ids(session) == [*found, later]


async def test_every_session_of_a_key_has_it_and_no_other(node):
    first, second, other = await admit(node), await admit(node), await admit(node, "u2")
    found = await missed(2)
    before = metrics.RECOVERED._value.get()
    assert await run(node, "u1", "u2") == 2
    assert (ids(first), ids(second), ids(other)) == (found, found, [])
    assert metrics.RECOVERED._value.get() - before == 2
    assert [frame.body for frame in frames(first)] == [b"0", b"1"]


async def test_what_was_delivered_is_not_delivered_again(node):
    session = await admit(node)
    one = await in_thread(push_now, Push(b"1", keys=("u1",)))
    await eventually(lambda: ids(session))
    assert await run(node) == 0
    assert await run(node, gap=60.0) == 0
    assert ids(session) == [one]


async def test_what_was_replayed_is_not_delivered_again(node):
    session = await admit(node)
    (one,) = await missed(1)
    node.hub.replayed.add(one, session.id)
    assert await run(node) == 0
    assert ids(session) == []


async def test_what_was_acknowledged_a_moment_ago_is_not_delivered_again(node):
    session = await admit(node)
    one, two = await missed(2)
    await node.runtime.stop(float("inf"))  # as when the database is slow
    node.acknowledger.acknowledged(one, "u1", session.id)
    assert await run(node) == 1
    assert ids(session) == [two]


async def test_pages_and_slices_are_put_together(node, imgo, monkeypatch):
    imgo(REPLAY_PAGE=2)
    monkeypatch.setattr(module, "SLICE", 2)
    sessions = {key: await admit(node, key) for key in ("u1", "u2", "u3", "u4", "u5")}
    found = {key: await missed(5, key) for key in sessions}
    assert await run(node, *sessions) == 25
    assert {key: ids(session) for key, session in sessions.items()} == found


async def test_what_is_pending_for_who_is_not_there_stays(node):
    found = await missed(2)
    assert await run(node) == 0
    assert await in_thread(Pending.objects.count) == len(found)


# After a gap


async def test_what_others_had_in_the_gap_comes_too(node):
    session = await admit(node)
    long_ago, lately, waiting = await missed(3)
    await had(long_ago, age=60.0)
    await had(lately, age=5.0)
    assert await run(node, gap=10.0) == 2
    assert ids(session) == [lately, waiting]


async def test_without_a_gap_what_others_had_does_not_come(node):
    session = await admit(node)
    (one,) = await missed(1)
    await had(one, age=0.0)
    assert await run(node) == 0
    assert ids(session) == []


async def test_a_node_whose_connection_breaks_delivers_what_passed_it_by(
    production_node, redis_client
):
    node = production_node
    session, other = await admit(node), await admit(node, "u2")
    first = await in_thread(push_now, Push(b"1", keys=("u1",)))
    await eventually(lambda: ids(session) == [first])
    redis_client.client_kill_filter(_type="pubsub")
    passed = [await in_thread(push_now, Push(b"1", keys=("u1", "u2"))) for _ in range(5)]
    await had(passed[1], age=0.0)  # by another node, which was there
    await eventually(lambda: ids(session)[-1:] == passed[-1:])
    assert ids(session) == [first, *passed]
    await eventually(lambda: ids(other)[-1:] == passed[-1:])
    assert ids(other) == passed
    later = await in_thread(push_now, Push(b"1", keys=("u1",)))
    await eventually(lambda: later in ids(session))
    assert ids(session) == [first, *passed, later]


async def test_a_session_that_connects_is_left_to_its_own_replay(node):
    connecting = await admit(node)
    connecting.hold(10**6)
    connecting.is_connecting = True
    (one,) = await missed(1)
    await run(node, gap=10.0)
    assert connecting.is_behind
    connecting.replay(message(one))
    connecting.release()
    assert ids(connecting) == [one]


async def test_a_session_that_connects_keeps_nothing_from_the_others_of_its_key(node):
    session, connecting = await admit(node), await admit(node)
    connecting.hold(10**6)
    connecting.is_connecting = True
    lately, waiting = await missed(2)
    await had(lately, age=5.0)
    await run(node, gap=10.0)
    assert ids(session) == [lately, waiting]


# What is away


@pytest.fixture
def table(pending_table, monkeypatch):
    monkeypatch.setattr(module, "RETRY_INTERVAL", 0.01)
    return pending_table


async def test_while_the_database_is_away_it_waits_and_holds_back(node, table, caplog):
    session = await admit(node)
    found = await missed(2)
    await table.take_away()
    recovering = asyncio.create_task(run(node, gap=1.0))
    await eventually(lambda: "could not read pending messages, retrying" in caplog.text)
    await arrives(node, found[1])
    assert ids(session) == []
    await table.bring_back()
    assert await recovering == 2
    assert ids(session) == found


async def test_without_a_gap_nothing_has_to_wait_for_the_database(node, table):
    session = await admit(node)
    (one,) = await missed(1)
    await table.take_away()
    with pytest.raises(DatabaseError):
        await run(node)
    await arrives(node, one)
    assert ids(session) == [one]


async def test_who_is_cancelled_lets_go(node, table, caplog):
    session = await admit(node)
    (one,) = await missed(1)
    await table.take_away()
    recovering = asyncio.create_task(run(node, gap=1.0))
    await eventually(lambda: "could not read pending messages" in caplog.text)
    await arrives(node, one)
    recovering.cancel()
    await asyncio.gather(recovering, return_exceptions=True)
    assert ids(session) == [one]


# Holding back


async def test_only_what_is_held_is_held(node):
    session, other = await admit(node, "u1", "r"), await admit(node, "u2")
    node.hub.holds.hold([U1, key_group("nobody")])
    await in_thread(push_now, Push(b"1", keys=("u1",)))
    to_other = await in_thread(push_now, Push(b"1", keys=("u2",)))
    to_room = await in_thread(push_now, Push(b"1", room="r"))
    await eventually(lambda: ids(session) and ids(other))
    assert (ids(session), ids(other)) == ([to_room], [to_other])


async def test_more_than_is_held_back_is_read_again(node, monkeypatch):
    session = await admit(node)
    monkeypatch.setattr("push.node.held_messages.HELD_MAX", 3)
    found = await missed(2)
    later = await missed(5)
    read, reads = module._read, 0

    def note(*args):
        nonlocal reads
        reads += 1
        pages = read(*args)
        if reads == 1:
            for one in later:
                asyncio.run_coroutine_threadsafe(arrives(node, one), loop).result(10)
        return pages

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(module, "_read", note)
    await in_thread(Pending.objects.filter(message__in=later).update, expires_at=Now())
    await run(node, gap=1.0)
    assert reads == 2
    assert ids(session) == [*found, later[-1]]  # the others had expired when they were read again


async def test_a_hold_ends_with_the_last_session_of_its_key(node):
    gone = await admit(node)
    node.hub.holds.hold([U1])
    await node.dismiss(gone)
    session = await admit(node)
    one = await in_thread(push_now, Push(b"1", keys=("u1",)))
    await eventually(lambda: ids(session) == [one])


async def test_what_two_hold_back_is_held_until_both_have_let_go(node):
    session = await admit(node)
    hold = node.hub.holds.hold([U1])  # a gap has begun
    (one,), (later,) = await missed(1), await missed(1)
    await arrives(node, later)
    assert await run(node) == 0  # an audit leaves it to who holds
    assert ids(session) == []
    assert await run(node, gap=1.0) == 2
    newest = await in_thread(push_now, Push(b"1", keys=("u1",)))
    await eventually(lambda: node.hub.holds._held[U1].messages)
    assert ids(session) == [one, later]
    node.hub.holds.release(hold)
    assert ids(session) == [one, later, newest]


async def test_a_hold_of_sessions_that_have_gone_lets_nothing_of_others_go(node):
    gone = await admit(node)
    old = node.hub.holds.hold([U1])
    await node.dismiss(gone)
    session = await admit(node)
    new = node.hub.holds.hold([U1])
    (one,) = await missed(1)
    await arrives(node, one)
    node.hub.holds.release(old)
    assert ids(session) == []
    node.hub.holds.release(new)
    assert ids(session) == [one]


async def test_a_recovery_that_raises_lets_everything_go(node, monkeypatch, caplog):
    session = await admit(node)
    (one,) = await missed(1)

    async def fail(*_):
        raise RuntimeError("unforeseen")

    monkeypatch.setattr("push.node.gap_recovery.recover", fail)
    node.layer_lost()
    await arrives(node, one)
    assert ids(session) == []
    node.layer_regained()
    await eventually(lambda: ids(session) == [one])
    assert "unforeseen" in caplog.text


# In one order for the sessions of a key on several nodes


async def test_what_was_had_before_a_session_opened_is_not_for_it(node):
    session = await admit(node)
    before, after = await missed(2)
    await had(before, age=5.0)
    session.joined = asyncio.get_running_loop().time() - 2.0
    await had(after, age=1.0)
    assert await run(node, gap=10.0) == 1
    assert ids(session) == [after]


async def test_what_is_held_and_what_is_read_are_one_order(node):
    session = await admit(node)
    first, second, third = await missed(3)
    await had(first, age=100.0)  # before the gap
    await had(third, age=100.0)
    hold = node.hub.holds.hold([U1])
    await arrives(node, third)
    await arrives(node, first)
    assert await run(node, gap=1.0) == 1
    assert ids(session) == [first, second]
    node.hub.holds.release(hold)
    assert ids(session) == [first, second, third]


async def test_an_audit_waits_for_what_is_under_way(node, monkeypatch):
    session = await admit(node)
    first, second = await missed(2)
    await in_thread(Pending.objects.filter(message=first).delete)  # another device had it
    echo = node.hub.echoes.send

    async def late(patience):
        await arrives(node, first)
        return await echo(patience)

    monkeypatch.setattr(node.hub.echoes, "send", late)
    assert await run(node) == 1
    assert ids(session) == [first, second]


@pytest.mark.parametrize("reason", ["no echo", "a gap"])
async def test_an_audit_that_cannot_know_what_is_under_way_delivers_nothing(
    node, monkeypatch, reason
):
    session = await admit(node)
    (one,) = await missed(1)

    async def echo(patience):
        if reason == "a gap":
            node.hub.gaps += 1
        return reason != "no echo"

    monkeypatch.setattr(node.hub.echoes, "send", echo)
    assert await run(node) == 0
    assert ids(session) == []
    monkeypatch.undo()
    assert await run(node) == 1
    assert ids(session) == [one]


async def test_what_one_session_was_replayed_is_still_due_to_another(node):
    first, second = await admit(node), await admit(node)
    (one,) = await missed(1)
    node.hub.replayed.add(one, first.id)
    assert await run(node, gap=1.0) == 1
    assert (ids(first), ids(second)) == ([], [one])
