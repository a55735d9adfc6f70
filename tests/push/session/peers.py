"""The client's end of a direct link, and a node that records the link's calls."""

import asyncio
import socket

from prometheus_client import REGISTRY
from websockets.frames import Frame as WebSocketFrame
from websockets.frames import Opcode

from accounts.identity import Identity
from push.connect import handlers
from push.session.outgoing import Kind
from push.session.session import Session
from push.session.socket_link import SocketLink
from push.wire import Op, encode_binary
from tests import eventually
from tests.push.sessions import KeptKeeper

BIG = b"x" * 100_000  # more than the kernel accepts at once


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


def adopt(
    link: SocketLink, node, acknowledged=None, *, acks: bool = False, handlers=handlers
) -> Session:
    """An open session that has the link for its own."""
    kind = Kind.BINARY if link.wraps else Kind.TCP
    keeper = KeptKeeper([] if acknowledged is None else acknowledged)
    session = Session("s1", Identity("u1"), kind, link, keeper, acks=acks)
    link.session = session
    if link._inbox.qsize() and link._inbox._queue[0]["type"].endswith(".connect"):
        link._inbox.get_nowait()  # the consumer's
    link.adopt(node, handlers, [])
    return session


def slow_readers() -> float:
    """How many have been counted."""
    name, reason = "imgo_closes_total", {"reason": "slow_reader"}
    return REGISTRY.get_sample_value(name, reason) or 0


def is_lost(session: Session) -> bool:
    return session.link._socket.fileno() == -1


def masked(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    return WebSocketFrame(opcode, data, fin=fin).serialize(mask=True)


def ack(*ids: int) -> bytes:
    return encode_binary(Op.ACK, 1, b"[%s]" % b",".join(b"%d" % one for one in ids))
