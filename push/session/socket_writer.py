"""The writing half of a direct link, from a session's bytes to the socket's end."""

import asyncio
import socket
import time
from collections import deque
from contextlib import suppress
from typing import Protocol

from imgo_site.conf import conf
from push.metrics.definitions import count_close
from push.session.link_manager import ClosingLimits, LinkManager
from push.session.poller import READ, WRITE
from push.session.session import Session
from push.wire import CloseCode


class Owner(Protocol):
    """The node, which owns a session after its consumer has ended."""

    async def dismiss(self, session: Session) -> None:
        """Remove a session whose connection has ended. Never raises."""


class SocketWriter:
    """One socket, and the bytes that wait for it.

    Writing: the kernel gets the bytes at once; the rest is queued and `waiting` counts it. While
    nothing waits, `session.send` is the socket's own `send`, for direct writes of shared bytes
    (`enable_direct_send`). Direct writes end as soon as bytes are queued, so the order is kept.

    Closing: `close` writes the closing bytes and ends our side of the stream. The link then waits
    for the peer's end, within the limits of `ClosingLimits`. `lose` closes the socket and frees
    everything.

    The subclass adds the socket to the poller, and reads it.
    """

    __slots__ = (
        "__weakref__",
        "_drained",
        "_events",
        "_is_giving_up",
        "_is_open",
        "_manager",
        "_owner",
        "_pauses",
        "_queue",
        "_socket",
        "session",
        "waiting",
    )

    def __init__(self, manager: LinkManager, sock: socket.socket) -> None:
        self._manager = manager
        self._socket = sock
        self._queue: deque[tuple[bytes, int]] | None = None
        self._drained: asyncio.Event | None = None
        self._owner: Owner | None = None  # of an open session
        self._events = READ
        self._is_open = True  # may be written to
        self._pauses = 0  # bit mask of the reasons why the socket is not read
        self._is_giving_up = False
        self.session: Session | None = None
        self.waiting = 0  # bytes

    wraps = False
    joins_packets = True

    @staticmethod
    def wrap(payload: bytes, is_text: bool) -> bytes:  # noqa: ARG004 - WebSocket needs to know
        """Return the bytes of one message on this transport."""
        return payload

    def write(self, data: bytes, receipt: int = 0) -> None:
        """Send `data` to the kernel; queue the bytes that it does not accept."""
        if not self.waiting and self._is_open:
            try:
                sent = self._socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._stop_writing()
                return
            if sent == len(data):
                if receipt and self.session is not None:
                    self.session.sent(receipt)
                return
            data = data[sent:]
        if self._is_open:
            self._enqueue(data, receipt)

    def write_rest(self, data: bytes, sent: int, receipt: int) -> None:
        """Queue the rest of `data`, after a direct write of `sent` bytes to the socket."""
        if self._is_open:
            self._enqueue(data[sent:], receipt)

    def enable_direct_send(self) -> None:
        """Allow direct writes to the socket, if the session is open and nothing is waiting."""
        session = self.session
        if session is None or session.is_replaying or self.waiting:
            return
        # A paced session writes through a PacedLink, which direct writes would bypass.
        if self._is_open and self._owner is not None and session.link is self:
            session.send = self._socket.send

    def _enqueue(self, data: bytes, receipt: int) -> None:
        if self._queue is None:
            self._queue = deque()
        if not self.waiting:
            self._disable_direct_send()
            self._manager.stalled[self] = time.monotonic()
            self._watch(self._events | WRITE)
        elif self.waiting + len(data) > conf.SESSION_BYTES and not self._is_giving_up:
            self.give_up()
            return
        self.waiting += len(data)
        self._queue.append((data, receipt))

    def _disable_direct_send(self) -> None:
        if self.session is not None:
            self.session.send = None

    def _flush(self) -> None:
        """Send queued bytes, when the kernel accepts bytes again."""
        queue = self._queue
        assert queue is not None
        while queue:
            data, receipt = queue[0]
            try:
                sent = self._socket.send(data)
            except BlockingIOError:
                return
            except OSError:
                self._stop_writing()
                return
            self.waiting -= sent
            if sent < len(data):
                queue[0] = (data[sent:], receipt)
                return
            queue.popleft()
            self._manager.stalled[self] = time.monotonic()
            if receipt and self.session is not None:
                self.session.sent(receipt)
        self._queue = None
        self._manager.stalled.pop(self, None)
        self._watch(self._events & ~WRITE)
        self.enable_direct_send()
        self._wake_drained()
        if self in self._manager.closing:
            self._finish()

    @property
    def is_open(self) -> bool:
        """Return whether the link accepts writes."""
        return self._is_open

    def fileno(self) -> int:
        """Return the socket's descriptor; -1 if the connection has ended."""
        return self._socket.fileno()

    async def drained(self) -> None:
        """Wait until no bytes are waiting, or until the link is closed."""
        if self.waiting and self._is_open:
            if self._drained is None:
                self._drained = asyncio.Event()
            await self._drained.wait()

    def _wake_drained(self) -> None:
        """Wake all waiters of `drained`."""
        drained, self._drained = self._drained, None
        if drained is not None:
            drained.set()

    def give_up(self) -> None:
        """Drop the queue and close as a slow reader, with a code that lets the client reconnect.

        Dropped messages get no receipt, so pending messages stay pending.
        """
        self._is_giving_up = True
        if self._queue is not None:
            # The kernel may have accepted a part of the first message: its rest must come first.
            self._queue = deque([(self._queue[0][0], 0)])
            self.waiting = len(self._queue[0][0])
        if self.session is not None:
            self.session.is_closed = True
            self.session.close_code = CloseCode.SLOW_READER
        self.close(CloseCode.SLOW_READER, CloseCode.SLOW_READER.reason)

    def close(self, code: int, reason: str) -> None:
        """Write the closing bytes after earlier writes, then close. Only the first call counts."""
        if self._is_open:
            count_close(code)
            self._write_closing(code, reason)
            self._close_soon()

    def _write_closing(self, code: int, reason: str) -> None:
        """Write the transport's closing bytes, if it has any."""

    def _close_soon(self) -> None:
        """Accept no more writes; give the peer `CLOSE_TIMEOUT` to read and to end its side.

        A close with unread bytes would reset the connection, and the peer would lose bytes that
        it has not read yet. So incoming bytes are read, and dropped except for acknowledgements.
        """
        self._is_open = False
        self._disable_direct_send()
        self._manager.stalled.pop(self, None)
        self._manager.closing.setdefault(self, ClosingLimits())
        self._pauses = 0
        self._watch(self._events | READ)
        if not self.waiting:
            self._finish()
        self._wake_drained()

    def _stop_writing(self) -> None:
        """Drop the queue, when the peer accepts no more bytes. Bytes it sent before are read."""
        self._queue, self.waiting = None, 0
        self._watch(self._events & ~WRITE)
        self._close_soon()

    def _finish(self) -> None:
        """End our side of the stream, when all is sent; the peer must end its own."""
        with suppress(OSError):  # the peer has disconnected; bytes it sent are read first
            self._socket.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """Close at once: the peer has not answered in time, or the node stops."""
        self.lose()

    def evict(self) -> None:
        """Close at once, to make room for other connections."""
        self.lose()

    def lose(self) -> None:
        """Close the socket, free everything, and report the end. Only the first call counts."""
        if self._socket.fileno() == -1:
            return
        self._manager.poller.remove(self._socket.fileno())
        self._manager.unauthenticated.leave(self)
        self._socket.close()
        self._is_open = False
        self._disable_direct_send()
        self._manager.stalled.pop(self, None)
        self._manager.closing.pop(self, None)
        self._queue, self.waiting = None, 0
        self._wake_drained()
        self._manager.paces.pop(self, None)
        self._report_end()

    def keep_reading(self) -> None:
        """Resume reading after a pause because of too many frames."""
        raise NotImplementedError

    def _report_end(self) -> None:
        """Report that the connection has ended."""
        raise NotImplementedError

    def _watch(self, events: int) -> None:
        if events != self._events and self._socket.fileno() != -1:
            self._events = events
            self._manager.poller.watch(self._socket.fileno(), events)
