"""The direct link over one end of a socket pair: incoming frames, and the end of a connection.

The replies of a session with its own socket are in tests/push/connect, for both kinds of link.
"""

import asyncio
from types import SimpleNamespace

import pytest
from websockets.frames import Opcode

from push.connect import handlers
from push.session import socket_link as module
from push.session.inbox import Inbox
from push.session.socket_link import Gone, SocketLink
from push.session.tcp_link import TcpLink
from push.session.websocket_link import WebSocketLink
from push.wire import CloseCode, Decoder, Op, encode_binary
from tests import eventually
from tests.push.session.peers import ack, adopt, is_lost, masked
from tests.push.sessions import message, read


async def test_an_inbox_has_one_reader_at_a_time():
    inbox = Inbox()
    first = asyncio.create_task(inbox.get())
    await asyncio.sleep(0)
    with pytest.raises(AssertionError, match="cannot be called concurrently"):
        await inbox.get()
    inbox.put_nowait({"type": "one"})
    assert await first == {"type": "one"}
    inbox.put_nowait({"type": "two"})
    assert await inbox.get() == {"type": "two"}


async def test_who_goes_before_the_session_is_open_is_the_consumers(manager, peer, node):
    link = TcpLink(manager, peer.theirs)
    assert await link.receive() == {"type": "tcp.connect"}
    peer.socket.close()
    assert await asyncio.wait_for(link.receive(), 10) == {"type": "tcp.disconnect"}
    with pytest.raises(Gone):
        adopt(link, node)


async def test_frames_are_answered_in_order_however_they_come(session, peer):
    data = b"".join(encode_binary(Op.HEARTBEAT, seq) for seq in range(50))
    for start in range(0, len(data), 37):
        peer.socket.sendall(data[start : start + 37])
        await asyncio.sleep(0)
    await peer.read_until(50 * 16)
    assert [frame.seq for frame in read(session.kind, peer.got)] == list(range(50))


async def test_a_frame_cut_by_the_hand_over_is_whole(manager, peer, node):
    link = TcpLink(manager, peer.theirs)
    await link.receive()
    data = encode_binary(Op.HEARTBEAT, 7)
    peer.socket.sendall(data[:5])
    event = await asyncio.wait_for(link.receive(), 10)
    assert link.decoder.feed(event["bytes"]) == []  # as the consumer does
    session = adopt(link, node)
    peer.socket.sendall(data[5:])
    await peer.read_until(16)
    assert read(session.kind, peer.got)[0].seq == 7


async def test_what_came_behind_the_auth_frame_is_handled(manager, peer, node):
    link = TcpLink(manager, peer.theirs)
    await link.receive()
    peer.socket.sendall(encode_binary(Op.HEARTBEAT, 7))
    await eventually(link._inbox.qsize)
    adopt(link, node)
    await peer.read_until(16)
    assert Decoder(1024).feed(peer.got)[0].seq == 7


async def test_a_flood_is_read_at_the_speed_that_is_allowed(manager, session, peer, imgo):
    imgo(MAX_FRAMES_PER_SECOND=3)
    count = 2 * module.READ_MAX // 16
    flood = b"".join(encode_binary(Op.HEARTBEAT, n) for n in range(count))
    sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(peer.socket, flood))
    await eventually(lambda: session.link in manager.paces and manager.paces[session.link].is_over)
    await peer.read()
    assert len(peer.got) // 16 < count

    async def peer_has(data: bytes) -> bool:
        await peer.read()
        return data in peer.got

    session.deliver(message(1))  # what goes out is not throttled
    await eventually(lambda: peer_has(encode_binary(Op.MESSAGE, 0, b'{"n":1}')))
    while len(peer.got) < count * 16 + 23:
        manager.tick()
        await peer.read()
    await sending
    seqs = [f.seq for f in read(session.kind, peer.got) if f.op == Op.HEARTBEAT_REPLY]
    assert seqs == list(range(count))


async def test_a_consumer_that_lags_behind_stops_the_reading(manager, peer):
    link = TcpLink(manager, peer.theirs)
    data = bytes(range(256)) * 500
    sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(peer.socket, data))
    await eventually(lambda: link._inbox.qsize() == module.INBOX_MAX)
    for _ in range(50):
        await asyncio.sleep(0)
    assert link._inbox.qsize() == module.INBOX_MAX
    assert not sending.done()
    got = b""
    while len(got) < len(data):
        event = await asyncio.wait_for(link.receive(), 10)
        got += event.get("bytes", b"")
        assert link._inbox.qsize() <= module.INBOX_MAX
    assert got == data
    await sending
    link.lose()


async def test_a_handler_that_fails_closes_its_session_alone(session, peer, node, caplog):
    async def fail(*_) -> None:
        raise LookupError("a bug")

    session.link._handlers = SimpleNamespace(handle=fail)
    peer.socket.sendall(encode_binary(Op.TEST, 1))
    (frame,) = read(session.kind, await peer.read_to_the_end())
    assert frame.op == Op.DISCONNECT
    assert b"4011" in frame.body
    assert "LookupError" in caplog.text


async def test_connection_whose_handler_fails_is_closed_and_logged(
    manager, session, peer, monkeypatch, caplog
):
    """Left open, the poller would call it again at once, and for ever."""

    def fail(link: SocketLink, data: bytes) -> None:
        raise LookupError("a bug")

    monkeypatch.setattr(TcpLink, "received", fail)
    peer.socket.sendall(b"x")
    await eventually(lambda: is_lost(session))
    assert len(manager.poller) == 0
    assert [line.exc_info[0] for line in caplog.records] == [LookupError]


@pytest.mark.parametrize("end", ["FIN", "reset", "close frame"])
async def test_acknowledgement_and_end_in_one_segment_both_count(manager, peer, node, end):
    if end == "close frame":
        session = adopt(WebSocketLink(manager, peer.theirs, b""), node)
        peer.socket.sendall(masked(Opcode.BINARY, ack(7)) + masked(Opcode.CLOSE, b"\x03\xe8"))
    else:
        session = adopt(TcpLink(manager, peer.theirs), node)
        if end == "reset":  # its kernel has not read what it was sent
            session.link.write(b"unread")
        peer.socket.sendall(ack(7))
    peer.socket.close()
    await eventually(lambda: node.dismissed == [session])
    assert node.ids == [7]


async def test_acknowledgement_counts_when_a_write_finds_the_end_first(session, peer, node):
    peer.socket.sendall(ack(7))
    peer.socket.close()
    session.link.write(b"too late")
    assert node.ids == []
    await eventually(lambda: node.dismissed == [session])
    assert node.ids == [7]


async def test_acknowledgement_behind_a_goodbye_counts(session, peer, node):
    """It was sent before the client heard of the close."""
    session.disconnect(CloseCode.GOING_AWAY)
    peer.socket.sendall(encode_binary(Op.JOIN, 1, b"a") + ack(7, 8))
    await eventually(lambda: node.ids == [7, 8])


async def test_acknowledgement_behind_a_slow_handler_counts(manager, peer, node):
    opened = asyncio.Event()

    async def handle_late(node, session, frame) -> None:
        if frame.op != Op.ACK:
            await opened.wait()
        await handlers.handle(node, session, frame)

    slow = SimpleNamespace(handle=handle_late, acknowledge=handlers.acknowledge)
    session = adopt(TcpLink(manager, peer.theirs), node, handlers=slow)
    peer.socket.sendall(encode_binary(Op.TEST, 1) + ack(7))
    peer.socket.close()
    await eventually(lambda: session.link._pauses)
    opened.set()
    await eventually(lambda: node.dismissed == [session])
    await eventually(lambda: node.ids == [7])


async def test_acknowledgement_of_a_client_gone_during_opening_counts(manager, peer, node):
    link = TcpLink(manager, peer.theirs)
    peer.socket.sendall(ack(7))
    peer.socket.close()
    await eventually(lambda: link.fileno() == -1)
    with pytest.raises(Gone):
        adopt(link, node)
    assert node.ids == [7]


async def test_one_acknowledgement_a_frame_is_not_held_to_the_frame_limit(session, peer, node):
    sending = b"".join(ack(one) for one in range(1, 1_500))
    await asyncio.get_running_loop().sock_sendall(peer.socket, sending)
    await eventually(lambda: len(node.ids) == 1_499)


async def test_too_many_acknowledged_ids_wait_for_the_next_second(manager, session, peer, node):
    frames = [ack(*range(n, n + 100)) for n in range(1, 10_000, 100)]
    sending = asyncio.create_task(
        asyncio.get_running_loop().sock_sendall(peer.socket, b"".join(frames))
    )
    await eventually(lambda: session.link._pauses)
    assert 2_000 < len(node.ids) < 3_000
    while len(node.ids) < 10_000:
        manager.tick()
        await asyncio.sleep(0)
    await sending
    assert node.ids == list(range(1, 10_001))
