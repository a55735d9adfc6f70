"""Collapse keys while several processes accept, drain, and store due pushes at once."""

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import transaction

from offline import conservation, schedule
from offline.models import CollapseKey, Event, Message, Outbox, Pending, StreamMessage
from offline.outbox_queue import Busy
from offline.values import NewMessage
from push.accept.transaction import store
from push.fanout import drain
from push.node import due_pushes
from tests import call_and_close

pytestmark = pytest.mark.django_db(transaction=True)

KEYS = ("a", "b", "c")
NAMES = ("x", "y")


@pytest.fixture(autouse=True)
def _policies(imgo):
    imgo(ROOMS={"kept": {"history": 100_000}}, PARTITIONS=1)


def random_push(rng: random.Random) -> NewMessage:
    members = {"collapse_key": rng.choice(NAMES), "send_in": rng.choice([None, None, 0.01])}
    if rng.random() < 0.5:
        return NewMessage(b"{}", 600.0, audience="room", room="kept", **members)
    keys = tuple(rng.sample(KEYS, rng.randint(1, 3)))
    return NewMessage(b"{}", 600.0, keys=keys, **members)


def accept(seed: int, rounds: int) -> None:
    rng = random.Random(seed)
    for _ in range(rounds):
        store([random_push(rng) for _ in range(rng.randint(1, 4))])


def work(rounds: int) -> None:
    """Drain and store due pushes, as nodes and workers do."""
    for _ in range(rounds):
        due_pushes.store()
        try:
            drain(0, wait=False)
        except Busy:
            continue


def settle_all() -> None:
    while schedule.ScheduledPush.objects.exists():
        due_pushes.store()
    drain(0)


def test_one_push_of_each_collapse_key_is_left_whoever_accepts_and_drains(imgo):
    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(call_and_close, accept, random.randrange(10**6), 8) for _ in range(2)]
        runs += [pool.submit(call_and_close, work, 12) for _ in range(2)]
        for run in runs:
            run.result()
    settle_all()
    last = {(row.target, row.name): row.push_id for row in CollapseKey.objects.all()}
    owed = {
        ("k" + row.key, row.message.collapse_key): row.message_id
        for row in Pending.objects.select_related("message")
    }
    assert Pending.objects.count() == len(owed)
    assert owed == {slot: push_id for slot, push_id in last.items() if slot[0][0] == "k"}
    kept = StreamMessage.objects.exclude(body=b"")
    assert {("rkept", row.collapse_key): row.message_id for row in kept} == {
        slot: push_id for slot, push_id in last.items() if slot[0][0] == "r"
    }
    assert kept.count() <= len(NAMES)
    offsets = list(StreamMessage.objects.order_by("offset").values_list("offset", flat=True))
    assert offsets == list(range(1, len(offsets) + 1))
    assert not Outbox.objects.exists()
    assert conservation.balance_of_latest(0).missing == 0


def test_message_of_a_stream_waits_for_the_push_that_is_replacing_it(imgo):
    message = NewMessage(b"{}", 600.0, audience="room", room="kept", collapse_key="x")
    first = store([message]).ids[0]
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            second = store([message]).ids[0]
            assert pool.submit(call_and_close, drain, 0).result() == 0
            assert not StreamMessage.objects.exists()
        assert pool.submit(call_and_close, drain, 0).result() == 1
    assert StreamMessage.objects.get().message_id == second
    assert Message.objects.get(pk=first).drop_reason == "replaced"
    assert not Event.objects.exists()
