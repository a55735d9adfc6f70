"""Jobs for the whole cluster, done by one node at a time."""

import asyncio
import json
from datetime import timedelta

import pytest
from django.db import OperationalError
from django.utils import timezone

from imgo_site.names import DASHBOARD_ROOM
from offline import outbox_queue
from offline.models import Event, Message, Outbox, Pending, Stream
from offline.partitions import partition_of
from push import fanout
from push.accept.accept import Push, accept_push, accept_pushes
from push.metrics import definitions as metrics
from push.models import Canary, Dedupe, Duty
from push.status import snapshot, vitals
from tests import eventually, in_thread
from tests.push.sessions import admit, frames, ids


@pytest.fixture
async def node(node):
    """A node whose rounds are done by the test."""
    await asyncio.gather(node.rounds.stop(), node.cluster_jobs.stop())
    return node


def value_of(counter) -> float:
    return counter._value.get()


async def test_a_sweep_sends_what_is_overdue_and_nothing_young(node, imgo):
    imgo(PARTITIONS=8, SWEEP_AFTER=60.0)
    names = {partition_of(f"u{n}", 8): f"u{n}" for n in range(99)}
    sessions = [await admit(node, names[p]) for p in (2, 7)]
    young, old = await in_thread(accept_pushes, [Push(b"1", keys=(s.key,)) for s in sessions])
    imgo(PARTITIONS=4)  # nobody looks into the queue of partition 7 any more
    before = value_of(metrics.SWEPT)
    await node.cluster_jobs.sweep()
    assert await in_thread(Outbox.objects.count) == 2
    since = timezone.now() - timedelta(seconds=61)
    await in_thread(Outbox.objects.filter(message=old).update, created_at=since)
    await node.cluster_jobs.sweep()
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
    await node.cluster_jobs.sweep()
    assert (await in_thread(Outbox.objects.get)).partition == 1
    may_end.set()
    await busy
    await node.cluster_jobs.sweep()
    assert not await in_thread(Outbox.objects.exists)


async def test_a_message_that_cannot_be_sent_is_parked_by_sweeps(node, imgo, monkeypatch):
    imgo(SWEEP_AFTER=-1.0)

    def refuse(envelopes) -> None:
        if envelopes:
            raise ValueError("poison")

    monkeypatch.setattr(fanout, "publish", refuse)
    await in_thread(accept_push, Push(b"1", keys=("u1",)))
    for _ in range(10):
        await node.cluster_jobs.sweep()
    row = await in_thread(Outbox.objects.get)
    assert (row.attempts, row.parked_at is None) == (5, False)


async def test_canaries_are_sent_when_they_are_due_and_say_who_is_silent(node, imgo, tasks):
    imgo(CANARY_INTERVAL=10.0)
    await node.cluster_jobs.send_canaries()
    assert tasks() == [("push.canary", n) for n in range(4)]
    await node.cluster_jobs.send_canaries()
    assert tasks() == []
    past = timezone.now() - timedelta(seconds=40)
    await in_thread(Canary.objects.update, sent_at=past, first_at=past)
    for partition in (0, 2):
        await in_thread(Canary.objects.heard, partition)
    silence = await in_thread(Canary.objects.silence, 60.0)
    assert {n: round(seconds, -1) for n, seconds in silence.items()} == {0: 0, 1: 40, 2: 0, 3: 40}
    assert await in_thread(Canary.objects.silence, 30.0) == {}  # nobody was asked
    imgo(PARTITIONS=2)
    await node.cluster_jobs.send_canaries()
    assert tasks() == [("push.canary", 0), ("push.canary", 1)]
    assert list(await in_thread(Canary.objects.silence, 30.0)) == [0, 1]


async def test_without_the_broker_canaries_are_silent_and_nothing_else_fails(
    node, broker_down, caplog
):
    await node.cluster_jobs.send_canaries()
    assert "could not send a canary, the broker cannot be reached" in caplog.text
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
    await node.cluster_jobs.prune()
    assert (await in_thread(Event.objects.get)).message_id == expired
    assert value_of(metrics.DROPS.labels("expired")) - before == 1
    assert not await in_thread(Message.objects.filter(pk=over).exists)
    assert await in_thread(Message.objects.count) == 4
    assert (await in_thread(Dedupe.objects.get)).dedupe_id == "new"


async def test_what_one_node_prunes_another_does_not_look_at(node, thread_queries):
    await node.cluster_jobs.prune()
    queries = await thread_queries()
    await node.cluster_jobs.prune()
    assert {sql.split()[0] for sql in queries} <= {"INSERT", "UPDATE"}


async def test_bytes_of_streams_are_measured_by_pruning_and_not_by_a_scrape(node):
    row = {"room": "chat-1", "size": 70, "used_at": timezone.now()}
    await in_thread(lambda: Stream.objects.create(**row))
    await node.cluster_jobs.prune()
    await in_thread(Stream.objects.update, size=99)
    await in_thread(vitals._read_gauges)
    assert value_of(metrics.STREAM_BYTES) == 70


async def test_the_balance_is_struck_for_all(node, caplog):
    def lose() -> None:
        accept_pushes([Push(b"1", keys=("u1", "u2"))] * 2)
        Pending.objects.filter(message=Message.objects.latest("pk"), key="u1").delete()
        Duty.objects.update(until=timezone.now())

    await node.cluster_jobs.balance()
    assert (await in_thread(Duty.objects.get, name="balance")).result["accepted"] == 0
    assert "are missing" not in caplog.text
    await in_thread(lose)
    await node.cluster_jobs.balance()
    result = (await in_thread(Duty.objects.get, name="balance")).result
    assert (result["accepted"], result["pending"], result["missing"]) == (4, 3, 1)
    assert "1 deliveries are missing" in caplog.text


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
    await node.cluster_jobs.inform()
    assert not await in_thread(Duty.objects.filter(name="dashboard").exists)  # nobody looks
    watcher = await admit(node, "\x01dashboard", DASHBOARD_ROOM)
    await node.cluster_jobs.inform()
    await node.cluster_jobs.inform()  # it is nobody's turn again yet
    (frame,) = await eventually(lambda: frames(watcher))
    picture = json.loads(frame.body)
    assert picture["mark"] == snapshot.mark()
    assert picture["problems"] == []


async def test_sample_whose_answer_is_lost_is_kept_once(node, monkeypatch):
    add = snapshot.add_sample

    def lose_answer(found) -> None:
        add(found)
        raise OperationalError("the answer was lost")

    monkeypatch.setattr(snapshot, "add_sample", lose_answer)
    with pytest.raises(OperationalError):
        await node.cluster_jobs.sample()
    assert len(await in_thread(snapshot.history)) == 1


async def test_one_node_keeps_a_sample(node):
    await node.cluster_jobs.sample()
    await node.cluster_jobs.sample()
    (kept,) = await in_thread(snapshot.history)
    assert kept["pushes"] == 0
