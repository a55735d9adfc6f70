"""gunicorn's worker with threads, of which slow clients and slow services cannot take all.

A connection takes a thread when the headers of its request are complete; until then it waits in
the poller, with one deadline for all of them. A body has a deadline too. Probes are answered on
threads of their own, while all others wait for the database.
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
PEEKED = 16_384  # bytes; longer headers are read, and limited, by gunicorn on a thread
PROBE_THREADS = 2
STREAM = "/api/v1/pushes/stream"  # has deadlines of its own: for a line, and when idle


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """Gives threads to requests whose headers are complete, and deadlines to all clients."""

    def init_process(self) -> None:
        """Start."""
        self._probes = futures.ThreadPoolExecutor(PROBE_THREADS, thread_name_prefix="probe")
        # Bytes seen of unfinished headers, and when they must be complete (monotonic seconds).
        self._unfinished: dict[TConn, tuple[int, float]] = {}
        self._bodies: dict[TConn, float] = {}  # when a body must be complete
        super().init_process()

    def enqueue_req(self, conn: TConn) -> None:
        """Hand a connection over to a thread, or to the poller until there is a request."""
        # What was sent cannot be looked at under TLS, or was read with the request before.
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
        """Return whether headers are incomplete, and then wait for more in the poller."""
        size, deadline = self._unfinished.pop(conn, (0, 0.0))
        # Readable without new bytes: the client has ended its side.
        more = start is not None and size < len(start) < PEEKED and HEADERS_END not in start
        if start is None or not more:
            if size:
                _wake_at(conn, 1)
            return False
        deadline = deadline or time.monotonic() + conf.HANDSHAKE_TIMEOUT
        self._unfinished[conn] = len(start), deadline
        _wake_at(conn, len(start) + 1)  # or what is there already would wake the poller again
        self._poll(conn, deadline)
        return True

    def _poll(self, conn: TConn, deadline: float) -> None:
        conn.sock.setblocking(False)
        conn.timeout = deadline
        self.pending_conns.append(conn)
        ready = partial(self.on_pending_socket_readable, conn)
        self.poller.register(conn.sock, EVENT_READ, ready)

    def murder_pending(self) -> None:
        """Close connections whose headers are late, and end bodies that are. Called each second."""
        # Deadlines differ here: gunicorn looks at the first connection only.
        waiting: deque[TConn] = self.pending_conns  # type: ignore[has-type]
        self.pending_conns = deque(sorted(waiting, key=attrgetter("timeout")))
        now = time.monotonic()
        for conn, (_, deadline) in list(self._unfinished.items()):
            if deadline < now:
                del self._unfinished[conn]
        for conn, deadline in list(self._bodies.items()):
            if deadline < now:
                with suppress(OSError):
                    conn.sock.shutdown(socket.SHUT_RD)  # the thread reads an end
        super().murder_pending()

    def handle_request(self, req: Any, conn: TConn) -> Any:
        """Answer a request on a thread."""
        if (allowed := _body_time(req)) is not None:
            self._bodies[conn] = time.monotonic() + allowed
        try:
            return super().handle_request(req, conn)
        finally:
            self._bodies.pop(conn, None)

    def run(self) -> Any:
        """Serve until the end."""
        try:
            return super().run()
        finally:
            self._probes.shutdown(wait=False)


def _body_time(req: Any) -> float | None:
    """Return the seconds that the body of a request may take; None without a body."""
    if req.path.endswith(STREAM):
        return None
    headers = dict(req.headers)  # gunicorn's names are in capitals
    length = headers.get("CONTENT-LENGTH", "0")
    size = conf.MAX_FORM if "TRANSFER-ENCODING" in headers else int(length)
    return conf.BODY_TIMEOUT + min(size, conf.MAX_REQUEST) / conf.BODY_RATE if size else None


def _wake_at(conn: TConn, size: int) -> None:
    """Have the poller report the socket when this many bytes have arrived (Linux)."""
    with suppress(OSError):
        conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)


def _peek(conn: TConn) -> bytes | None:
    """Return what a client has sent, without taking it; None if it has sent nothing yet."""
    try:
        return bytes(conn.sock.recv(PEEKED, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except BlockingIOError:
        return None
    except OSError:
        return b""  # gone; a thread finds out
