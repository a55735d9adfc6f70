"""One process of the load generator: plain sockets on epoll that open sessions and count bytes.

It is driven through a pipe by `load.Load`. What happens for every read is one `recv_into` and one
`count` of the byte that each message has once: nothing is parsed. Sources are several loopback
addresses, so that no range of ports ends.
"""

import json
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlencode

Transport = Literal["websocket", "tcp", "sse", "plain"]

MARK = b"^"  # once in the body of every message, and nowhere else that a server writes
IP_BIND_ADDRESS_NO_PORT = 24  # <linux/in.h>: choose the source port at connect, for the 4-tuple
READ_MAX = 262_144  # bytes
EVENTS_MAX = 1024
STALL = 15.0  # seconds without a newly opened session until the rest is given up
HEADER = struct.Struct(">ihhii")
UPGRADE = (
    b"GET /sub HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
AUTH_REPLY_TEXT = b'"op":8'
OPENING_EVENT = b"event: open"


@dataclass(frozen=True)
class Opening:
    """Sessions to open: `count` of them, numbered from `first`.

    `auths`: the auth body of each, JSON; a plain socket sends none and is open when connected.
    `targets` are taken in turn. At most `inflight` are on their way at a time.
    """

    targets: Sequence[tuple[str, int]]
    transport: Transport
    auths: Sequence[bytes]
    first: int = 0
    inflight: int = 256


@dataclass
class Opened:
    """What became of them."""

    opened: int
    failed: dict[str, int]
    seconds: float
    cpu: float  # the generator's own, the busiest process's


@dataclass
class Counted:
    """What arrived since the generator was started, over all its processes."""

    messages: int
    size: int  # bytes
    lost: int  # connections that the server closed
    is_complete: bool


def auth_frame(transport: Transport, auth: bytes) -> bytes:
    """The client's first frame. WebSocket: one masked text frame, with a mask of zeros."""
    if transport == "tcp":
        return HEADER.pack(HEADER.size + len(auth), HEADER.size, 1, 7, 1) + auth
    payload = b'{"ver":1,"op":7,"seq":1,"body":%b}' % auth
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else struct.pack(">BH", 0x80 | 126, size)
    return b"\x81" + length + b"\0\0\0\0" + payload


def events_request(auth: bytes) -> bytes:
    """The request for a stream of events that says what an auth body says."""
    body = json.loads(auth)
    query = urlencode([("rooms", room) for room in body.get("rooms", ())])
    return (
        f"GET /sub/events?{query} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: Bearer {body['token']}\r\n\r\n"
    ).encode()


class _Client:
    """One session on its way; forgotten when it is open."""

    __slots__ = ("auth", "data", "number", "sock", "state")

    def __init__(self, sock: socket.socket, number: int, auth: bytes) -> None:
        self.sock = sock
        self.number = number
        self.auth = auth
        self.data = b""
        self.state = "connecting"


class Generator:
    """One process: opens sessions when told, and counts whatever they receive."""

    def __init__(self, commands: Any, place: int) -> None:
        self.commands = commands
        self.place = place
        self.epoll = select.epoll()
        self.epoll.register(commands.fileno(), select.EPOLLIN)
        self.socks: dict[int, socket.socket] = {}
        self.clients: dict[int, _Client] = {}
        self.todo: deque[int] = deque()
        self.is_opening = False
        self.messages = self.size = self.lost = 0
        self.buffer = bytearray(READ_MAX)
        self.waiting_for: int | None = None
        self.deadline = 0.0
        self.is_running = True

    def run(self) -> None:
        """Serve the parent until it says stop or is gone."""
        pipe = self.commands.fileno()
        while self.is_running:
            timeout = 0.5 if self.waiting_for is None else max(0.0, min(0.5, self._left()))
            events = self.epoll.poll(timeout, EVENTS_MAX)
            if self.clients:
                events = self._advance(events, pipe)
            if events:
                self.take(events, pipe)
            if self.waiting_for is not None:
                self._answer_wait()
            if self.is_opening:
                self._open_more()

    def _left(self) -> float:
        return self.deadline - time.monotonic()

    def take(self, events: list[tuple[int, int]], pipe: int) -> None:
        """Read and count what the ready sockets have: most of a generator's CPU time."""
        socks, buffer = self.socks, self.buffer
        messages = size = 0
        for fd, _ in events:
            if fd == pipe:
                self._command()
                continue
            try:
                received = socks[fd].recv_into(buffer)
            except (BlockingIOError, KeyError):  # KeyError: closed by a command among these events
                continue
            except OSError:
                received = 0
            if received:
                size += received
                messages += buffer.count(MARK, 0, received)
            else:
                self._lose(fd)
        self.size += size
        self.messages += messages

    def _lose(self, fd: int) -> None:
        self.lost += 1
        self.epoll.unregister(fd)
        self.socks.pop(fd).close()

    # Commands

    def _command(self) -> None:
        try:
            name, argument = self.commands.recv()
        except (EOFError, OSError):
            self.is_running = False
            return
        getattr(self, f"_do_{name}")(argument)

    def _do_stop(self, _: None) -> None:
        self.is_running = False

    def _do_cpu(self, _: None) -> None:
        self.commands.send(time.process_time())

    def _do_wait(self, argument: tuple[int, float]) -> None:
        self.waiting_for, timeout = argument
        self.deadline = time.monotonic() + timeout

    def _answer_wait(self) -> None:
        assert self.waiting_for is not None
        is_complete = self.messages >= self.waiting_for
        if is_complete or self._left() <= 0:
            self.waiting_for = None
            self.commands.send(Counted(self.messages, self.size, self.lost, is_complete))

    def _do_close(self, _: None) -> None:
        for fd, sock in self.socks.items():
            self.epoll.unregister(fd)
            # Reset instead of TIME_WAIT: tens of thousands of those would fill the kernel's table.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        self.socks.clear()
        self.commands.send(None)

    # Opening

    def _do_open(self, opening: Opening) -> None:
        self.opening = opening
        self.todo = deque(range(len(opening.auths)))
        self.opened = 0
        self.failed: dict[str, int] = {}
        self.began = self.last_opened = time.monotonic()
        self.cpu_before = time.process_time()
        self.is_opening = True
        self._open_more()

    def _open_more(self) -> None:
        while self.todo and len(self.clients) < self.opening.inflight:
            self._connect(self.todo.popleft())
        if self.clients and time.monotonic() - self.last_opened > STALL:
            for client in list(self.clients.values()):
                self._fail(client, f"nothing for {STALL:g} s while {client.state}")
            self._fail_rest()
        if not self.clients and not self.todo:
            self.is_opening = False
            self.commands.send(
                Opened(
                    self.opened,
                    self.failed,
                    self.last_opened - self.began,
                    time.process_time() - self.cpu_before,
                )
            )

    def _fail_rest(self) -> None:
        if self.todo:
            self.failed["not tried any more"] = len(self.todo)
            self.todo.clear()

    def _connect(self, place: int) -> None:
        opening = self.opening
        number = opening.first + place
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        sock.bind((f"127.0.{1 + self.place}.{1 + number // 10_000 % 250}", 0))
        client = _Client(sock, number, opening.auths[place])
        self.clients[sock.fileno()] = client
        sock.connect_ex(opening.targets[number % len(opening.targets)])
        self.epoll.register(sock.fileno(), select.EPOLLOUT)

    def _advance(self, events: list[tuple[int, int]], pipe: int) -> list[tuple[int, int]]:
        """Carry sessions on their way further; returns the events of all others."""
        others = []
        for fd, event in events:
            client = self.clients.get(fd)
            if client is None or fd == pipe:
                others.append((fd, event))
                continue
            try:
                self._step(client)
            except OSError as error:
                self._fail(client, f"{error.strerror or error} while {client.state}")
        return others

    def _step(self, client: _Client) -> None:
        if client.state == "connecting":
            if code := client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(code, f"connect error {code}")
            self._connected(client)
            return
        data = client.sock.recv(READ_MAX)
        if not data:
            raise OSError(f"closed by the server{_reason(client.data)}")
        client.data += data
        if client.state == "upgrading":
            head, end, rest = client.data.partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 101"):
                raise OSError(f"answered {head[:40]!r}")
            client.data = rest
            self._authenticate(client)
        elif self._is_open(client.data):
            self._open(client)

    def _connected(self, client: _Client) -> None:
        self.epoll.modify(client.sock.fileno(), select.EPOLLIN)
        if self.opening.transport == "plain":
            self._open(client)
        elif self.opening.transport == "tcp":
            self._authenticate(client)
        elif self.opening.transport == "sse":
            client.state = "authenticating"
            client.sock.send(events_request(client.auth))
        else:
            client.state = "upgrading"
            client.sock.send(UPGRADE)

    def _authenticate(self, client: _Client) -> None:
        client.state = "authenticating"
        client.sock.send(auth_frame(self.opening.transport, client.auth))

    def _is_open(self, data: bytes) -> bool:
        if self.opening.transport == "tcp":
            return len(data) >= HEADER.size and data[8:12] == b"\0\0\0\x08"
        return (OPENING_EVENT if self.opening.transport == "sse" else AUTH_REPLY_TEXT) in data

    def _open(self, client: _Client) -> None:
        fd = client.sock.fileno()
        del self.clients[fd]
        self.socks[fd] = client.sock
        # What was replayed right behind the reply counts as well.
        self.size += len(client.data)
        self.messages += client.data.count(MARK)
        self.opened += 1
        self.last_opened = time.monotonic()

    def _fail(self, client: _Client, reason: str) -> None:
        fd = client.sock.fileno()
        del self.clients[fd]
        self.epoll.unregister(fd)
        client.sock.close()
        self.failed[reason] = self.failed.get(reason, 0) + 1


def _reason(data: bytes) -> str:
    """What a server said before it closed."""
    return f" ({data[-100:]!r})" if data else ""
