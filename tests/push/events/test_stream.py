"""Streams of events: what a session is sent, which ids it gets, and how it comes back."""

import asyncio

import pytest

from offline.models import Event, Pending
from push.accept.accept import Push
from push.bus.envelope import close_envelope
from push.bus.group_names import key_group
from push.connect import replay
from push.node import event_ids, rounds
from push.session.event_ids import NUMBER_MAX, room_hash
from push.wire import CloseCode
from tests import eventually, in_thread
from tests.push.conftest import get_node, push_now
from tests.push.node.test_streams import Gate


async def publish(*numbers: int, room: str = "chat-1") -> None:
    for number in numbers:
        await in_thread(push_now, Push(b"%d" % number, room=room))


async def to_key(body: bytes, key: str = "u1", **more) -> int:
    return await in_thread(push_now, Push(body, keys=(key,), **more))


async def test_a_stream_begins_with_the_session_and_its_rooms(client):
    one = client()
    assert await one.open("rooms=chat-1&rooms=lobby&platform=web", authorization="Bearer t") == 200
    assert one.headers["content-type"] == "text/event-stream"
    assert one.headers["x-accel-buffering"] == "no"
    data = await one.opened()
    assert data.keys() == {"session", "rooms"}
    assert data["rooms"]["lobby"] == {}
    assert data["rooms"]["chat-1"]["offset"] == 0
    node = await get_node()
    (entry,) = await in_thread(node.registry.sessions, "u1")
    assert (entry.id, entry.transport, entry.address) == (data["session"], "sse", "192.0.2.1")
    assert entry.platform == "web"


async def test_a_message_is_an_event_with_the_object_of_a_text_frame(stream):
    one = await stream("rooms=lobby")
    number = await to_key(b'{"a":\r\n"b\\n"}')
    assert await one.event() == {
        "ver": 2,
        "op": 5,
        "seq": 0,
        "id": str(number),
        "body": {"a": "b\n"},
    }
    await to_key(b"\xff\r\n\r\ndata: x", is_json=False)
    assert (await one.event())["body"] == "\ufffd\r\n\r\ndata: x"
    await publish(1, room="lobby")
    frame = await one.event()
    assert (frame["room"], frame["body"], frame.get("offset")) == ("lobby", 1, None)


async def test_pending_messages_come_first(stream):
    for number in range(3):
        await to_key(b"%d" % number)
    await publish(7)
    one = await stream("rooms=chat-1&rewind=5")
    assert [(await one.event())["body"] for _ in range(4)] == [0, 1, 2, 7]


async def test_events_of_one_stream_have_ids_of_their_own(stream):
    one = await stream("rooms=chat-1")
    await one.until_id("1,", ".0")  # where it began
    await publish(1, 2, 3)
    found: list = []
    while len(found) < 3:
        block = await one.block()
        found += [block] if block.data else []
    assert [event.value["offset"] for event in found] == [1, 2, 3]
    epoch = one.rooms["chat-1"]["epoch"]
    assert [event.id.rpartition("." + epoch + ".")[2] for event in found] == ["1", "2", "3"]


async def test_with_more_sources_ids_are_in_blocks_behind_what_they_cover(stream):
    one = await stream("rooms=chat-1&rooms=chat-2")
    await one.until_id("1,", ".0")
    await publish(1, 2)
    await publish(9, room="chat-2")
    covered: list[tuple[str, int]] = []
    while len(covered) < 3 or not covered:
        block = await one.block()
        if block.data:
            assert block.id is None
            covered.append((block.value["room"], block.value["offset"]))
        else:
            assert block.id.count(",") == 3
    await one.until_id("1,", ".1")
    places = one.last_id.split(",")[2:]
    assert sorted(place.rpartition(".")[2] for place in places) == ["1", "2"]


async def test_one_id_covers_all_messages_of_an_interval(stream, monkeypatch):
    gate = Gate()
    monkeypatch.setattr(event_ids, "asyncio", gate)  # the interval ends when the gate opens
    one = await stream("rooms=chat-1&rooms=chat-2")
    await one.until_id("1,", ".0")
    await publish(*range(1, 6))
    for number in range(1, 6):
        block = await one.block()
        assert (block.value["body"], block.id) == (number, None)
    gate.is_open.set()
    covering = await one.block()
    assert (covering.data, offsets_of(covering.id)) == ("", [0, 5])


async def test_a_message_to_the_key_is_covered_by_a_block(stream):
    one = await stream("rooms=chat-1")
    await publish(1)
    while not one.last_id.endswith(".1"):
        await one.block()
    node = await get_node()
    sent_at = node.clock.now()
    await to_key(b'"mine"')
    while (block := await one.block()).data == "":
        pass
    assert (block.value["body"], block.id) == ("mine", None)
    covering = await one.block()
    assert (covering.data, one.last_id) == ("", covering.id)
    # The node knows the database's clock only roughly.
    assert time_of(one.last_id) > (sent_at - 0.5) * 1000
    assert one.last_id.endswith(".1")


def time_of(last_id: str) -> int:
    """Return the time in the id of an event, in milliseconds."""
    return int(last_id.split(",")[1])


async def test_a_client_comes_back_to_its_key_and_its_streams(stream, monkeypatch):
    monkeypatch.setattr(replay, "RESUME_MARGIN", 0.0)
    one = await stream("rooms=chat-1&rooms=chat-2")
    await to_key(b'"first"')
    await publish(1)
    for _ in range(2):
        await one.event()
    while offsets_of(one.last_id) != [0, 1]:
        await one.block()
    await one.leave()
    await to_key(b'"second"')
    await publish(2)
    await publish(5, room="chat-2")
    two = await stream("rooms=chat-1&rooms=chat-2", **{"last-event-id": one.last_id})
    assert {room: at["recovered"] for room, at in two.rooms.items()} == {
        "chat-1": True,
        "chat-2": True,
    }
    bodies: list = []
    while len(bodies) < 3:
        body = (await two.event())["body"]
        # The key's first message may come again: its receipt was written after it.
        bodies += [] if body == "first" else [body]
    assert bodies == ["second", 2, 5]


def offsets_of(last_id: str) -> list[int]:
    """The offsets in an id, sorted."""
    return sorted(int(place.rpartition(".")[2]) for place in last_id.split(",")[2:])


async def _covers(one, part: str, after: str = "1,0") -> bool:
    if part in one.last_id and time_of(one.last_id) > time_of(after):
        return True
    await one.block()
    return False


async def test_a_message_that_the_kernel_took_comes_again_if_no_id_covers_it(stream, monkeypatch):
    monkeypatch.setattr(replay, "RESUME_MARGIN", 0.0)
    one = await stream()
    await one.block()
    begin = one.last_id
    first = await to_key(b'"first"')
    assert (await one.event())["id"] == str(first)
    await eventually(lambda: in_thread(lambda: not Pending.objects.exists()))
    await one.leave()
    two = await stream(**{"last-event-id": begin})
    assert (await two.event())["id"] == str(first)
    await eventually(lambda: _covers(two, "1,", after=begin))
    three = await stream(**{"last-event-id": two.last_id})
    second = await to_key(b'"second"')
    assert (await three.event())["id"] == str(second)


async def test_the_first_id_covers_nothing_that_is_still_to_be_sent(stream, monkeypatch):
    monkeypatch.setattr(replay, "RESUME_MARGIN", 0.0)
    one = await stream()
    await one.block()
    begin = one.last_id
    first = await to_key(b'"first"')
    await eventually(lambda: in_thread(lambda: not Pending.objects.exists()))
    await one.leave()
    two = await stream(**{"last-event-id": begin})
    assert (await two.block()).data == ""  # it vanishes before the message
    await two.leave()
    three = await stream(**{"last-event-id": two.last_id})
    assert (await three.event())["id"] == str(first)


@pytest.mark.parametrize("last", ["2,0", "garbage", "1,0,x", "1,0,a.b.-1", f"1,0,a.b.{2**63}"])
async def test_an_id_that_cannot_be_used_is_told(client, last):
    one = client()
    await publish(1)
    headers = {"authorization": "Bearer t", "last-event-id": last}
    assert await one.open("rooms=chat-1&rooms=lobby", **headers) == 200
    data = await one.opened()
    assert data["recovered"] is False
    assert data["rooms"]["chat-1"]["recovered"] is False
    assert data["rooms"]["lobby"] == {"recovered": False}


@pytest.mark.parametrize(
    "place", ["{hash}.0000.1", "{hash}.{epoch}.3", f"{{hash}}.{{epoch}}.{NUMBER_MAX}"]
)
async def test_a_position_of_a_foreign_epoch_or_the_future_is_told(stream, place):
    await publish(1, 2)
    epoch = (await stream("rooms=chat-1")).rooms["chat-1"]["epoch"]
    last = "1,0," + place.format(hash=room_hash("chat-1"), epoch=epoch)
    two = await stream("rooms=chat-1", **{"last-event-id": last})
    assert two.rooms["chat-1"] == {"epoch": epoch, "offset": 2, "recovered": False}
    await publish(3)
    assert (await two.event())["offset"] == 3


async def test_a_position_of_another_time_is_told(stream):
    one = await stream("rooms=chat-1")
    await one.until_id("1,", ".0")
    old = one.last_id.replace(one.rooms["chat-1"]["epoch"], "0000")
    two = await stream("rooms=chat-1", **{"last-event-id": old})
    assert two.rooms["chat-1"]["recovered"] is False


async def test_a_client_is_resent_no_more_than_it_may_have_missed(stream, monkeypatch):
    monkeypatch.setattr(replay, "RESUME_MARGIN", 0.0)
    one = await stream()
    await to_key(b"1")
    await one.event()
    await one.block()
    await to_key(b"2")
    await one.event()
    await eventually(lambda: in_thread(lambda: not Pending.objects.exists()))
    had = (await in_thread(lambda: Event.objects.latest("at").at)).timestamp()
    node = await get_node()
    # Half a second on either side: the node knows the database's clock only roughly.
    await eventually(lambda: node.clock.now() > had + 1)
    later = f"1,{(had + 0.5) * 1000:.0f}"
    await one.leave()
    await to_key(b"3")
    two = await stream(**{"last-event-id": later})
    assert (await two.event())["body"] == 3


async def test_only_a_session_that_acknowledges_leaves_messages_pending(stream):
    one = await stream("ack=1")
    await to_key(b'"kept"')
    await one.event()
    two = await stream("", "t2")
    await to_key(b'"settled"', "u2")
    await two.event()

    async def keys() -> bool:
        found = await in_thread(lambda: list(Pending.objects.values_list("key", flat=True)))
        return found == ["u1"]

    await eventually(keys)


# The end


@pytest.mark.parametrize("code", [CloseCode.KICKED, CloseCode.REVOKED, CloseCode.REPLACED])
async def test_a_stream_ends_with_op_6(stream, code):
    one = await stream()
    node = await get_node()
    node.hub.handle(dict(close_envelope(key_group("u1"), [], code)))
    body = await one.until_ended()
    assert (body["code"], body["reconnect"]) == (code, code.reconnect)


async def test_a_drained_node_ends_its_streams_and_opens_none(stream, client):
    one = await stream()
    node = await get_node()
    await node.drain()
    assert (await one.until_ended())["code"] == CloseCode.GOING_AWAY
    two = client()
    assert await two.open("", authorization="Bearer t") == 503
    assert two.headers["retry-after"] == "5"
    await node.undrain()


async def test_a_stream_ends_when_its_identity_expires(stream):
    one = await stream()
    node = await get_node()
    (session,) = node.hub.sessions.values()
    session.expires_at = node.clock.now() - 1
    await node.rounds.close_silent()
    assert (await one.until_ended())["code"] == CloseCode.EXPIRED


async def test_a_client_that_sends_nothing_is_not_silent(stream):
    await stream()
    node = await get_node()
    (session,) = node.hub.sessions.values()
    session.last_seen = -(10**6)
    await node.rounds.close_silent()
    assert not session.is_closed


async def test_a_quiet_stream_has_a_comment_now_and_then(stream):
    one = await stream()
    node = await get_node()
    node.rounds._next_comments = 0.0
    await node.rounds.comment()
    while b":\n\n" not in one.body:
        await one.more()
    assert node.rounds._next_comments > asyncio.get_running_loop().time() + rounds.COMMENT_EVERY / 2


async def test_a_session_that_leaves_is_forgotten(stream):
    one = await stream("rooms=chat-1&rooms=chat-2")
    node = await get_node()
    await one.leave()
    await eventually(lambda: not node.hub.sessions)
    assert not node.hub.event_ids._by_group
    assert await in_thread(node.registry.sessions, "u1") == []
