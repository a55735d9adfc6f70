"""History of a room, and publishing to it, in the Python client."""

import pytest

from imgo_client import ProtocolError, Refused
from imgo_client.frames import Op
from imgo_client.lifetime import Lifetime
from tests import eventually

from .peers import of_room
from .room_peers import ROOM, at


@pytest.fixture(params=["ws", "tcp"])
def scheme(request):
    """The transports with an auth frame; `test_events_transport.py` has the other one."""
    return request.param


async def test_history_is_asked_for_and_answered_as_the_server_does(serve, make):
    page = {"room": ROOM, **at(3), "more": False, "messages": [{"offset": 3, "body": "x"}]}
    asked = []

    async def script(peer):
        await peer.accept(**{ROOM: at(3)})
        asked.append(await peer.expect(Op.HISTORY, page))
        asked.append(await peer.expect(Op.HISTORY, {"error": {"code": "not_found"}}))
        await peer.until_gone()

    client, _ = make(await serve(script))
    room = client.room(ROOM)
    async with client:
        await eventually(lambda: room.state == "joined")
        assert await room.history(before=4, limit=2, order="newest") == page
        with pytest.raises(Refused, match="not_found"):
            await room.history()
    assert asked == [{"room": ROOM, "before": 4, "limit": 2, "order": "newest"}, {"room": ROOM}]


async def test_publish_returns_the_id_of_the_answer_or_raises_its_refusal(serve, make):
    asked = []
    refusal = {"error": {"code": "too_many_publishes", "message": "later"}}

    async def script(peer):
        await peer.accept(**{ROOM: at(3)})
        answers = ({"room": ROOM, "id": "104"}, {"room": ROOM, "id": "105"}, refusal, {})
        asked.extend([await peer.expect(Op.PUBLISH, answer) for answer in answers])
        await peer.until_gone()

    client, _ = make(await serve(script))
    room = client.room(ROOM)
    async with client:
        await eventually(lambda: room.state == "joined")
        assert await room.publish({"n": 1}) == 104
        assert await room.publish("x", op=1000, store=False, echo=False, id="mine") == 105
        with pytest.raises(Refused) as refused:
            await room.publish(2)
        assert refused.value.code == "too_many_publishes"
        with pytest.raises(ProtocolError):
            await room.publish(3)
    ids = [one.pop("id") for one in asked]
    assert ids[1] == "mine"
    assert len(set(ids)) == 4
    assert asked[:2] == [
        {"room": ROOM, "body": {"n": 1}},
        {"room": ROOM, "body": "x", "op": 1000, "store": "never", "echo": False},
    ]


async def test_publish_during_the_join_follows_it(serve, make, monkeypatch):
    async def script(peer):
        await peer.accept()
        await peer.expect(Op.JOIN, at(3))
        await peer.expect(Op.PUBLISH, {"room": ROOM, "id": "104"})
        await peer.until_gone()

    async def call(self, op, body, taken=None):
        states[op] = room.state
        return await send(self, op, body, taken)

    states, send = {}, Lifetime.call
    monkeypatch.setattr(Lifetime, "call", call)
    client, _ = make(await serve(script))
    async with client:
        await eventually(lambda: client.state == "open")
        room = client.room(ROOM)
        assert await room.publish(1) == 104
    assert states == {Op.JOIN: "joining", Op.PUBLISH: "joined"}


async def test_messages_have_the_key_of_the_client_that_has_published_them(serve, make):
    async def script(peer):
        await peer.accept(**{ROOM: at(3)})
        await peer.send(of_room(ROOM, 4)._replace(sender="alice"), of_room(ROOM, 5))
        await peer.send(of_room("other", 1)._replace(sender="bob"))
        await peer.until_gone()

    client, _ = make(await serve(script), rooms=["other"])
    room = client.room(ROOM)
    async with client:
        messages = [await room.__aiter__().__anext__() for _ in range(2)]
        messages.append(await client.__aiter__().__anext__())
    assert [message.sender for message in messages] == ["alice", "", "bob"]
