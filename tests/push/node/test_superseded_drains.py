"""Envelopes of a drain that a later one has superseded are dropped."""

import asyncio

import pytest

from offline import outbox_queue
from offline.models import Outbox
from offline.partitions import partition_of
from push.accept.accept import Push, accept_push
from push.fanout import envelopes_of
from push.node import superseded_drains as module
from push.node.superseded_drains import Drains
from tests import eventually, in_thread
from tests.push.sessions import admit, ids


def test_an_earlier_drain_is_superseded_by_a_later_one_of_its_partition():
    drains = Drains()
    heard = [drains.is_superseded(*drain) for drain in [(0, 5), (0, 5), (0, 7), (0, 5), (1, 5)]]
    assert heard == [False, False, False, True, False]


def test_ids_that_begin_lower_again_are_believed_after_a_while(monkeypatch):
    drains = Drains()
    assert not drains.is_superseded(0, 1_000)
    assert drains.is_superseded(0, 3)
    monkeypatch.setattr(module, "MEMORY", 0.0)
    assert not drains.is_superseded(0, 3)
    assert not drains.is_superseded(0, 4)


def test_what_names_many_partitions_takes_no_more_memory(monkeypatch):
    monkeypatch.setattr(module, "PARTITIONS_MAX", 2)
    drains = Drains()
    for partition in range(5):
        assert not drains.is_superseded(partition, 1)
    assert len(drains._newest) == 2


def page() -> list[Outbox]:
    """What a drain of the partition of u1 reads, in a transaction of its own."""
    partition = partition_of("u1", 4)
    with outbox_queue.draining(partition, wait=False):
        return outbox_queue.read_page(partition, 0, 10)


@pytest.mark.parametrize("audience", ["key", "room"])
async def test_bytes_of_a_publisher_that_gave_up_come_to_nobody(node, imgo, audience):
    """They are carried out when a later drain has sent what was accepted since."""
    imgo(PARTITIONS=4)
    await asyncio.gather(node.rounds.stop(), node.cluster_jobs.stop())
    to = {"keys": ("u1",)} if audience == "key" else {"room": "u1"}
    first = await in_thread(accept_push, Push(b"1", **to))
    given_up = [dict(e) for row in await in_thread(page) for e in envelopes_of(row)]
    await in_thread(Outbox.objects.all().delete)
    second = await in_thread(accept_push, Push(b"2", **to))
    session = await admit(node, "u1", "u1")
    later = [dict(e) for row in await in_thread(page) for e in envelopes_of(row)]
    assert [e["id"] for e in given_up + later] == [first, second]
    for envelope in [*later, *given_up]:
        node.hub.handle(envelope)
    await eventually(lambda: ids(session) == [second])
    assert node.hub.drops == {"superseded": 1}
