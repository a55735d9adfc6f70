"""gunicorn worker whose threads slow clients and slow services cannot exhaust.

A connection gets a thread when the headers of its request are complete. Until then it waits in the
poller, with one deadline for all headers together. A body has a deadline, too. Probes have threads
of their own, so they are answered while all other threads wait for the database.
"""

import re
import socket
import time
from collections import deque
from concurrent import futures
from contextlib import suppress
from functools import partial
from operator import attrgetter
from selectors import EVENT_READ
from typing import Any

from gunicorn.workers.gthread import (  # type: ignore[import-untyped]
    DEFAULT_WORKER_DATA_TIMEOUT,
    TConn,
    ThreadWorker,
)

from imgo_site.conf import conf

PROBE = re.compile(rb"(GET|HEAD) \S*/(healthz|readyz)[ ?]")
HEADERS_END = b"\r\n\r\n"
PEEKED = 16_384  # bytes; gunicorn reads longer headers, and limits them, on a thread
PROBE_THREADS = 2
STREAM = "/api/v1/pushes/stream"  # has its own deadlines: for each line, and for idle time


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn worker that starts threads only for complete headers, and sets deadlines."""

    def init_process(self) -> None:
        """Create the worker's state and start it."""
        self._probes = futures.ThreadPoolExecutor(PROBE_THREADS, thread_name_prefix="probe")
        # Bytes received of incomplete headers, and their deadline (monotonic seconds).
        self._unfinished: dict[TConn, tuple[int, float]] = {}
        self._bodies: dict[TConn, float] = {}  # deadline of a body, monotonic seconds
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
        """Return whether headers are incomplete; if so, wait for more in the poller."""
        size, deadline = self._unfinished.pop(conn, (0, 0.0))
        # If the socket is readable without new bytes, the client has closed its side.
        more = start is not None and size < len(start) < PEEKED and HEADERS_END not in start
        if start is None or not more:
            if size:
                _wake_at(conn, 1)
            return False
        deadline = deadline or time.monotonic() + conf.HANDSHAKE_TIMEOUT
        self._unfinished[conn] = len(start), deadline
        _wake_at(conn, len(start) + 1)  # else the bytes already there would wake the poller again
        self._poll(conn, deadline)
        return True

    def _poll(self, conn: TConn, deadline: float) -> None:
        conn.sock.setblocking(False)
        conn.timeout = deadline
        self.pending_conns.append(conn)
        ready = partial(self.on_pending_socket_readable, conn)
        self.poller.register(conn.sock, EVENT_READ, ready)

    def murder_pending(self) -> None:
        """Close connections with late headers, and end late bodies. Called once a second."""
        # gunicorn checks the first connection only; here deadlines differ, so sort by them.
        waiting: deque[TConn] = self.pending_conns  # type: ignore[has-type]
        self.pending_conns = deque(sorted(waiting, key=attrgetter("timeout")))
        now = time.monotonic()
        for conn, (_, deadline) in list(self._unfinished.items()):
            if deadline < now:
                del self._unfinished[conn]
        for conn, deadline in list(self._bodies.items()):
            if deadline < now:
                with suppress(OSError):
                    conn.sock.shutdown(socket.SHUT_RD)  # the thread then reads an end of file
        super().murder_pending()

    def handle_request(self, req: Any, conn: TConn) -> Any:
        """Answer a request on a thread, with a deadline for its body."""
        if (allowed := _body_time(req)) is not None:
            self._bodies[conn] = time.monotonic() + allowed
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


def _body_time(req: Any) -> float | None:
    """Return the seconds that the body of a request may take; None for no body or no limit."""
    if req.path.endswith(STREAM):
        return None
    headers = dict(req.headers)  # gunicorn's names are in capitals
    length = headers.get("CONTENT-LENGTH", "0")
    size = conf.MAX_FORM if "TRANSFER-ENCODING" in headers else int(length)
    return conf.BODY_TIMEOUT + min(size, conf.MAX_REQUEST) / conf.BODY_RATE if size else None


def _wake_at(conn: TConn, size: int) -> None:
    """Let the poller report the socket only if this many bytes have arrived (Linux)."""
    with suppress(OSError):
        conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)


def _peek(conn: TConn) -> bytes | None:
    """Return the bytes that a client has sent, without removing them; None for none yet."""
    try:
        return bytes(conn.sock.recv(PEEKED, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except BlockingIOError:
        return None
    except OSError:
        return b""  # the connection is broken; a thread will handle that
