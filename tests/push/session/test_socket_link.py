"""The direct link over one end of a socket pair: what the kernel does not take, and what ends it.

What a session of its own socket answers is in test_consumers.py, for both kinds of link.
"""

import asyncio
import socket
import time
from types import SimpleNamespace

import pytest
from prometheus_client import REGISTRY
from websockets.frames import Frame as WebSocketFrame
from websockets.frames import Opcode
from websockets.protocol import CLIENT, Protocol

from push.connect import handlers
from push.session import link_manager
from push.session import socket_link as module
from push.session.inbox import Inbox
from push.session.session import Session
from push.session.socket_link import Gone, SocketLink
from push.session.tcp_link import TcpLink
from push.session.websocket_link import WebSocketLink
from push.wire import CloseCode, Decoder, Op, encode_binary
from tests import eventually
from tests.push.sessions import KeptKeeper, message, read

BIG = b"x" * 100_000


class FakeNode:
    """A node's part that a link and the handlers use, which records their calls."""

    def __init__(self) -> None:
        self.dismissed: list[Session] = []
        self.ids: list[int] = []  # acknowledged by clients
        self.receipts = self

    async def dismiss(self, session: Session) -> None:
        session.is_closed = True
        self.dismissed.append(session)

    def acknowledged(self, message_id: int, session: Session) -> None:
        self.ids.append(message_id)


@pytest.fixture
def node():
    return FakeNode()


class Peer:
    """The client's end."""

    def __init__(self) -> None:
        self.socket, self.theirs = socket.socketpair()
        self.socket.setblocking(False)
        self.theirs.setblocking(False)
        for end in (self.socket, self.theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.got = b""

    async def read(self) -> None:
        """Take what is there."""
        try:
            self.got += self.socket.recv(1 << 20)
        except BlockingIOError:
            await asyncio.sleep(0)

    async def read_until(self, size: int) -> bytes:
        await eventually(lambda: self._has(size))
        return self.got

    async def _has(self, size: int) -> bool:
        await self.read()
        return len(self.got) >= size

    async def read_to_the_end(self) -> bytes:
        loop = asyncio.get_running_loop()
        while data := await asyncio.wait_for(loop.sock_recv(self.socket, 1 << 20), 10):
            self.got += data
        return self.got


@pytest.fixture
def peer():
    found = Peer()
    yield found
    found.socket.close()
    found.theirs.close()


@pytest.fixture
def acknowledged():
    return []


def adopt(
    link: SocketLink, node, acknowledged=None, *, acks: bool = False, handlers=handlers
) -> Session:
    """An open session that has the link for its own."""
    from accounts.identity import Identity
    from push.session.outgoing import Kind

    kind = Kind.BINARY if link.wraps else Kind.TCP
    keeper = KeptKeeper([] if acknowledged is None else acknowledged)
    session = Session("s1", Identity("u1"), kind, link, keeper, acks=acks)
    link.session = session
    if link._inbox.qsize() and link._inbox._queue[0]["type"].endswith(".connect"):
        link._inbox.get_nowait()  # the consumer's
    link.adopt(node, handlers, [])
    return session


@pytest.fixture
def session(manager, peer, node, acknowledged) -> Session:
    return adopt(TcpLink(manager, peer.theirs), node, acknowledged)


def slow_readers() -> float:
    """How many have been counted."""
    name, reason = "imgo_closes_total", {"reason": "slow_reader"}
    return REGISTRY.get_sample_value(name, reason) or 0


def is_lost(session: Session) -> bool:
    return session.link._socket.fileno() == -1


# Out


async def test_what_the_kernel_takes_is_acknowledged_at_once(session, peer, acknowledged):
    session.deliver(message(7))
    assert (session.link.waiting, acknowledged) == (0, [(7, "u1")])
    await peer.read()
    assert [frame.op for frame in read(session.kind, peer.got)] == [Op.MESSAGE]


async def test_what_it_does_not_take_waits_and_is_acknowledged_when_it_has(
    session, peer, acknowledged
):
    for n in range(1, 4):
        session.deliver(message(n, body=BIG))
    session.deliver(message(4))
    assert session.link.waiting > 200_000
    assert acknowledged == []
    size = 3 * (16 + len(BIG)) + 16 + 7
    got = await peer.read_until(size)
    assert [len(frame.body) for frame in read(session.kind, got)] == [len(BIG)] * 3 + [7]
    await eventually(lambda: [one for one, _ in acknowledged] == [1, 2, 3, 4])
    assert session.link.waiting == 0


async def test_the_short_way_is_open_while_nothing_waits(session, peer):
    assert session.send == session.link._socket.send
    session.deliver(message(1, body=BIG))
    assert session.send is None
    await peer.read_until(16 + len(BIG))
    await eventually(lambda: session.send is not None)


async def test_the_short_way_stays_closed_while_copies_have_to_be_looked_for(session):
    session.hold(1000)
    session.replay(message(1))
    session.send = None
    session.release()
    assert session.send is None
    session.forget_replayed()
    assert session.send is not None


async def test_the_rest_of_a_short_way_goes_first(session, peer):
    data = encode_binary(Op.MESSAGE, 0, BIG)
    sent = session.send(data)
    assert 0 < sent < len(data)
    session.link.write_rest(data, sent, 7)
    session.deliver(message(8))
    got = await peer.read_until(len(data) + 23)
    assert [len(frame.body) for frame in read(session.kind, got)] == [len(BIG), 7]


async def test_drained_waits_for_the_client(session, peer):
    await asyncio.wait_for(session.link.drained(), 1)
    session.deliver(message(1, body=BIG))
    waiters = [asyncio.create_task(session.link.drained()) for _ in range(3)]
    await asyncio.sleep(0)
    assert not any(waiter.done() for waiter in waiters)
    await peer.read_until(16 + len(BIG))
    await asyncio.wait_for(asyncio.gather(*waiters), 10)


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


async def test_over_the_budget_the_session_is_closed_and_what_waits_is_dropped(
    manager, session, peer, acknowledged, imgo
):
    imgo(SESSION_BYTES=250_000)
    before = slow_readers()
    for n in range(1, 6):
        session.deliver(message(n, body=BIG))
    assert session.is_closed
    assert slow_readers() == before + 1
    assert session.link.waiting <= 16 + len(BIG)
    got = await peer.read_to_the_end()
    # The message that the kernel had taken a part of is whole; no other is begun.
    assert [len(frame.body) for frame in read(session.kind, got)] == [len(BIG)]
    assert acknowledged == []


async def test_a_reader_that_takes_too_long_is_closed(manager, session, peer, imgo, node):
    before = slow_readers()
    session.deliver(message(1, body=BIG))
    manager.tick()
    assert not session.is_closed
    imgo(SLOW_READER_TIMEOUT=0.0)
    await asyncio.sleep(0)
    manager.tick()
    assert session.is_closed
    assert slow_readers() == before + 1
    await peer.read_to_the_end()
    peer.socket.close()
    await eventually(lambda: node.dismissed == [session])


async def test_a_reader_that_takes_a_little_is_given_time_again(manager, session, peer, imgo):
    imgo(SESSION_BYTES=10**7)
    for n in range(1, 4):
        session.deliver(message(n, body=BIG))
    since = manager.stalled[session.link]
    await peer.read_until(16 + len(BIG))
    await eventually(lambda: session.link.waiting < 2 * (16 + len(BIG)))
    assert manager.stalled[session.link] > since


# Ending


async def test_a_goodbye_comes_behind_what_was_written(session, peer, node):
    session.deliver(message(1, body=BIG))
    session.disconnect(CloseCode.KICKED)
    session.deliver(message(2))
    got = read(session.kind, await peer.read_to_the_end())
    assert [frame.op for frame in got] == [Op.MESSAGE, Op.DISCONNECT]
    assert not is_lost(session)  # the peer may still be sending
    peer.socket.close()
    await eventually(lambda: is_lost(session))
    assert node.dismissed == [session]


async def test_a_peer_that_does_not_answer_a_goodbye_is_not_waited_for(
    manager, session, node, monkeypatch
):
    monkeypatch.setattr(link_manager, "CLOSE_TIMEOUT", 0.0)
    session.disconnect(CloseCode.KICKED)
    await asyncio.sleep(0)
    manager.tick()
    assert is_lost(session)
    await eventually(lambda: node.dismissed == [session])


@pytest.mark.parametrize("resets", [False, True])
async def test_a_client_that_goes_is_dismissed_once(manager, session, peer, node, resets):
    if resets:
        session.deliver(message(1, body=BIG))  # unread bytes make its end a reset
    peer.socket.close()
    await eventually(lambda: node.dismissed)
    assert is_lost(session)
    session.deliver(message(2))
    session.disconnect(CloseCode.KICKED)
    session.link.lose()
    manager.tick()
    assert node.dismissed == [session]
    assert len(manager.poller) == 0
    assert session.send is None


async def test_who_goes_before_the_session_is_open_is_the_consumers(manager, peer, node):
    link = TcpLink(manager, peer.theirs)
    assert await link.receive() == {"type": "tcp.connect"}
    peer.socket.close()
    assert await asyncio.wait_for(link.receive(), 10) == {"type": "tcp.disconnect"}
    with pytest.raises(Gone):
        adopt(link, node)


async def test_closing_the_node_drops_who_is_left(manager, session, node):
    session.disconnect(CloseCode.GOING_AWAY)
    manager.close()
    assert is_lost(session)
    await eventually(lambda: node.dismissed == [session])
    manager.poller = type("Closed", (), {"close": lambda self: None})()


# In


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


# WebSocket


def masked(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    return WebSocketFrame(opcode, data, fin=fin).serialize(mask=True)


@pytest.fixture
def web(manager, peer, node) -> Session:
    """A session on a WebSocket whose upgrade was answered."""
    return adopt(WebSocketLink(manager, peer.theirs, b""), node)


async def test_an_idle_websocket_has_no_framing_of_its_own(web, peer):
    heartbeat = masked(Opcode.BINARY, encode_binary(Op.HEARTBEAT, 7))
    for byte in heartbeat:
        peer.socket.sendall(bytes([byte]))
        await asyncio.sleep(0)
    await peer.read_until(18)
    assert peer.got[:2] == b"\x82\x10"
    assert web.link._framing is None


async def test_a_websocket_ping_is_answered_and_a_close_too(web, peer, node):
    peer.socket.sendall(masked(Opcode.PING, b"hi"))
    assert await peer.read_until(4) == b"\x8a\x02hi"
    peer.socket.sendall(masked(Opcode.CLOSE, (1000).to_bytes(2, "big")))
    assert await peer.read_to_the_end() == b"\x8a\x02hi\x88\x02\x03\xe8"
    peer.socket.close()
    await eventually(lambda: node.dismissed == [web])


async def test_a_ping_inside_of_a_message_is_answered_before_the_message(web, peer):
    heartbeat = encode_binary(Op.HEARTBEAT, 7)
    peer.socket.sendall(
        masked(Opcode.BINARY, heartbeat[:5], fin=False)
        + masked(Opcode.PING, b"hi")
        + masked(Opcode.CONT, heartbeat[5:])
    )
    got = await peer.read_until(4 + 18)
    assert (got[:4], got[4:6]) == (b"\x8a\x02hi", b"\x82\x10")


async def test_what_came_before_a_broken_frame_is_answered_before_the_close(web, peer):
    heartbeat = masked(Opcode.BINARY, encode_binary(Op.HEARTBEAT, 7))
    peer.socket.sendall(heartbeat + b"\x83\x80" + bytes(4))
    got = await peer.read_to_the_end()
    assert (got[:2], got[18], got[20:22]) == (b"\x82\x10", 0x88, (1002).to_bytes(2, "big"))


async def test_a_websocket_is_closed_with_its_code(web, peer, node):
    web.disconnect(CloseCode.KICKED)
    client = Protocol(CLIENT)

    async def is_closed() -> bool:
        client.receive_data(peer.got)
        peer.got = b""
        await peer.read()
        return client.close_rcvd is not None

    await eventually(is_closed)
    assert client.close_rcvd.code == CloseCode.KICKED
    peer.socket.sendall(b"".join(client.data_to_send()))
    await peer.read_to_the_end()
    assert node.dismissed == []
    peer.socket.close()
    await eventually(lambda: node.dismissed == [web])


async def test_a_time_has_passed_only_when_it_has(manager, session):
    """`tick` is called every second: what is not due stays."""
    session.disconnect(CloseCode.KICKED)
    assert manager.closing[session.link].until > time.monotonic()
    manager.tick()
    assert not is_lost(session)


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


async def test_tick_serves_the_other_links_when_one_fails(manager, session, peer, monkeypatch):
    class Failing:
        is_lost = False

        def abort(self) -> None:
            raise LookupError("a bug")

        def lose(self) -> None:
            self.is_lost = True
            del manager.closing[self]

    failing = Failing()
    due = link_manager.ClosingLimits()
    due.until = 0.0
    manager.closing = {failing: due, session.link: due}
    manager.tick()
    assert failing.is_lost
    assert is_lost(session)


# Acknowledgements, and the end


def ack(*ids: int) -> bytes:
    return encode_binary(Op.ACK, 1, b"[%s]" % b",".join(b"%d" % one for one in ids))


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


@pytest.mark.parametrize("frame", [(Opcode.PING, b"x", True), (Opcode.CONT, b"", False)])
async def test_frames_of_websocket_itself_are_read_at_the_allowed_pace(manager, web, peer, frame):
    opcode, data, fin = frame
    if opcode is Opcode.CONT:
        peer.socket.sendall(masked(Opcode.BINARY, b"", fin=False))
    seen = web.last_seen
    flood = masked(opcode, data, fin=fin) * 2_000
    sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(peer.socket, flood))
    await eventually(lambda: web.link._pauses)
    assert manager.paces[web.link].is_over
    assert not sending.done()
    assert web.last_seen == seen  # no message was completed: the heartbeat's deadline stands
    sending.cancel()


async def test_closed_link_drops_a_flood_up_to_its_limit(session, peer, node, monkeypatch):
    monkeypatch.setattr(link_manager, "CLOSING_BYTES", 20_000)
    session.disconnect(CloseCode.KICKED)
    with pytest.raises(ConnectionError):
        await asyncio.get_running_loop().sock_sendall(peer.socket, bytes(10**6))
    await eventually(lambda: node.dismissed == [session])


async def test_closed_link_is_read_though_it_was_paused(session, peer, imgo):
    """Unread bytes would make the close a reset, and the goodbye might be lost."""
    imgo(MAX_FRAMES_PER_SECOND=1)
    peer.socket.sendall(encode_binary(Op.HEARTBEAT, 1) * 10)
    await eventually(lambda: session.link._pauses)
    session.disconnect(CloseCode.KICKED)
    await asyncio.get_running_loop().sock_sendall(peer.socket, bytes(100_000))
    assert await peer.read_to_the_end()
