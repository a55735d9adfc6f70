"""Drain: who is sent what, in which order, and what becomes of what cannot be sent."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.db import connection
from django.utils import timezone

from imgo_site import logs
from imgo_site.conf import conf
from imgo_site.errors import Unavailable
from offline.models import RECEIVED, Event, Message, Outbox, Pending
from offline.outbox_queue import ATTEMPTS_MAX, Busy
from offline.partitions import partition_of
from offline.settlement import record_receipts
from offline.values import Receipt
from push import fanout
from push.accept.accept import Push, accept_push, accept_pushes, push_to_key
from push.bus.envelope import CLOSE, MESSAGE, Envelope
from push.bus.group_names import ALL, key_group, room_group
from push.bus.publish import publish
from push.fanout import drain
from push.metrics import definitions as metrics
from push.registry.base import NodeEntry
from push.registry.redis_registry import RedisRegistry
from push.status import metrics_page
from tests import PATIENCE, call_and_close, in_thread

from .sessions import admit

pytestmark = pytest.mark.django_db(transaction=True)

KEYS = {key_group(key): key for key in ("a", "b", "c")}
A = partition_of("a", 4)


@pytest.fixture
async def heard(listen) -> Callable:
    """(group, id, key) of everything that is sent to a, b, c, the room r, and all."""
    messages = await listen(*KEYS, room_group("r"), ALL)

    async def sent() -> list[tuple[str, int, str]]:
        names = KEYS | {room_group("r"): "room r", ALL: "all"}
        return [(names[m["group"]], m["id"], m["key"]) for m in await messages()]

    return sent


async def accept(*pushes: Push) -> list[int]:
    return await in_thread(accept_pushes, pushes)


async def drain_all() -> list[int]:
    """How many messages each of the partitions sent."""
    return [await in_thread(drain, partition) for partition in range(4)]


def waiting() -> list[int]:
    return sorted(Outbox.objects.values_list("message_id", flat=True))


def drops(reason: str) -> float:
    return metrics.DROPS.labels(reason)._value.get()


# What is sent


async def test_everything_is_sent_in_order_of_id_and_nothing_is_left(heard, imgo):
    imgo(PARTITIONS=1)
    one, two, three, four, five = await accept(
        Push(b"1", keys=("a", "b")),
        Push(b"2", room="r"),
        Push(b"3", to_all=True),
        Push(b"4", keys=("b", "c"), store=False),
        Push(b"5", keys=("a",)),
    )
    assert await in_thread(drain, 0) == 5
    assert await heard() == [
        ("a", one, "a"),
        ("b", one, "b"),
        ("room r", two, ""),
        ("all", three, ""),
        ("b", four, ""),
        ("c", four, ""),
        ("a", five, "a"),
    ]
    assert await in_thread(waiting) == []
    assert await in_thread(drain, 0) == 0


async def test_pages_and_pipelines_do_not_change_the_order(heard, imgo, monkeypatch):
    imgo(PARTITIONS=1)
    monkeypatch.setattr(fanout, "PAGE", 3)
    monkeypatch.setattr(fanout, "PUBLISH_MAX", 2)
    ids = await accept(*(Push(b"1", keys=("a",)) for _ in range(10)))
    assert await in_thread(drain, 0) == 10
    assert await heard() == [("a", one, "a") for one in ids]
    assert await in_thread(waiting) == []


async def test_each_partition_sends_its_own_keys_only(listen):
    keys = [f"k{n}" for n in range(40)]
    messages = await listen(*map(key_group, keys))
    await accept(Push(b"1", keys=tuple(keys)))
    for partition in range(4):
        await in_thread(drain, partition)
        own = [key for key in keys if partition_of(key, 4) == partition]
        assert [m["key"] for m in await messages()] == own


@pytest.mark.parametrize("changed", [1, 3, 8])
async def test_messages_of_another_partition_count_go_to_the_same_keys(listen, imgo, changed):
    keys = [f"k{n}" for n in range(40)]
    messages = await listen(*map(key_group, keys))
    imgo(PARTITIONS=changed)
    await accept(Push(b"1", keys=tuple(keys)))
    imgo(PARTITIONS=4)
    for partition in range(8):
        await in_thread(drain, partition)
    assert sorted(m["key"] for m in await messages()) == sorted(keys)


async def test_the_envelope_has_all_that_a_session_needs(listen):
    messages = await listen(key_group("a"))
    body = bytes(range(256))
    (one,) = await accept(Push(body, keys=("a",), is_json=False, op=1001, ensure=True))
    accepted = await in_thread(lambda: Message.objects.get(pk=one).created_at)
    await drain_all()
    (envelope,) = await messages()
    partition, generation = envelope.pop("drain")
    assert partition == partition_of("a", conf.PARTITIONS)
    assert generation > 0
    assert [envelope] == [
        {
            "type": MESSAGE,
            "group": key_group("a"),
            "id": one,
            "op": 1001,
            "body": body,
            "is_json": False,
            "key": "a",
            "ensure": True,
            "at": accepted.timestamp(),
        }
    ]


async def test_what_one_device_had_meanwhile_still_goes_to_the_others(heard, imgo):
    imgo(PARTITIONS=1)
    (one,) = await accept(Push(b"1", keys=("a", "b")))
    receipts = [Receipt(one, key, RECEIVED, "s1") for key in ("a", "b")]
    await in_thread(record_receipts, receipts)
    await in_thread(drain, 0)
    assert await heard() == [("a", one, "a"), ("b", one, "b")]


async def test_what_has_expired_is_counted_and_not_sent(heard):
    ids = await accept(
        Push(b"1", keys=("a",)), Push(b"2", room="r"), Push(b"3", keys=("b",)), Push(b"4", room="r")
    )
    gone = Message.objects.filter(pk__in=ids[:2])
    await in_thread(gone.update, expires_at=timezone.now())
    before = drops("too_late")
    await drain_all()
    assert sorted(await heard()) == [("b", ids[2], "b"), ("room r", ids[3], "")]
    assert drops("too_late") - before == 2
    assert await in_thread(waiting) == []


async def test_many_keys_cost_a_few_queries(imgo, django_assert_max_num_queries):
    imgo(PARTITIONS=1)
    await accept(*(Push(b"1", keys=tuple(f"k{n}" for n in range(300))) for _ in range(20)))

    def count() -> None:
        # BEGIN, limits, lock, page, delete, COMMIT, and the look for crowded keys
        with django_assert_max_num_queries(8, connection=connection):
            drain(0)

    await in_thread(count)


# A message that cannot be sent


@pytest.fixture
def poison(monkeypatch) -> set[int]:
    """The ids of messages that cannot be published."""
    ids: set[int] = set()

    def refuse(envelopes: list[Envelope]) -> None:
        if bad := [e["id"] for e in envelopes if e["id"] in ids]:
            raise ValueError(f"{bad[0]} is poison")
        publish(envelopes)

    monkeypatch.setattr(fanout, "publish", refuse)
    return ids


async def test_a_message_that_cannot_be_sent_stops_no_other(heard, poison, imgo):
    imgo(PARTITIONS=1)
    ids = await accept(*(Push(b"1", keys=("a", "b")) for _ in range(3)))
    poison.add(ids[1])
    await in_thread(drain, 0)
    sent = [(key, one, key) for one in (ids[0], ids[2]) for key in ("a", "b")]
    assert await heard() == sent
    row = await in_thread(Outbox.objects.get)
    assert (row.message_id, row.attempts, row.parked_at) == (ids[1], 1, None)
    assert row.error == f"ValueError: {ids[1]} is poison"
    poison.clear()
    await in_thread(drain, 0)
    assert await heard() == [("a", ids[1], "a"), ("b", ids[1], "b")]
    assert await in_thread(waiting) == []


async def test_a_message_that_cannot_be_sent_is_parked_at_last_and_skipped(
    heard, poison, imgo, caplog
):
    imgo(PARTITIONS=1)
    (bad,) = poison_ids = await accept(Push(b"1", keys=("a",)))
    poison.update(poison_ids)
    before = drops("parked")
    for attempt in range(1, ATTEMPTS_MAX + 1):
        assert drops("parked") == before
        await in_thread(drain, 0)
        row = await in_thread(Outbox.objects.get)
        assert row.attempts == attempt
        assert (row.parked_at is not None) == (attempt == ATTEMPTS_MAX)
    assert drops("parked") - before == 1
    assert f"message {bad} is parked" in caplog.text
    poison.clear()
    assert await in_thread(drain, 0) == 0
    assert await heard() == []
    assert await in_thread(waiting) == [bad]


async def test_what_has_expired_beside_a_message_that_cannot_be_sent_is_gone(heard, poison, imgo):
    imgo(PARTITIONS=1)
    late, bad, good = await accept(*(Push(b"1", keys=("a",)) for _ in range(3)))
    poison.add(bad)
    await in_thread(Message.objects.filter(pk=late).update, expires_at=timezone.now())
    await in_thread(drain, 0)
    assert await heard() == [("a", good, "a")]
    assert await in_thread(waiting) == [bad]


# When the layer is away


def layer_away(settings, port: int) -> None:
    layers = dict(settings.CHANNEL_LAYERS["default"])
    layers["CONFIG"] = {"hosts": [f"redis://127.0.0.1:{port}/0"]}
    settings.CHANNEL_LAYERS = {"default": layers}


def test_a_publisher_is_told_that_the_layer_is_away(settings, closed_port):
    layer_away(settings, closed_port)
    message = {"type": CLOSE, "group": "g", "sessions": [], "code": 4504, "reason": ""}
    with pytest.raises(Unavailable, match="channel layer cannot be reached"):
        publish([message])


def test_without_the_layer_everything_stays_as_it_is(settings, closed_port):
    ids = accept_pushes([Push(b"1", keys=("a",)) for _ in range(3)])
    layer_away(settings, closed_port)
    for _ in range(ATTEMPTS_MAX + 1):
        with pytest.raises(Unavailable):
            drain(A)
    assert waiting() == ids
    # It is no message's fault.
    assert set(Outbox.objects.values_list("attempts", "error", "parked_at")) == {(0, "", None)}


# One at a time


class Gate:
    """`publish` that waits, while it is shut, and notes what it was given."""

    def __init__(self) -> None:
        self.published: list[int] = []
        self.entered = threading.Event()
        self.opened = threading.Event()
        self.pid = 0  # of the connection to the database of whoever came first

    def __call__(self, envelopes: list[Envelope]) -> None:
        if envelopes and not self.entered.is_set():
            self.pid = connection.connection.info.backend_pid
            self.entered.set()
            assert self.opened.wait(PATIENCE)
        self.published += [e["id"] for e in envelopes]


@pytest.fixture
def gate(monkeypatch) -> Iterator[Gate]:
    found = Gate()
    monkeypatch.setattr(fanout, "publish", found)
    yield found
    found.opened.set()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as found:
        yield found


def test_two_drains_of_a_partition_never_overlap(gate, threads, imgo):
    imgo(PARTITIONS=2)
    zero, one = (next(f"k{n}" for n in range(99) if partition_of(f"k{n}", 2) == p) for p in (0, 1))
    mine, other = accept_push(Push(b"1", keys=(zero,))), accept_push(Push(b"1", keys=(one,)))
    first = threads.submit(call_and_close, drain, 0)
    assert gate.entered.wait(PATIENCE)
    with pytest.raises(Busy):
        drain(0, wait=False)
    assert drain(1, wait=False) == 1
    second = threads.submit(call_and_close, drain, 0)
    later = accept_push(Push(b"1", keys=(zero,)))
    assert gate.published == [other]
    gate.opened.set()
    assert first.result(PATIENCE) + second.result(PATIENCE) == 2
    assert gate.published == [other, mine, later]
    assert waiting() == []


def test_a_drain_whose_process_dies_leaves_everything_to_the_next(gate, threads, terminate):
    ids = accept_pushes([Push(b"1", keys=("a",)) for _ in range(3)])
    dying = threads.submit(call_and_close, drain, A)
    assert gate.entered.wait(PATIENCE)
    assert terminate(gate.pid) == 1
    assert drain(A, wait=False) == 3
    assert gate.published == ids
    gate.opened.set()
    assert dying.exception(PATIENCE) is not None
    assert waiting() == []


# What a key keeps


def kept(key: str) -> list[int]:
    return sorted(Pending.objects.filter(key=key).values_list("message_id", flat=True))


def push_many(key: str, count: int) -> list[int]:
    ids = accept_pushes([Push(b"1", keys=(key,)) for _ in range(count)])
    drain(partition_of(key, 4))
    return ids


async def test_a_key_that_is_not_there_keeps_its_share_at_once(node, imgo):
    imgo(OFFLINE_MAX=3)
    before = drops("offline_max")
    ids = await in_thread(push_many, "u1", 5)
    assert await in_thread(kept, "u1") == ids[-3:]
    assert drops("offline_max") - before == 2
    reasons = Event.objects.order_by("pk").values_list("message_id", "kind", "reason")
    assert await in_thread(list, reasons) == [(one, "dropped", "offline_max") for one in ids[:2]]


async def test_a_key_that_is_there_may_have_ten_times_as_much_on_its_way(node, imgo):
    imgo(OFFLINE_MAX=3)
    await admit(node, "u1")
    ids = await in_thread(push_many, "u1", 30)
    assert await in_thread(kept, "u1") == ids
    ids += await in_thread(push_many, "u1", 1)
    assert await in_thread(kept, "u1") == ids[-3:]


def test_while_nobody_knows_who_is_there_no_more_goes_than_must(imgo, monkeypatch, closed_port):
    imgo(OFFLINE_MAX=3)
    away = RedisRegistry(f"redis://127.0.0.1:{closed_port}/0")
    monkeypatch.setattr(fanout, "get_registry", lambda: away)
    ids = push_many("u1", 5)
    assert kept("u1") == ids


def test_what_is_not_stored_counts_for_nothing(imgo, redis_client):
    imgo(OFFLINE_MAX=1)
    one = push_to_key("u1", 1)
    for _ in range(3):
        push_to_key("u1", 1, store=False)
    drain(partition_of("u1", 4))
    assert kept("u1") == [one]


@pytest.mark.django_db(transaction=True)
def test_what_is_said_about_a_message_names_it_and_its_request(poison, imgo, caplog, redis_client):
    imgo(PARTITIONS=1)
    with logs.within("abc"):
        bad = push_to_key("a", 1)
    poison.add(bad)
    with logs.within("of the task"):
        drain(0)
    (record,) = [one for one in caplog.records if one.name == "push.fanout"]
    assert (record.push_id, record.request_id) == (str(bad), "abc")


@pytest.mark.django_db(transaction=True)
def test_the_time_until_a_message_was_sent_is_noted(imgo, redis_client):
    imgo(PARTITIONS=1)
    count, total = (f"imgo_fanout_latency_seconds_{name}" for name in ("count", "sum"))

    def value(name: str) -> float:
        lines = metrics_page.text().decode().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))

    message = push_to_key("a", 1)
    ago = timezone.now() - timedelta(seconds=7)
    Message.objects.filter(pk=message).update(created_at=ago)
    before = value(count), value(total)
    drain(0)
    assert value(count) - before[0] == 1
    assert 7 <= value(total) - before[1] < 7 + PATIENCE


async def test_a_push_to_everyone_is_spread_over_the_time_that_all_sessions_take(
    listen, imgo, monkeypatch
):
    messages = await listen(ALL)
    nodes = [NodeEntry("a", "a", 1, 0.0, sessions=300), NodeEntry("b", "b", 2, 0.0, sessions=200)]
    monkeypatch.setattr("push.fanout.get_registry", lambda: SimpleNamespace(nodes=lambda: nodes))
    await accept(Push(b"1", to_all=True), Push(b"2", to_all=True, speed=250))
    await accept(Push(b"3", to_all=True, speed=1), Push(b"4", to_all=True, speed=2**31 - 1))
    nodes[0] = replace(nodes[0], sessions=1_000_000)
    await drain_all()
    spreads = [one.get("spread") for one in await messages()]
    assert spreads[0] is None
    assert spreads[1] == 3_600
    assert spreads[2] == 3_600
    assert spreads[3] == 1_000_200 / (2**31 - 1)


async def test_push_to_everyone_goes_at_once_if_their_number_is_unknown(listen, monkeypatch):
    def unreachable() -> None:
        raise Unavailable("no Redis")

    messages = await listen(ALL)
    monkeypatch.setattr("push.fanout.get_registry", unreachable)
    await accept(Push(b"1", to_all=True, speed=1))
    await drain_all()
    assert [one["spread"] for one in await messages()] == [0.0]
