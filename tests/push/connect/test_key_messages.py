"""Messages and acknowledgements of the sessions of a key, over each transport."""

import json
from collections import deque
from collections.abc import Callable

from push.accept.accept import Push, accept_push
from push.wire import CloseCode, Op
from tests import eventually, in_thread
from tests.push.conftest import get_node, push_now, stop_node
from tests.push.connect.clients import (
    nothing_is_pending,
    pending,
)


async def test_messages_reach_the_sessions_that_they_are_for(connect, client, name):
    other = await connect(name)
    await other.auth("t2", ack=True)
    for_u1 = await in_thread(push_now, Push(b'{"n":1}', keys=("u1",)))
    for_all = await in_thread(push_now, Push(b'{"n":2}', to_all=True))
    first, second = await client.answer(), await client.answer()
    assert [(f.ver, f.op, f.id) for f in (first, second)] == [(2, 5, for_u1), (2, 5, for_all)]
    assert json.loads(first.body) == {"n": 1}
    assert (await other.answer()).id == for_all


async def test_who_cannot_acknowledge_has_what_it_was_sent(connect, name, imgo):
    imgo(REPLAY_PAGE=2)
    for _ in range(5):
        await in_thread(accept_push, Push(b"1", keys=("u1",)))
    client = await connect(name)
    await client.auth()
    await in_thread(push_now, Push(b"2", keys=("u1",)))
    bodies = [(await client.answer()).body for _ in range(6)]
    assert bodies == [b"1"] * 5 + [b"2"]
    assert all((frame.ver, frame.id) == (1, 0) for frame in client.frames)
    await eventually(nothing_is_pending)


async def test_who_acknowledges_is_sent_it_until_then(connect, client, name):
    ids = [await in_thread(push_now, Push(b"1", keys=("u1",))) for _ in range(3)]
    assert [(await client.answer()).id for _ in range(3)] == ids
    assert await pending() == 3
    again = await connect(name)
    await again.auth(ack=True)
    assert [(await again.answer()).id for _ in range(3)] == ids
    await again.send(Op.ACK, [str(ids[0]), ids[1]])
    await eventually(_is_pending(1))
    await again.send(Op.ACK, [ids[2], ids[2], 10**15])
    await eventually(nothing_is_pending)


def _is_pending(count: int) -> Callable:
    async def check() -> bool:
        return await pending() == count

    return check


async def test_nobody_acknowledges_for_another(connect, client, name):
    one = await in_thread(push_now, Push(b"1", keys=("u1",)))
    other = await connect(name)
    await other.auth("t2", ack=True)
    await other.send(Op.ACK, [one])
    await other.send(Op.HEARTBEAT)
    await other.answer()
    await stop_node()  # writes what was acknowledged
    assert await pending() == 1


async def test_the_ids_of_rooms_cost_nothing_when_they_are_acknowledged(
    connect, client, monkeypatch
):
    one = await in_thread(push_now, Push(b"1", to_all=True))
    frame = await client.answer()
    assert frame.id == one
    node = await get_node()
    asked = []
    monkeypatch.setattr(node.acknowledger, "acknowledged", lambda *about: asked.append(about))
    await client.send(Op.ACK, [str(one), str(one + 1)])
    await client.send(Op.HEARTBEAT)
    await client.answer()
    assert [about[0] for about in asked] == [one + 1]


async def test_a_bad_acknowledgement_closes(connect, name):
    for body in ("x", {}, [0], [-1], [1.5], [True], ["x"], [2**63], [[1]], None):
        client = await connect(name)
        await client.auth(ack=True)
        await client.send(Op.ACK, body)
        assert await client.until_closed() == CloseCode.BAD_FRAME, body


async def test_acknowledgement_right_before_the_end_counts(connect, client, name):
    one = await in_thread(push_now, Push(b'{"n":1}', keys=("u1",)))
    assert (await client.answer()).id == one
    await client.send(Op.ACK, json.dumps([one]).encode() if not client.is_text else [one])
    await client.leave()
    await eventually(nothing_is_pending)


async def test_ids_that_nobody_was_sent_take_no_others_place(connect, client, name, monkeypatch):
    """Made-up ids of one key are dropped, while another's acknowledgement waits to be written."""
    monkeypatch.setattr("offline.node_io.BACKLOG_MAX", 5_000)
    node = await get_node()
    monkeypatch.setattr(node.acknowledger, "_waiting", deque(maxlen=5_000))
    other = await connect(name)
    await other.auth("t2", ack=True)
    one = await in_thread(push_now, Push(b'{"n":1}', keys=("u2",)))
    assert (await other.answer()).id == one
    (session,) = (one for one in node.hub.sessions.values() if one.key == "u1")
    (sender,) = (one for one in node.hub.sessions.values() if one.key == "u2")
    node.receipts.acknowledged(one, sender)
    for made_up in range(10**12, 10**12 + 20_000):
        node.receipts.acknowledged(made_up, session)
    assert node.acknowledger.waiting < 2_000
    await eventually(nothing_is_pending)
