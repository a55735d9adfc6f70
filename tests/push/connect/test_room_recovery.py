"""Rooms with history over the wire: the object form, recovery, history, and mistakes."""

import json

import pytest

from push.accept.accept import Push
from push.status import room_history
from push.wire import CloseCode, Op
from tests import in_thread
from tests.push import room_frames
from tests.push.conftest import push_now
from tests.push.connect.clients import Client

pytestmark = pytest.mark.usefixtures("_policies")


@pytest.fixture
def _policies(imgo):
    imgo(ROOMS={"chat-*": {"history": 100}, "full": {"max_sessions": 1}}, PARTITIONS=1)


@pytest.fixture(autouse=True)
def _rooms_in_frames(monkeypatch):
    monkeypatch.setattr("tests.push.connect.clients.read", room_frames.read)
    monkeypatch.setattr("tests.push.connect.clients.Decoder", room_frames.StreamDecoder)


async def publish(*numbers: int, room: str = "chat-1", store: bool = True) -> None:
    for number in numbers:
        await in_thread(push_now, Push(b"%d" % number, room=room, store=store))


async def message(client: Client) -> list:
    """(room, offset, body) of the next frame, which is a message."""
    frame = await client.answer()
    assert (frame.op, frame.ver, frame.id > 0) == (Op.MESSAGE, 2, True)
    return json.loads(frame.body)


async def told(client: Client, rooms: dict) -> dict:
    """What the auth reply says of these rooms."""
    reply = await client.auth(rooms=rooms)
    assert reply.op == Op.AUTH_REPLY
    return json.loads(reply.body)["rooms"]


async def ask(client: Client, op: int, body) -> dict:
    await client.send(op, body, 5)
    reply = await client.answer()
    assert (reply.op, reply.seq) == (op + 1, 5)
    return json.loads(reply.body or b"{}")


async def test_a_session_comes_back_to_all_that_it_missed(connect, name):
    first = await connect(name)
    (position,) = (await told(first, {"chat-1": {}})).values()
    assert position["offset"] == 0
    await publish(1)
    assert await message(first) == ["chat-1", 1, 1]
    await first.leave()
    await publish(2, 3)
    second = await connect(name)
    at = {"epoch": position["epoch"], "offset": 1}
    assert await told(second, {"chat-1": at}) == {
        "chat-1": {"epoch": position["epoch"], "offset": 3, "recovered": True}
    }
    assert [await message(second) for _ in range(2)] == [["chat-1", 2, 2], ["chat-1", 3, 3]]
    await publish(4)
    assert await message(second) == ["chat-1", 4, 4]


async def test_rooms_follow_in_the_order_in_which_they_are_asked_for(connect):
    await publish(1, 2)
    await publish(7, room="chat-2")
    client = await connect("text")
    await told(client, {"chat-2": {"rewind": 5}, "lobby": {}, "chat-1": {"rewind": 1}})
    assert [await message(client) for _ in range(2)] == [["chat-2", 1, 7], ["chat-1", 2, 2]]
    await publish(3, room="lobby")
    assert await message(client) == ["lobby", 0, 3]


async def test_pending_messages_come_before_those_of_rooms(connect):
    await in_thread(push_now, Push(b'"mine"', keys=("u1",)))
    await publish(1)
    client = await connect("text")
    await told(client, {"chat-1": {"rewind": 1}})
    assert json.loads((await client.answer()).body) == "mine"
    assert await message(client) == ["chat-1", 1, 1]


async def test_a_join_asks_as_the_auth_does(connect, name):
    client = await connect(name)
    await client.auth()
    await publish(1, 2)
    answer = await ask(client, Op.JOIN, {"chat-1": {"rewind": 1}})
    assert answer.keys() == {"epoch", "offset"}
    assert await message(client) == ["chat-1", 2, 2]
    again = await ask(client, Op.JOIN, {"chat-1": {}})
    assert again["error"]["code"] == "bad_request"
    await ask(client, Op.LEAVE, b"chat-1" if name != "text" else "chat-1")
    position = {"epoch": answer["epoch"], "offset": 1}
    assert (await ask(client, Op.JOIN, {"chat-1": position}))["recovered"] is True
    assert await message(client) == ["chat-1", 2, 2]


async def test_names_alone_put_the_room_on_messages(connect, name):
    client = await connect(name)
    await client.auth(rooms=["lobby", "chat-1"], names=True)
    await publish(1, room="lobby")
    await publish(2)
    assert [await message(client) for _ in range(2)] == [["lobby", 0, 1], ["chat-1", 1, 2]]


async def test_what_is_not_stored_has_no_offset(connect):
    client = await connect("text")
    await told(client, {"chat-1": {}})
    await publish(1, store=False)
    await publish(2)
    assert [await message(client) for _ in range(2)] == [["chat-1", 0, 1], ["chat-1", 1, 2]]


async def test_history_is_read_by_those_in_the_room(connect, name):
    await publish(1, 2, 3)
    client = await connect(name)
    await told(client, {"chat-1": {}})
    page = await ask(client, Op.HISTORY, {"room": "chat-1", "limit": 2})
    assert [row["offset"] for row in page["messages"]] == [3, 2]
    assert (page["offset"], page["more"], page["messages"][0]["body"]) == (3, True, 3)


async def test_the_offset_of_a_history_is_that_of_its_newest_message_at_least(
    connect,
    monkeypatch,
):
    client = await connect("text")
    await told(client, {"chat-1": {}})
    await publish(1, 2)
    for _ in range(2):
        await message(client)
    read = room_history.position  # one message is kept between the two reads
    monkeypatch.setattr(room_history, "position", lambda room: read(room)._replace(offset=1))
    page = await ask(client, Op.HISTORY, {"room": "chat-1"})
    assert (page["offset"], page["messages"][0]["offset"]) == (2, 2)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"room": "chat-2"}, "room_forbidden"),
        ({"room": "lobby"}, "not_found"),
        ({"room": "chat-1", "limit": 1001}, "bad_request"),
        ({"room": "chat-1", "since": "x"}, "bad_request"),
        ({"room": "chat-1", "order": "up"}, "bad_request"),
        ({"room": "chat-1", "befor": 3}, "bad_request"),
        ({"room": 7}, "bad_request"),
        ("chat-1", "bad_request"),
        ([], "bad_request"),
    ],
)
async def test_history_that_cannot_be_read_is_told(connect, body, code):
    client = await connect("text")
    await client.auth(rooms={"chat-1": {}, "lobby": {}})
    assert (await ask(client, Op.HISTORY, body))["error"]["code"] == code
    assert (await ask(client, Op.HISTORY, {"room": "chat-1"}))["messages"] == []


MISTAKES = [
    {"chat-1": 7},
    {"chat-1": {"epoch": "x"}},
    {"chat-1": {"offset": 1}},
    {"chat-1": {"epoch": 1, "offset": 1}},
    {"chat-1": {"epoch": "x", "offset": -1}},
    {"chat-1": {"epoch": "x" * 65, "offset": 1}},
    {"chat-1": {"epoch": "x", "offset": 1, "rewind": 1}},
    {"chat-1": {"rewind": -1}},
    {"chat-1": {"rewind": "many"}},
    {"chat-1": {"epoch": "x", "offset": ""}},
    {"chat-1": {"epoch": "x", "offset": 2**63}},
    {"chat-1": {"epoch": "x", "offset": 1.5}},
    {"chat-1": {"rewnd": 20}},
    {"\n": {}},
]


@pytest.mark.parametrize("rooms", MISTAKES, ids=str)
async def test_a_malformed_request_is_refused(connect, name, rooms):
    client = await connect(name)
    await client.send(Op.AUTH, {"token": "t", "rooms": rooms})
    assert await client.until_closed() == CloseCode.BAD_FRAME
    other = await connect(name)
    await other.auth()
    assert (await ask(other, Op.JOIN, rooms))["error"]["code"] == "bad_request"


async def test_a_mistyped_member_is_named_and_a_reply_may_be_sent_back(connect):
    client = await connect("text")
    await client.auth(something="that old servers do not know")
    answer = await ask(client, Op.JOIN, {"chat-1": {"rewnd": 20}})
    assert "'rewnd'" in answer["error"]["message"]
    reply = await ask(client, Op.JOIN, {"chat-1": {}})
    await ask(client, Op.LEAVE, "chat-1")
    reply = await ask(client, Op.JOIN, {"chat-1": {**reply, "recovered": True, "room": "chat-1"}})
    assert reply["recovered"] is True


async def test_rewind_of_a_room_without_history_is_told(connect, name):
    client = await connect(name)
    answer = await told(client, {"lobby": {"rewind": 3}, "den": {}})
    assert answer == {"lobby": {"recovered": False}, "den": {}}
    assert await ask(client, Op.JOIN, {"hall": {"rewind": 3}}) == {"recovered": False}


@pytest.mark.parametrize("position", [("other", 1), ("", 0), (None, 10**6), (None, 2**63 - 1)])
async def test_unknown_positions_are_not_recovered(connect, name, position):
    await publish(1, 2)
    client = await connect(name)
    now = await told(client, {"chat-1": {}})
    epoch = now["chat-1"]["epoch"] if position[0] is None else position[0]
    second = await connect(name)
    answer = await told(
        second,
        {"chat-1": {"epoch": epoch, "offset": position[1]}, "lobby": {"epoch": "x", "offset": 1}},
    )
    assert answer["chat-1"] == {**now["chat-1"], "recovered": False}
    assert answer["lobby"] == {"recovered": False}
    await publish(3)
    assert await message(second) == ["chat-1", 3, 3]


async def test_a_full_room_admits_nobody_else(connect):
    first, second = await connect("text"), await connect("text")
    await first.auth(rooms=["full"])
    await second.auth()
    assert (await ask(second, Op.JOIN, "full"))["error"]["code"] == "unavailable"
    await ask(first, Op.LEAVE, "full")
    assert await ask(second, Op.JOIN, "full") == {}


async def test_a_key_makes_only_so_many_new_streams(connect, monkeypatch):
    monkeypatch.setattr("push.node.streams.MADE_MAX", 2)
    client = await connect("text")
    await client.auth()
    for number in (1, 2):
        assert "epoch" in await ask(client, Op.JOIN, {f"chat-{number}": {}})
    assert (await ask(client, Op.JOIN, {"chat-3": {}}))["error"]["code"] == "unavailable"
    await publish(1, room="chat-4")
    assert "epoch" in await ask(client, Op.JOIN, {"chat-4": {}})
