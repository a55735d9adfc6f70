"""Our own clients, written from the protocol's description alone: nothing of the server is used.

Three transports behind one interface: raw TCP, and WebSocket with text or with binary messages.
"""

import asyncio
import contextlib
import itertools
import json
import socket
import struct
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Self

import websockets
from websockets.asyncio.client import ClientConnection, connect

from .frames import (
    ACK,
    AUTH,
    AUTH_REPLY,
    DISCONNECT,
    HEARTBEAT,
    HEARTBEAT_REPLY,
    MESSAGE,
    RAW,
    Frame,
    pack,
    parse_text,
    unpack,
)
from .harness import HOST, Node

TIMEOUT = 30.0  # seconds until what should come at once is missing; a busy machine needs some

Body = Any  # bytes go as they are; a str bare in binary and as a JSON string in text; the rest JSON


class Closed(Exception):
    """The server has closed the connection; `code` and `reason` from a WebSocket's close frame."""

    def __init__(self, code: int | None = None, reason: str = "") -> None:
        super().__init__(f"closed: {code} {reason}")
        self.code = code
        self.reason = reason


@dataclass
class Ending:
    """How a session ended, and the frames that came before that."""

    code: int
    reason: str
    reconnect: bool | None = None  # as op 6 says; None when none came
    frames: list[Frame] = field(default_factory=list)


class Client:
    """One connection. `open` it, `auth`, then `receive`, and `close` or `abort` in the end."""

    transport = ""

    def __init__(self) -> None:
        self._frames: deque[Frame] = deque()
        self._seq = itertools.count(100)

    async def send(self, op: int, body: Body = b"", seq: int | None = None) -> int:
        """Send a frame; returns its seq."""
        seq = next(self._seq) if seq is None else seq
        await self.send_raw(self._encode(op, body, seq))
        return seq

    async def auth(self, body: Body, timeout: float = TIMEOUT) -> Self:
        """Authenticate, with a bare token or an object; raises `Closed` when refused."""
        seq = await self.send(AUTH, body)
        reply = await self.receive(timeout)
        assert (reply.op, reply.seq) == (AUTH_REPLY, seq), f"instead of an auth reply: {reply}"
        assert reply.value.keys() <= {"rooms", "expires_in"}
        return self

    async def refused(self, body: Body) -> Ending | None:
        """Authenticate: how that was refused, or None when it was not."""
        await self.send(AUTH, body)
        with contextlib.suppress(Closed):  # comes again, with all that it says
            frame = await self.receive()
            if frame.op == AUTH_REPLY:
                return None
            self._frames.appendleft(frame)
        return await self.ended()

    async def ask(self, op: int, body: Body = b"", seq: int | None = None) -> Frame:
        """Send a frame and return the next one that comes, whose seq must be the same."""
        seq = await self.send(op, body, seq)
        reply = await self.receive()
        assert reply.seq == seq, f"seq {seq} was answered by {reply}"
        return reply

    async def ack(self, *frames: Frame) -> None:
        """Acknowledge the messages in these frames by their ids, in one frame."""
        await self.send(ACK, [str(frame.id) for frame in frames])

    async def heartbeat(self) -> None:
        """Send a heartbeat and wait for the reply."""
        reply = await self.ask(HEARTBEAT)
        assert reply.op == HEARTBEAT_REPLY

    async def receive(self, timeout: float = TIMEOUT) -> Frame:
        """The next frame. Raises `Closed`, or TimeoutError when none comes."""
        try:
            async with asyncio.timeout(timeout):
                while not self._frames:
                    self._frames.extend(self._unwrapped(await self._read()))
                return self._frames.popleft()
        except TimeoutError:
            text = f"nothing came to the {self.transport} client within {timeout:g} s"
            raise TimeoutError(text) from None

    @property
    def has_frames(self) -> bool:
        """Return whether `receive` returns a frame that has been read already."""
        return bool(self._frames)

    async def receive_bodies(self, count: int, timeout: float = TIMEOUT) -> list[bytes]:
        """The bodies of the next `count` frames, which must be messages."""
        bodies: list[bytes] = []
        while len(bodies) < count:
            try:
                frame = await self.receive(timeout)
            except (Closed, TimeoutError) as error:
                raise AssertionError(f"{error}, after {len(bodies)} messages") from None
            assert frame.op == MESSAGE, f"instead of a message: {frame}"
            bodies.append(frame.body)
        return bodies

    async def ended(self, timeout: float = TIMEOUT) -> Ending:
        """Read until the server has closed: how, why, and what came before."""
        frames: list[Frame] = []
        async with asyncio.timeout(timeout):
            try:
                while True:
                    frames.append(await self.receive(timeout))
            except Closed as error:
                closed = error
        if not frames or frames[-1].op != DISCONNECT:
            assert closed.code is not None, "TCP was closed without a frame that says why"
            return Ending(closed.code, closed.reason, None, frames)
        farewell = frames.pop().value
        if closed.code is not None:
            assert closed.code == farewell["code"], "close frame and op 6 name different codes"
        assert farewell["reconnect"] is (4000 <= farewell["code"] < 4500)
        return Ending(farewell["code"], farewell["reason"], farewell["reconnect"], frames)

    def _unwrapped(self, frames: list[Frame]) -> list[Frame]:
        """The frames; those in a batch instead of the batch."""
        return frames

    # What a transport does

    def _encode(self, op: int, body: Body, seq: int) -> Any:
        """A frame in this transport's form."""
        if isinstance(body, str):
            body = body.encode()
        elif not isinstance(body, bytes):
            body = json.dumps(body).encode()
        return pack(op, seq, body)

    async def send_raw(self, data: Any) -> None:
        """Send bytes (or a text) as they are. Raises `Closed` when that cannot be done."""
        raise NotImplementedError

    async def _read(self) -> list[Frame]:
        """What comes next. Raises `Closed`."""
        raise NotImplementedError

    def finish(self) -> None:
        """Say that nothing more will be sent; what the server has sent can still be read."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close in order. May be called again."""
        raise NotImplementedError

    def abort(self) -> None:
        """Vanish: the peer gets a reset."""
        raise NotImplementedError


class TcpClient(Client):
    """A client over raw TCP, where frames follow one another without a wrapping."""

    transport = "tcp"

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__()
        self._reader = reader
        self._writer = writer
        self._data = b""

    @classmethod
    async def open(cls, node: Node, receive_buffer: int = 0) -> Self:
        """Connect. `receive_buffer`: bytes the kernel keeps unread; 0 for its default."""
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            await asyncio.get_running_loop().sock_connect(sock, (HOST, node.tcp_port))
            limit = receive_buffer or 2**16
            return cls(*await asyncio.open_connection(sock=sock, limit=limit))
        except BaseException:
            sock.close()
            raise

    def nagle(self, *, on: bool) -> None:
        """Whether the kernel may wait for more bytes before it sends a few."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, not on)

    async def send_raw(self, data: bytes) -> None:
        try:
            self._writer.write(data)
            await self._writer.drain()
        except ConnectionError:
            raise Closed from None

    async def _read(self) -> list[Frame]:
        try:
            data = await self._reader.read(2**16)
        except ConnectionError:
            raise Closed from None
        if not data:
            assert not self._data, f"the stream ended inside of a frame: {self._data!r}"
            self._writer.close()  # our end of it, as any client does
            raise Closed
        frames, self._data = unpack(self._data + data)
        return frames

    async def receive_bytes(self, count: int, timeout: float = TIMEOUT) -> bytes:
        """As many bytes, as they are."""
        async with asyncio.timeout(timeout):
            return await self._reader.readexactly(count)

    def finish(self) -> None:
        self._writer.write_eof()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    def abort(self) -> None:
        send_reset(self._writer.get_extra_info("socket"))
        self._writer.transport.abort()


class WebSocketClient(Client):
    """WebSocket, on the HTTP port or the one of its own. The subclasses say what is sent."""

    def __init__(self, connection: ClientConnection) -> None:
        super().__init__()
        self.connection = connection
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, node: Node, *, own_port: bool = False, **headers: str) -> Self:
        """Connect; `headers` are those of the upgrade request."""
        port = node.ws_port if own_port else node.http_port
        scheme = "wss" if node.tls else "ws"
        connection = await connect(
            f"{scheme}://{HOST}:{port}/sub",
            ssl=node.tls,
            origin=headers.pop("Origin", None),
            additional_headers=headers,
            compression=None,
            ping_interval=None,  # the protocol has a heartbeat of its own
            open_timeout=TIMEOUT,
            close_timeout=2,
            max_size=None,
            max_queue=(4, 1),
            proxy=None,
        )
        return cls(connection)

    async def send_raw(self, data: str | bytes) -> None:
        try:
            await self.connection.send(data)
        except websockets.ConnectionClosed as error:
            raise _closed(error) from None

    async def receive_raw(self, timeout: float = TIMEOUT) -> str | bytes:
        """The next message as it is."""
        async with asyncio.timeout(timeout):
            return await self.connection.recv()

    async def _read(self) -> list[Frame]:
        try:
            return self._parse(await self.connection.recv())
        except websockets.ConnectionClosed as error:
            raise _closed(error) from None

    def _parse(self, message: str | bytes) -> list[Frame]:
        raise NotImplementedError

    def finish(self) -> None:
        self.connection.close_timeout = TIMEOUT  # what the server has sent is not to be cut off
        self._closing = asyncio.create_task(self.connection.close())

    async def close(self) -> None:
        if self._closing is not None:
            await self._closing
        elif not self.connection.transport.is_closing():
            await self.connection.close()

    def abort(self) -> None:
        send_reset(self.connection.transport.get_extra_info("socket"))
        self.connection.transport.abort()


class TextClient(WebSocketClient):
    """WebSocket with text messages: JSON objects there, JSON arrays back."""

    transport = "text"

    def _encode(self, op: int, body: Body, seq: int) -> str:
        content = json.loads(body or b"{}") if isinstance(body, bytes) else body
        return json.dumps({"ver": 1, "op": op, "seq": seq, "body": content})

    def _parse(self, message: str | bytes) -> list[Frame]:
        assert isinstance(message, str), "a text session was sent a binary message"
        return parse_text(message)


class BinaryClient(WebSocketClient):
    """WebSocket with binary messages: the frames of raw TCP, whole ones in each."""

    transport = "binary"

    def _parse(self, message: str | bytes) -> list[Frame]:
        assert isinstance(message, bytes), "a binary session was sent a text message"
        frames, left = unpack(message)
        assert not left, "a message must hold whole frames"
        return frames

    def _unwrapped(self, frames: list[Frame]) -> list[Frame]:
        unwrapped: list[Frame] = []
        for frame in frames:
            if frame.op == RAW:
                inner, left = unpack(frame.body)
                assert not left, "a batch must hold whole frames"
                unwrapped += inner
            else:
                unwrapped.append(frame)
        return unwrapped


def _closed(error: websockets.ConnectionClosed) -> Closed:
    return Closed(error.rcvd.code, error.rcvd.reason) if error.rcvd else Closed(1006)


def send_reset(sock: socket.socket) -> None:
    """Have the close of this socket send a reset."""
    with contextlib.suppress(OSError):  # closed already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


# Each way in has its transport and, for WebSocket, its port.
DOORS = ("tcp", "text", "binary", "text-on-own-port", "binary-on-own-port")
TRANSPORTS = ("tcp", "text", "binary")


async def open_client(node: Node, door: str, **options: Any) -> Any:
    """Connect through one of `DOORS`."""
    transport, _, port = door.partition("-")
    if transport == "tcp":
        return await TcpClient.open(node, **options)
    kind = TextClient if transport == "text" else BinaryClient
    return await kind.open(node, own_port=bool(port), **options)
