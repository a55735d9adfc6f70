"""Watching from outside while others are busy: arrival times, heartbeats, database connections."""

import re
import socket
import struct
import threading
import time
from typing import Any

from benchmarks.generator import HEADER, Generator, auth_frame
from benchmarks.load import Load
from benchmarks.servers import Stack

BEAT_INTERVAL = 0.02  # seconds; half of what MAX_FRAMES_PER_SECOND allows
SAMPLE_INTERVAL = 0.05  # seconds
SAMPLES_INTERVAL = 0.5  # seconds; each query costs the server some work
_NUMBER = re.compile(rb"\^(\d{7})")


class Reader(Generator):
    """A generator that parses what it receives, for few messages."""

    def take(self, events: list[tuple[int, int]], pipe: int) -> None:
        """Read from each socket, and hand the data to `read`."""
        for fd, _ in events:
            if fd == pipe:
                self._command()
                continue
            try:
                data = self.socks[fd].recv(65_536)
            except (BlockingIOError, KeyError):  # KeyError: closed by a command among these events
                continue
            except OSError:
                data = b""
            if data:
                self.size += len(data)
                self.read(fd, data)
            else:
                self._lose(fd)

    def read(self, fd: int, data: bytes) -> None:
        """Take what a socket has received."""
        raise NotImplementedError


class Stamper(Reader):
    """A generator that keeps when each numbered message arrived."""

    def __init__(self, commands: Any, place: int) -> None:
        super().__init__(commands, place + 100)  # source addresses of its own
        self.stamps: list[tuple[int, float]] = []

    def read(self, fd: int, data: bytes) -> None:  # noqa: ARG002
        """Keep the numbers and the time."""
        now = time.monotonic()
        numbers = _NUMBER.findall(data)
        self.messages += len(numbers)
        self.stamps += [(int(number), now) for number in numbers]

    def _do_stamps(self, _: None) -> None:
        stamps, self.stamps = self.stamps, []
        self.commands.send(stamps)


class StampLoad(Load):
    """A load of stampers."""

    kind = Stamper

    def stamps(self) -> list[tuple[int, float]]:
        """(number, monotonic time) of all arrivals since the last call."""
        return [stamp for part in self._all("stamps", [None] * len(self.pipes)) for stamp in part]


class _Watch(threading.Thread):
    """A thread that does something again and again; use it with `with`."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._is_over = threading.Event()

    def __enter__(self) -> Any:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self.join(10)


class Heartbeats(_Watch):
    """One TCP session that sends heartbeats; `longest`: seconds that an answer took at most."""

    def __init__(self, target: tuple[str, int], auth: bytes) -> None:
        super().__init__()
        self.longest = 0.0
        self.count = 0
        self._sock = socket.create_connection(target, timeout=60)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock.sendall(auth_frame("tcp", auth))
        self._read_op(8)

    def _read_op(self, wanted: int) -> None:
        head = self._read(HEADER.size)
        length, _, _, op, _ = HEADER.unpack(head)
        self._read(length - HEADER.size)
        if op != wanted:
            raise RuntimeError(f"expected op {wanted}, got op {op}")

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self._sock.recv(count - len(data))
            if not part:
                raise RuntimeError("the heartbeat's session was closed")
            data += part
        return data

    def run(self) -> None:
        """Beat until told to end."""
        with self._sock:
            while not self._is_over.wait(BEAT_INTERVAL):
                began = time.monotonic()
                self._sock.sendall(struct.pack(">ihhii", 16, 16, 1, 2, 1))
                self._read_op(3)
                self.longest = max(self.longest, time.monotonic() - began)
                self.count += 1


class Connections(_Watch):
    """How many connections to the database the processes of one application name have."""

    def __init__(self, stack: Stack, name: str) -> None:
        super().__init__()
        self.most = 0
        self._name = name
        self._database = stack.database()

    def run(self) -> None:
        """Look until told to end."""
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
        with self._database as database:
            while not self._is_over.wait(SAMPLE_INTERVAL):
                row = database.execute(query, [self._name]).fetchone()
                assert row is not None
                self.most = max(self.most, row[0])


class Samples(_Watch):
    """The value of a query over time. `samples`: (monotonic time, value)."""

    def __init__(self, stack: Stack, query: str) -> None:
        super().__init__()
        self.samples: list[tuple[float, int]] = []
        self._query = query
        self._database = stack.database()

    def run(self) -> None:
        """Query until told to end."""
        with self._database as database:
            while not self._is_over.wait(SAMPLES_INTERVAL):
                row = database.execute(self._query).fetchone()
                assert row is not None
                self.samples.append((time.monotonic(), row[0]))
