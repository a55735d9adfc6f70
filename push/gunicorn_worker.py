"""gunicorn's worker with threads, which answers probes while all of its threads are busy."""

import re
import socket
import time
from concurrent import futures
from functools import partial
from selectors import EVENT_READ
from typing import Any

from gunicorn.workers.gthread import (  # type: ignore[import-untyped]
    DEFAULT_WORKER_DATA_TIMEOUT,
    TConn,
    ThreadWorker,
)

PROBE = re.compile(rb"(GET|HEAD) \S*/(healthz|readyz)[ ?]")
PEEKED = 1024  # bytes, of the request line
PROBE_THREADS = 2


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """Serves probes on threads of their own. A connection takes no thread before it has sent."""

    def init_process(self) -> None:
        """Start."""
        self._probes = futures.ThreadPoolExecutor(PROBE_THREADS, thread_name_prefix="probe")
        super().init_process()

    def enqueue_req(self, conn: TConn) -> None:
        """Hand a connection over to a thread, or to the poller until there is a request."""
        if self.cfg.is_ssl:
            super().enqueue_req(conn)  # what was sent cannot be read yet
            return
        start = _peek(conn)
        if start is None and not conn.initialized and not conn.data_ready:
            self._poll(conn)
            return
        pool = self._probes if start and PROBE.match(start) else self.tpool
        conn.data_ready = True
        done = pool.submit(self.handle, conn)
        done.add_done_callback(
            lambda ended: self.method_queue.defer(self.finish_request, conn, ended)
        )

    def _poll(self, conn: TConn) -> None:
        conn.sock.setblocking(False)
        conn.timeout = time.monotonic() + DEFAULT_WORKER_DATA_TIMEOUT + self.cfg.keepalive
        self.pending_conns.append(conn)
        ready = partial(self.on_pending_socket_readable, conn)
        self.poller.register(conn.sock, EVENT_READ, ready)

    def run(self) -> Any:
        """Serve until the end."""
        from push.process_list import announcer  # not before Django is set up

        announcer().start_if_new("api")
        try:
            return super().run()
        finally:
            self._probes.shutdown(wait=False)


def _peek(conn: TConn) -> bytes | None:
    """Return what a client has sent, without taking it; None if it has sent nothing yet."""
    try:
        return bytes(conn.sock.recv(PEEKED, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except BlockingIOError:
        return None
    except OSError:
        return b""  # gone; a thread finds out
