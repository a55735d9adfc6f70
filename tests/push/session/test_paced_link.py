"""Paced writes: a client that takes one read for one frame gets each frame by itself.

Over a socket pair, whose kernel reports bytes as unacknowledged until the peer has read them: what
a busy machine does to the times does not matter.
"""

import asyncio
import socket

import pytest

from accounts.identity import Identity
from push.connect.consumers import TcpConsumer
from push.session.outgoing import Kind
from push.session.paced_link import PacedLink, Pacer, unacknowledged
from push.session.session import Session
from push.session.tcp_link import TcpLink
from push.wire import CloseCode, Op, encode_binary
from tests import eventually
from tests.push.sessions import KeptKeeper, message, read


class FakeNode:
    async def dismiss(self, session: Session) -> None:
        session.is_closed = True


class OneRead:
    """A client with the habit of imgo's Java client: what one read returns is one frame."""

    def __init__(self) -> None:
        self.socket, self.theirs = socket.socketpair()
        self.theirs.setblocking(False)
        self.socket.setblocking(False)

    async def frame(self, timeout: float = 10) -> bytes:
        loop = asyncio.get_running_loop()
        return await asyncio.wait_for(loop.sock_recv(self.socket, 1 << 20), timeout)


@pytest.fixture
def client():
    found = OneRead()
    yield found
    found.socket.close()
    found.theirs.close()


@pytest.fixture
def acknowledged() -> list[tuple[int, str]]:
    return []


@pytest.fixture
async def session(manager, client, acknowledged) -> Session:
    """An open session with a paced link."""
    inner = TcpLink(manager, client.theirs)
    link = PacedLink(inner, Pacer())
    found = Session("s1", Identity("u1"), Kind.TCP, link, KeptKeeper(acknowledged))
    link.session = found
    inner._inbox.get_nowait()  # the consumer's
    inner.adopt(FakeNode(), TcpConsumer, [])
    return found


def number_of(data: bytes) -> int:
    """The number in the body of the one frame that was read."""
    (frame,) = read(Kind.TCP, data)
    return int(frame.body)


def number(n: int):
    return message(n, body=str(n).encode())


async def test_frames_written_together_are_read_one_by_one(session, client, acknowledged):
    session.reply(Op.AUTH_REPLY, 1)
    for n in range(1, 21):
        session.deliver(number(n))
    (reply,) = read(Kind.TCP, await client.frame())
    assert reply.op == Op.AUTH_REPLY
    assert [number_of(await client.frame()) for _ in range(20)] == list(range(1, 21))
    await eventually(lambda: len(acknowledged) == 20)
    assert session.link.waiting == 0


async def test_message_is_received_only_when_the_client_could_read_it(
    session, client, acknowledged
):
    """Nothing is read, so only the first is written; the others stay pending."""
    for n in range(1, 6):
        session.deliver(number(n))
    await eventually(lambda: acknowledged == [(1, "u1")])
    assert unacknowledged(client.theirs.fileno()) > 0
    assert session.link.waiting == sum(len(number(n).packet_for(session)) for n in range(2, 6))
    client.socket.close()
    await eventually(lambda: session.is_closed)
    assert acknowledged == [(1, "u1")]


async def test_frame_waits_for_the_gap_after_the_one_before(session, client, imgo):
    imgo(TCP_FRAME_GAP=0.2)
    loop = asyncio.get_running_loop()
    times = []
    for n in (1, 2):
        session.deliver(number(n))
    for _ in range(2):
        await client.frame()
        times.append(loop.time())
    assert times[1] - times[0] > 0.15


async def test_room_batch_is_one_write(session, client):
    batch = b"".join(encode_binary(5, 0, b"%d" % n, 1, 0) for n in range(3))
    session.link.write(batch)
    session.link.write(encode_binary(5, 0, b"3", 1, 0))
    assert len(read(Kind.TCP, await client.frame())) == 3
    assert number_of(await client.frame()) == 3


async def test_queue_counts_against_the_bytes_of_a_session(session, client, imgo, acknowledged):
    imgo(SESSION_BYTES=10_000)
    for n in range(1, 200):
        session.deliver(message(n, body=b"x" * 1_000))
    assert session.close_code == CloseCode.SLOW_READER
    assert session.link.waiting == 0
    assert len(acknowledged) <= 1


async def test_client_that_does_not_read_is_a_slow_reader(session, imgo):
    imgo(SLOW_READER_TIMEOUT=0.2)
    for n in (1, 2):
        session.deliver(number(n))
    await eventually(lambda: session.close_code == CloseCode.SLOW_READER)


async def test_close_comes_behind_what_was_written(session, client):
    for n in (1, 2):
        session.deliver(number(n))
    session.disconnect(CloseCode.GOING_AWAY)
    session.deliver(number(3))  # too late
    assert [number_of(await client.frame()) for _ in range(2)] == [1, 2]
    (goodbye,) = read(Kind.TCP, await client.frame())
    assert goodbye.op == Op.DISCONNECT
    assert await client.frame() == b""


async def test_close_does_not_wait_for_a_client_that_does_not_read(session, client, monkeypatch):
    monkeypatch.setattr("push.session.paced_link.CLOSE_TIMEOUT", 0.1)
    for n in range(1, 10):
        session.deliver(number(n))
    session.disconnect(CloseCode.GOING_AWAY)
    await asyncio.wait_for(session.link.drained(), 10)
    *_, goodbye = read(Kind.TCP, await client.frame())
    assert goodbye.op == Op.DISCONNECT
    assert await client.frame() == b""


async def test_drained_returns_when_the_client_has_gone(session, client):
    for n in (1, 2):
        session.deliver(number(n))
    waiting = asyncio.ensure_future(session.link.drained())
    await asyncio.sleep(0)
    assert not waiting.done()
    client.socket.close()
    await asyncio.wait_for(waiting, 10)


async def test_pacer_has_no_timer_while_nothing_waits(session, client):
    pacer = session.link._pacer
    for n in (1, 2):
        session.deliver(number(n))
    assert pacer._timer is not None
    for _ in range(2):
        await client.frame()
    await eventually(lambda: pacer._timer is None)


async def test_failure_of_one_link_does_not_stop_the_others():
    class Link:
        def __init__(self) -> None:
            self.calls = 0

        def proceed(self) -> None:
            self.calls += 1
            raise LookupError("a bug")

    pacer, links = Pacer(), [Link(), Link()]
    failures = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: failures.append(context["exception"]))
    for link in links:
        pacer.schedule(link)
    await eventually(lambda: [link.calls for link in links] == [1, 1])
    assert len(failures) == 2
