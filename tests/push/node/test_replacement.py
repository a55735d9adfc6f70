"""Replaced messages in the sessions of a node: live, replayed, and recovered from a room."""

import pytest

from accounts.auth_body import RoomRequest
from push.accept.accept import Push, accept_push
from push.bus.group_names import room_group
from push.fanout import drain
from tests import eventually, in_thread
from tests.push.conftest import push_now
from tests.push.node.test_streams import join, objects
from tests.push.sessions import admit, ids

ROOM = "chat-1"


@pytest.fixture(autouse=True)
def _policies(imgo):
    imgo(ROOMS={"chat-*": {"history": 100}}, PARTITIONS=1)


def push(number: int, **members) -> Push:
    return Push(b"%d" % number, **{"room": ROOM, "collapse_key": "n", **members})


async def test_connected_sessions_get_what_was_written_before_it_was_replaced(node):
    session = await admit(node, "u1")
    first = await in_thread(push_now, push(1, room="", keys=("u1",)))
    replaced = await in_thread(accept_push, push(2, room="", keys=("u1",)))
    last = await in_thread(accept_push, push(3, room="", keys=("u1",)))
    await in_thread(drain, 0)
    await eventually(lambda: ids(session)[-1:] == [last])
    assert ids(session) == [first, last]
    assert replaced not in ids(session)


@pytest.mark.parametrize("has_tail", [True, False])
async def test_recovering_session_gets_only_the_last_of_a_collapse_key(node, has_tail):
    staying, _ = await join(node, RoomRequest())
    for number in range(3):
        await in_thread(push_now, push(number))
        await in_thread(push_now, push(10 + number, collapse_key=""))
    await eventually(lambda: len(objects(staying)) == 6)
    stream = node.hub.streams.of(room_group(ROOM))
    if not has_tail:
        node.hub.streams._clear(stream)
    epoch = stream.epoch
    session, told = await join(node, RoomRequest(epoch, 0), key="u2")
    assert told.recovered
    await eventually(lambda: len(objects(session)) == 4)
    assert [(each["offset"], each["body"]) for each in objects(session)] == [
        (2, 10),
        (4, 11),
        (5, 2),
        (6, 12),
    ]
    await in_thread(push_now, push(20))
    await eventually(lambda: objects(session)[-1]["offset"] == 7)
    assert objects(session)[-1]["body"] == 20


@pytest.mark.parametrize("newer", [{"store": False}, {"send_at": 600}])
async def test_recovering_session_gets_nothing_replaced_by_an_unkept_push(node, newer):
    staying, _ = await join(node, RoomRequest())
    await in_thread(push_now, push(1))
    await eventually(lambda: len(objects(staying)) == 1)
    await in_thread(accept_push, push(2, **newer))
    epoch = node.hub.streams.of(room_group(ROOM)).epoch
    session, told = await join(node, RoomRequest(epoch, 0), key="u2")
    assert (told.recovered, told.position.offset) == (True, 1)
    assert objects(session) == []
