"""Replay: what a session is sent before live messages, beside other sessions of its key."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F

from imgo_site.conf import conf
from offline.models import RECEIVED, Event, Message
from offline.node_io import Acknowledger
from offline.settlement import record_receipts
from offline.values import Receipt
from push.accept.accept import Push, accept_pushes
from push.bus.envelope import as_layer_message, message_envelope
from push.bus.group_names import key_group
from push.connect.replay import Replay
from push.node import missed_messages
from push.node.missed_messages import recover
from push.node.node import Node
from push.node.receipts import Receipts
from push.session.session import Session
from tests import in_thread
from tests.push.sessions import admit, ids


@pytest.fixture
async def node(node: Node) -> Node:
    """A node that writes receipts when it is told to."""
    await asyncio.gather(node.rounds.stop(), node.cluster_jobs.stop())
    node.acknowledger = Acknowledger()  # which does not run
    node.receipts = Receipts(node.hub, node.acknowledger, node.rooms)
    return node


async def replayed(node: Node, *, acks: bool = True) -> Session:
    """A session of u1 that was sent what is pending."""
    session = await admit(node, keeper=node.receipts)
    session.acks = acks
    session.hold(conf.SESSION_BYTES)
    replay = Replay(node, session)
    page = await replay.next_page()
    assert page is not None
    await replay.write(page, None)  # type: ignore[arg-type]
    session.release()
    return session


async def test_a_gap_brings_nothing_that_others_had_before_the_session(node: Node):
    (had,) = await in_thread(accept_pushes, [Push(b"1", keys=("u1",))])
    # On a busy machine the time of a receipt may be late.
    receipt = Receipt(had, "u1", RECEIVED, "other-1", -5.0)
    assert await in_thread(record_receipts, [receipt]) == 1
    session = await replayed(node)
    (pending,) = await in_thread(accept_pushes, [Push(b"2", keys=("u1",))])
    since = asyncio.get_running_loop().time() - 1.0
    assert await recover(node.hub, node.acknowledger, ["u1"], since) == 1
    assert ids(session) == [pending]


async def test_a_message_that_an_earlier_session_had_does_not_follow_a_later_one(node: Node):
    first = (await in_thread(accept_pushes, [Push(b"1", keys=("u1",))]))[0]
    early = await replayed(node, acks=False)
    second = (await in_thread(accept_pushes, [Push(b"2", keys=("u1",))]))[0]
    late = await replayed(node)
    assert (ids(early), ids(late)) == ([0], [second])
    await node.acknowledger.stop()  # writes the receipts
    # On a busy machine an event's time may be late.
    stored = Event.objects.filter(message=first, kind=RECEIVED)
    assert await in_thread(lambda: stored.update(at=F("at") + timedelta(seconds=5))) == 1
    row = await in_thread(Message.objects.get, pk=first)
    node.hub.handle(as_layer_message(message_envelope(key_group("u1"), row, "u1")))
    await asyncio.gather(*node.hub.background.tasks)
    assert ids(late) == [second]


async def test_a_recovery_leaves_a_session_that_joined_after_its_reading_alone(
    node: Node, monkeypatch: pytest.MonkeyPatch
):
    early = await replayed(node)
    (first,) = await in_thread(accept_pushes, [Push(b"1", keys=("u1",))])
    has_read, may_deliver = asyncio.Event(), asyncio.Event()
    read = missed_messages._read_until

    async def read_and_wait(*args: Any) -> Any:
        missed = await read(*args)
        has_read.set()
        await may_deliver.wait()
        return missed

    monkeypatch.setattr(missed_messages, "_read_until", read_and_wait)
    since = asyncio.get_running_loop().time() - 1.0
    recovering = asyncio.create_task(recover(node.hub, node.acknowledger, ["u1"], since))
    await has_read.wait()
    await node.dismiss(early)  # with the last session the hold of the key ends
    await in_thread(record_receipts, [Receipt(first, "u1", RECEIVED, "other-1", 0.0)])
    late = await replayed(node)
    (second,) = await in_thread(accept_pushes, [Push(b"2", keys=("u1",))])
    row = await in_thread(Message.objects.get, pk=second)
    node.hub.handle(as_layer_message(message_envelope(key_group("u1"), row, "u1")))
    may_deliver.set()
    assert await recovering == 0
    assert ids(late) == [second]
