"""Retractions of cancelled pushes: who gets them, behind what, and in which frames."""

import json

import pytest

from accounts.auth_body import RoomRequest
from push.accept.accept import Push, accept_push
from push.accept.cancel import cancel_push
from push.bus.group_names import room_group
from push.fanout import drain
from push.node.node import Node
from push.session.outgoing import Kind
from push.session.session import Session
from push.wire import Op
from tests import eventually, in_thread
from tests.push.conftest import push_now
from tests.push.node.test_streams import join, objects
from tests.push.sessions import admit, frames

ROOM = "chat-1"


@pytest.fixture(autouse=True)
def _policies(imgo):
    imgo(ROOMS={"chat-*": {"history": 100}}, PARTITIONS=1)


async def asking(node: Node, *args, **options) -> Session:
    session = await admit(node, *args, **options)
    session.retractions = True
    return session


def ops(session: Session) -> list[int]:
    return [frame.op for frame in frames(session)]


async def cancel(message_id: int) -> str:
    state = (await in_thread(cancel_push, message_id)).state
    await in_thread(drain, 0)
    return state


@pytest.mark.parametrize("to", [{"keys": ("u1",)}, {"room": "r"}, {"to_all": True}])
async def test_sessions_that_ask_get_one_retraction_behind_the_message(node, to):
    session, other = await asking(node, "u1", "r"), await admit(node, "u1", "r")
    first = await in_thread(push_now, Push(b"1", **to))
    for _ in range(2):
        await cancel(first)
    last = await in_thread(push_now, Push(b"2", **to))
    await eventually(lambda: ops(session) == [5, Op.RETRACTION, 5])
    await eventually(lambda: ops(other) == [5, 5])
    assert json.loads(frames(session)[1].body) == {"ids": [str(first)]}
    assert last > first


@pytest.mark.parametrize("kind", list(Kind))
async def test_retraction_has_the_form_of_the_session(node, kind):
    session = await asking(node, "u1", kind=kind)
    message_id = await in_thread(push_now, Push(b"1", keys=("u1",)))
    await cancel(message_id)
    await eventually(lambda: len(session.link.written) == 2)
    data, body = session.link.written[1], b'{"ids":["%d"]}' % message_id
    text = b'{"ver":1,"op":30,"seq":0,"body":%b}' % body
    head = (16 + len(body)).to_bytes(4) + bytes.fromhex("0010 0001 0000001e 00000000")
    assert (
        data
        == {
            Kind.TCP: head + body,
            Kind.BINARY: head + body,
            Kind.TEXT: b"[%b]" % text,
            Kind.EVENTS: b"event: imgo\ndata: %b\n\n" % text,
        }[kind]
    )


async def test_replaying_session_gets_it_behind_what_it_replays(node):
    session = await asking(node, "u1")
    message_id = await in_thread(push_now, Push(b"1", keys=("u1",)))
    await eventually(lambda: ops(session) == [5])
    session.hold(1_000)
    await cancel(message_id)
    await eventually(lambda: len(session._held) == 1)
    await in_thread(accept_push, Push(b"2", keys=("u1",)))
    assert ops(session) == [5]
    session.release()
    assert ops(session) == [5, Op.RETRACTION]


async def test_push_that_was_not_sent_needs_no_retraction(node):
    session = await asking(node, "u1")
    message_id = await in_thread(accept_push, Push(b"1", keys=("u1",)))
    assert await cancel(message_id) == "cancelled"
    await in_thread(push_now, Push(b"2", keys=("u1",)))
    await eventually(lambda: ops(session) == [5])


async def test_cancelled_message_of_a_room_leaves_its_history_and_the_tail(node):
    staying, _ = await join(node, RoomRequest())
    staying.retractions = True
    first = await in_thread(push_now, Push(b"1", room=ROOM))
    await in_thread(push_now, Push(b"2", room=ROOM))
    for _ in range(2):
        assert await cancel(first) == "partly"
    await eventually(lambda: len(objects(staying)) == 3)
    assert objects(staying)[2]["body"] == {"ids": [str(first)]}
    stream = node.hub.streams.of(room_group(ROOM))
    session, told = await join(node, RoomRequest(stream.epoch, 0), key="u2")
    assert told.recovered
    await eventually(lambda: [each["offset"] for each in objects(session)] == [2])


@pytest.mark.parametrize("to", [{"keys": ("u1",)}, {"room": ROOM}])
async def test_cancelled_stale_push_is_not_retracted(node, to):
    session = await asking(node, "u1", ROOM)
    await in_thread(push_now, Push(b"1", collapse_key="n", version=2, **to))
    stale = await in_thread(push_now, Push(b"2", collapse_key="n", version=1, **to))
    await cancel(stale)
    await in_thread(push_now, Push(b"3", **to))
    await eventually(lambda: ops(session) == [5, 5])
