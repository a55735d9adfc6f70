"""gunicorn worker whose threads slow clients and slow services cannot exhaust.

A connection gets a thread when the headers of its request are complete, and its body too if that is
small. Until then it waits in the poller, with one deadline for the headers and one for the body. A
larger body is read by a thread, and only bytes that have arrived extend its deadline. Probes have
threads of their own, so they are answered while all other threads wait for the database.
"""

import re
import socket
import sys
import time
from collections import deque
from concurrent import futures
from contextlib import suppress
from functools import partial
from operator import attrgetter
from selectors import EVENT_READ
from typing import Any, NamedTuple

from gunicorn.workers.gthread import (  # type: ignore[import-untyped]
    DEFAULT_WORKER_DATA_TIMEOUT,
    TConn,
    ThreadWorker,
)

from imgo_site.conf import conf
from imgo_site.errors import TooSlow
from push.api.raw_response import closing_bytes

PROBE = re.compile(rb"(GET|HEAD) \S*/(healthz|readyz)[ ?]")
HEADERS_END = b"\r\n\r\n"
LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})[ \t]*\r\n", re.IGNORECASE)
EXPECT = re.compile(rb"\r\nexpect:", re.IGNORECASE)
PEEK_MAX = 32_768  # bytes of a request that wait in the kernel; a thread reads longer ones
RECEIVED_BEGIN, RECEIVED_END = 128, 136  # tcpi_bytes_received in Linux's struct tcp_info
TCP_INFO_SIZE = 192  # bytes
PROBE_THREADS = 2
STREAM = "/api/v1/pushes/stream"  # has its own deadlines: for each line, and for idle time


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn worker that starts threads only for complete headers, and sets deadlines."""

    def init_process(self) -> None:
        """Create the worker's state and start it."""
        self._probes = futures.ThreadPoolExecutor(PROBE_THREADS, thread_name_prefix="probe")
        self._unfinished: dict[TConn, _Unfinished] = {}
        self._bodies: dict[TConn, _Body] = {}  # those that threads read
        super().init_process()

    def enqueue_req(self, conn: TConn) -> None:
        """Hand a connection to a thread, or to the poller until its headers are complete."""
        # Bytes cannot be peeked at under TLS, or if they were read with the previous request.
        if self.cfg.is_ssl or (conn.initialized and conn.parser.unreader.buf.getvalue()):
            super().enqueue_req(conn)
            return
        start = _peek(conn)
        if start is None and not conn.initialized and not conn.data_ready:
            self._poll(conn, time.monotonic() + DEFAULT_WORKER_DATA_TIMEOUT + self.cfg.keepalive)
            return
        if self._is_unfinished(conn, start):
            return
        pool = self._probes if start and PROBE.match(start) else self.tpool
        conn.data_ready = True
        done = pool.submit(self.handle, conn)
        done.add_done_callback(
            lambda ended: self.method_queue.defer(self.finish_request, conn, ended)
        )

    def _is_unfinished(self, conn: TConn, start: bytes | None) -> bool:
        """Return whether a request is incomplete; if so, wait for the rest in the poller."""
        before = self._unfinished.pop(conn, _Unfinished(0, 0, 0.0))
        needed = _bytes_needed(start or b"")
        # If the socket is readable without new bytes, the client has closed its side.
        is_incomplete = start is not None and before.size < len(start) < min(needed, PEEK_MAX)
        if start is None or not is_incomplete:
            if before.size:
                _wake_at(conn, 1)
            return False
        deadline = before.deadline
        if needed != before.needed and HEADERS_END in start:  # the body begins
            deadline = time.monotonic() + conf.BODY_TIMEOUT
        elif not deadline:
            deadline = time.monotonic() + conf.HANDSHAKE_TIMEOUT
        self._unfinished[conn] = _Unfinished(len(start), needed, deadline)
        # Else the bytes already there would wake the poller again.
        _wake_at(conn, needed if HEADERS_END in start else len(start) + 1)
        self._poll(conn, deadline)
        return True

    def _poll(self, conn: TConn, deadline: float) -> None:
        conn.sock.setblocking(False)
        conn.timeout = deadline
        self.pending_conns.append(conn)
        ready = partial(self.on_pending_socket_readable, conn)
        self.poller.register(conn.sock, EVENT_READ, ready)

    def murder_pending(self) -> None:
        """Refuse late headers and small bodies, and end late bodies. Called once a second."""
        # gunicorn checks the first connection only; here deadlines differ, so sort by them.
        waiting: deque[TConn] = self.pending_conns  # type: ignore[has-type]
        self.pending_conns = deque(sorted(waiting, key=attrgetter("timeout")))
        now = time.monotonic()
        for conn, unfinished in list(self._unfinished.items()):
            if unfinished.deadline < now:
                del self._unfinished[conn]
                _refuse_late(conn)
        for conn, body in list(self._bodies.items()):
            if body.deadline(conn) < now:
                with suppress(OSError):
                    conn.sock.shutdown(socket.SHUT_RD)  # the thread then reads an end of file
        super().murder_pending()

    def handle_request(self, req: Any, conn: TConn) -> Any:
        """Answer a request on a thread, with a deadline for its body."""
        if _has_timed_body(req):
            self._bodies[conn] = _Body(time.monotonic(), _bytes_received(conn))
        try:
            return super().handle_request(req, conn)
        finally:
            self._bodies.pop(conn, None)

    def run(self) -> Any:
        """Serve until the worker is stopped."""
        try:
            return super().run()
        finally:
            self._probes.shutdown(wait=False)


class _Unfinished(NamedTuple):
    """A request that is not complete: bytes received and needed, and its deadline.

    `needed`: total size, more than was received while the end of the headers is missing.
    `deadline`: monotonic seconds.
    """

    size: int
    needed: int
    deadline: float


class _Body(NamedTuple):
    """A body that a thread reads: when it began (monotonic seconds), and the bytes before it."""

    began: float
    received: int

    def deadline(self, conn: TConn) -> float:
        """Return the time by which the next bytes must arrive. Each byte extends it."""
        arrived = max(0, _bytes_received(conn) - self.received)
        return self.began + conf.BODY_TIMEOUT + arrived / conf.BODY_RATE


def _has_timed_body(req: Any) -> bool:
    """Return whether a request has a body with a deadline. A stream of pushes has its own."""
    if req.path.endswith(STREAM):
        return False
    headers = dict(req.headers)  # gunicorn's names are in capitals
    return "TRANSFER-ENCODING" in headers or headers.get("CONTENT-LENGTH", "0") != "0"


def _bytes_needed(start: bytes) -> int:
    """Return the size of a request that begins with `start`, as far as it can be known.

    It is `len(start)` if a thread may begin: the request is complete, or its body is of unknown
    length, or its client waits for "100 Continue".
    """
    headers = start.partition(HEADERS_END)[0]
    if len(headers) == len(start):
        return len(start) + 1
    size = len(headers) + len(HEADERS_END)
    length = LENGTH.search(headers + b"\r\n")
    if length is None or EXPECT.search(headers):
        return len(start)
    total = size + int(length[1])
    return total if total <= PEEK_MAX else len(start)


def _bytes_received(conn: TConn) -> int:
    """Return the bytes that a connection has received so far, read or not; 0 if not known."""
    try:
        info = conn.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_SIZE)
    except OSError:  # a Unix socket: the proxy at its other end has the whole body
        return 0
    return int.from_bytes(info[RECEIVED_BEGIN:RECEIVED_END], sys.byteorder)


def _refuse_late(conn: TConn) -> None:
    """Answer a request that did not arrive in time, as a node does; gunicorn then closes it."""
    from push.api.problems import error_response_at

    words = (_peek(conn) or b"").split(b" ", 2)
    path = words[1].partition(b"?")[0].decode("latin1") if len(words) > 1 else "/"
    response = error_response_at(path, TooSlow("The request did not arrive in time."))
    with suppress(OSError):
        conn.sock.recv(PEEK_MAX, socket.MSG_DONTWAIT)  # unread bytes would reset the connection
        conn.sock.send(closing_bytes(response), socket.MSG_DONTWAIT)


def _wake_at(conn: TConn, size: int) -> None:
    """Let the poller report the socket only if this many bytes have arrived (Linux)."""
    with suppress(OSError):
        conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)


def _peek(conn: TConn) -> bytes | None:
    """Return the bytes that a client has sent, without removing them; None for none yet."""
    try:
        return bytes(conn.sock.recv(PEEK_MAX, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except BlockingIOError:
        return None
    except OSError:
        return b""  # the connection is broken; a thread will handle that
