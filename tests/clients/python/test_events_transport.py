"""What the Python client does over Server-Sent Events alone, against a server of the tests."""

import asyncio

import pytest

from imgo_client import ApiError, NoAnswer, NotFound, ProtocolError, Recovered, Refused
from imgo_client.event_stream import Block, BlockParser
from imgo_client.frames import Op
from tests import eventually

from .peers import response

pytestmark = pytest.mark.parametrize("scheme", ["http"], indirect=True)


def at(offset, epoch="e"):
    return {"epoch": epoch, "offset": offset}


async def quiet(peer):
    await peer.accept()
    await peer.until_gone()


async def answering(peer):
    """Accept, and answer all requests with an empty body."""
    await peer.accept()
    while True:
        frame = await peer.receive()
        if frame.op != Op.ACK:
            await peer.send(frame._replace(op=frame.op + 1, body={}))


async def test_a_request_that_is_refused_for_now_is_sent_again(serve, make):
    async def script(peer):
        peer.refused_posts += [503, 429, 502]
        await answering(peer)

    server = await serve(script)
    client, log = make(server)
    async with client:
        await eventually(lambda: client.state == "open")
        assert await client.request("x") == {}
        assert server.peers[0].refused_posts == []
    assert log.of("error") == []


async def test_a_frame_without_a_reply_is_sent_again(serve, make, monkeypatch):
    monkeypatch.setattr("imgo_client.event_transport.REPEAT_AFTER", 0.05)

    async def script(peer):
        peer.lost = 2
        await answering(peer)

    client, log = make(await serve(script))
    async with client:
        await eventually(lambda: client.state == "open")
        assert await client.request("x") == {}
        assert log.of("close") == []


async def test_frames_are_sent_one_at_a_time(serve, make):
    async def script(peer):
        await peer.accept()
        first = await peer.receive()
        arrived.append(first.body)
        await may_go_on.wait()
        await peer.send(first._replace(op=first.op + 1))
        second = await peer.receive()
        arrived.append(second.body)
        await peer.send(second._replace(op=second.op + 1))
        await peer.until_gone()

    arrived, may_go_on = [], asyncio.Event()
    client, _ = make(await serve(script))
    async with client:
        await eventually(lambda: client.state == "open")
        both = [asyncio.ensure_future(client.request(n)) for n in (1, 2)]
        await eventually(lambda: arrived)
        assert arrived == [1]
        may_go_on.set()
        assert await asyncio.gather(*both) == [1, 2]


@pytest.mark.parametrize(("status", "error"), [(400, Refused), (413, Refused)])
async def test_a_frame_that_the_server_does_not_take_is_told(serve, make, status, error):
    async def script(peer):
        peer.refused_posts.append(status)
        await answering(peer)

    client, _ = make(await serve(script))
    async with client:
        await eventually(lambda: client.state == "open")
        with pytest.raises(error):
            await client.request("x")
        assert await client.request("y") == {}


@pytest.mark.parametrize("status", [401, 404])
async def test_a_session_that_takes_no_frames_is_left_for_another(serve, make, status):
    async def script(peer):
        if len(server.peers) == 1:
            peer.refused_posts.append(status)
        await answering(peer)

    server = await serve(script)
    client, log = make(server)
    async with client:
        await eventually(lambda: client.state == "open")
        with pytest.raises(ConnectionError):
            await client.request("x")
        await eventually(lambda: len(server.peers) == 2 and client.state == "open")
        assert await client.request("y") == {}
    assert [end.will_reconnect for end in log.of("close")] == [True]


async def test_a_request_ends_with_the_stream_and_not_later(serve, make):
    async def script(peer):
        await peer.accept()
        await peer.receive()
        if len(server.peers) == 1:
            await peer.close(4000)
        await peer.until_gone()

    server = await serve(script)
    client, _ = make(server, timeout=60)
    async with client, asyncio.timeout(3):  # a frame is repeated after 5 seconds
        await eventually(lambda: client.state == "open")
        with pytest.raises(ConnectionError):
            await client.request("x")


async def test_a_silent_stream_is_left(serve, make, monkeypatch):
    monkeypatch.setattr("imgo_client.event_transport.SILENCE_MAX", 0.1)

    async def script(peer):
        await peer.accept()
        if len(server.peers) > 1:
            while True:
                await peer.raw(":\n\n")
                await asyncio.sleep(0.02)  # the server's pace
        await peer.until_gone()

    server = await serve(script)
    client, log = make(server)
    async with client:
        await eventually(lambda: len(server.peers) == 2 and client.state == "open")
        await asyncio.sleep(0.3)  # three times as long as silence may last
        assert client.state == "open"
    assert [end.reason for end in log.of("close")] == ["nothing came for 0.1 s"]


async def test_a_stream_is_resumed_behind_what_was_handled(serve, make):
    async def script(peer):
        place = at(3) | ({"recovered": True} if peer.last_id else {})
        await peer.accept(chat=place)
        await peer.raw("id: one\n\n")
        if len(server.peers) == 1:
            await peer.push_to("chat", 4)
            await peer.raw("id: two\n\n")
            await eventually(lambda: got == [4])
            await peer.raw("id: three\n\n:\n\n")
            await peer.close(4000)
        else:
            await peer.push_to("chat", 4, 5)
        await peer.until_gone()

    got, events = [], []
    server = await serve(script)
    client, log = make(server)
    room = client.room("chat").on("recovered", events.append)
    async with client:
        running = asyncio.ensure_future(room.run(lambda message: got.append(message.offset)))
        await eventually(lambda: got == [4, 5])
    await running
    assert [(peer.last_id, peer.auth["rooms"]) for peer in server.peers] == [
        ("", ["chat"]),
        ("three", ["chat"]),
    ]
    assert events == [Recovered(recovered=True, position=at(3))]
    assert log.of("error") == []


async def test_what_is_not_handled_yet_is_not_resumed_behind(serve, make):
    async def script(peer):
        await peer.accept(chat=at(0) | ({"recovered": True} if peer.last_id else {}))
        await peer.raw("id: one\n\n")
        if len(server.peers) == 1:
            await peer.push(9)
            await peer.push_to("chat", 1)
            await eventually(lambda: room._stream.items)
            peer.refused_posts.append(404)
            await peer.push_to("chat", 2, 3)  # for which there is no space
            await peer.raw("id: two\n\n")
        else:
            await peer.push_to("chat", 2, 3)
        await peer.until_gone()

    server = await serve(script)
    client, _ = make(server, buffer=1)
    room = client.room("chat")
    async with client:
        async for message in client:
            await eventually(lambda: server.peers[0].refused_posts)
            message.ack()  # which ends the session
            break
        await eventually(lambda: len(server.peers) == 2)
        offsets = []
        async for message in room:
            offsets.append(message.offset)
            if message.offset == 3:
                break
    assert offsets == [1, 2, 3]
    assert server.peers[1].last_id == "one"


async def test_rooms_with_a_position_or_a_rewind_are_joined_after_the_request(serve, make):
    async def script(peer):
        await peer.accept(new=at(0))
        for _ in range(2):
            frame = await peer.receive()
            asked.append(frame.body)
            await peer.send(frame._replace(op=Op.JOIN + 1, body=at(7)))
        await peer.until_gone()

    asked = []
    server = await serve(script)
    client, _ = make(server)
    rooms = [
        client.room("new"),
        client.room("placed", position=at(4)),
        client.room("back", rewind=3),
    ]
    async with client:
        await eventually(lambda: all(room.state == "joined" for room in rooms))
    assert server.peers[0].auth["rooms"] == ["new"]
    assert asked == [{"placed": at(4)}, {"back": {"rewind": 3}}]


async def test_a_room_that_the_id_does_not_cover_is_joined_with_its_position(serve, make):
    async def script(peer):
        await peer.accept(chat=at(0) | ({"recovered": True} if peer.last_id else {}))
        await peer.raw("id: one\n\n")
        frame = await peer.receive()
        asked.append(frame.body)
        await peer.send(frame._replace(op=Op.JOIN + 1, body=at(5)))
        if len(server.peers) == 1:
            await may_close.wait()
            await peer.close(4000)
        await peer.until_gone()

    asked, may_close = [], asyncio.Event()
    server = await serve(script)
    client, _ = make(server)
    client.room("chat")
    async with client:
        await eventually(lambda: client.state == "open")
        later = client.room("later")
        await eventually(lambda: later.state == "joined")
        may_close.set()
        await eventually(lambda: len(asked) == 2)
    assert asked == [{"later": {}}, {"later": at(5)}]
    assert [peer.auth["rooms"] for peer in server.peers] == [["chat"], ["chat"]]


async def test_a_client_with_since_sends_no_id(serve, make):
    async def script(peer):
        await peer.accept()
        await peer.raw("id: one\n\n:\n\n")
        if len(server.peers) == 1:
            await peer.push(8)
            await peer.acks(1)
            await peer.close(4000)
        await peer.until_gone()

    server = await serve(script)
    client, _ = make(server, since=7)
    async with client:
        async for message in client:
            message.ack()
            break
        await eventually(lambda: len(server.peers) == 2)
    assert [(peer.last_id, peer.auth["since"]) for peer in server.peers] == [("", "7"), ("", "7")]


async def test_what_a_resumed_stream_repeats_comes_once_without_acknowledgement(serve, make):
    async def script(peer):
        await peer.accept()
        await peer.push(1, 2)
        if len(server.peers) == 1:
            await eventually(lambda: got == [1, 2])
            await peer.close(4000)
        await peer.push(2, 3)
        await peer.until_gone()

    got = []
    server = await serve(script)
    client, _ = make(server, ack=False)
    running = asyncio.ensure_future(client.run(lambda message: got.append(message.body)))
    await eventually(lambda: len(got) >= 3)
    await client.close()
    await running
    assert got == [1, 2, 3]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (response(302, "", "text/plain\r\nLocation: /elsewhere"), ApiError),
        (response(404, "<html>"), NotFound),
        (response(421, '{"code": "misdirected", "detail": "at a node"}'), ApiError),
        (response(200, "hello"), ProtocolError),
        (response(200, "", "text/event-stream"), None),
    ],
)
async def test_an_answer_that_is_no_stream_is_told(serve, make, answer, error):
    async def script(peer):
        peer.writer.write(answer)
        await peer.until_gone()

    client, log = make(await serve(script))
    async with client:
        await eventually(lambda: len(log.of("close")) >= 3)
    assert {type(told) for told in log.of("error")} <= {error}
    assert len(log.of("error")) >= (3 if error else 0)
    log.assert_not_hot(0.01)


async def test_a_stream_whose_first_event_does_not_come_is_told(serve, make):
    async def script(peer):
        await peer.raw(":\n\n")
        await peer.until_gone()

    client, log = make(await serve(script), timeout=0.1)
    async with client:
        await eventually(lambda: log.of("error"))
    assert type(log.of("error")[0]) is NoAnswer


async def test_a_token_that_no_header_can_carry_is_told(serve, make):
    client, log = make(await serve(quiet))
    client._lifetime._token = "a\nb"
    async with client:
        await eventually(lambda: log.of("error"))
    assert "printable ASCII" in str(log.of("error")[0])


# The format

STREAM = (
    b": a comment\n\nretry: 1\nevent: open\ndata: {}\n\nid: 1\n\nid:2\ndata: a\ndata:b\n\n"
    b"data: \xc5\xbc\r\nid: 3\r\n\r\ndata: c\r\rdata\n\nid: \0\ndata: d\n\nunknown: x\n\ndata: cut"
)
BLOCKS = [
    Block("open", "{}"),
    Block(id="1"),
    Block(data="a\nb", id="2"),
    Block(data="ż", id="3"),
    Block(data="c"),
    Block(data=""),
    Block(data="d"),
]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1_000])
def test_blocks_are_found_however_the_network_cut_them(scheme, size):
    parser = BlockParser(1_000)
    pieces = (STREAM[n : n + size] for n in range(0, len(STREAM), size))
    assert [block for piece in pieces for block in parser.feed(piece)] == BLOCKS


def test_a_block_has_a_size_and_a_stream_has_none(scheme):
    parser = BlockParser(100)
    for _ in range(100):
        assert len(parser.feed(b"data: x\n\n" * 10)) == 10
    parser.feed(b"data: y\n" * 12)
    with pytest.raises(ProtocolError):
        parser.feed(b"data: y\n")
    with pytest.raises(ProtocolError):
        BlockParser(100).feed(b"x" * 101)
