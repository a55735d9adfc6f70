"""The direct link, for a session that owns its socket.

The link takes the socket over when the upgrade request was read, or when a TCP connection was
accepted. Until the session is open, the link acts as the ASGI server for the consumer: events in,
events out. Then the consumer ends, and a session consists of only this object, its socket, and
its entry in the hub.

Bytes that sessions share are sent with one system call. The link decodes incoming bytes, replies
to heartbeats and records acknowledgements. A coroutine passes other frames to their handlers.
"""

import asyncio
import logging
import socket
import time
from collections import deque
from contextlib import suppress
from typing import Any, Protocol

from imgo_site.conf import conf
from push.metrics.definitions import count_close
from push.session.inbox import Inbox
from push.session.link_manager import ClosingLimits, LinkManager
from push.session.poller import READ, WRITE
from push.session.read_pace import weigh
from push.session.session import Session
from push.wire import CloseCode, Decoder, Frame, FrameError, Op

logger = logging.getLogger(__name__)

DIRECT_LINK = "imgo.link"  # the scope's entry that holds a direct link
READ_MAX = 4_096  # bytes of one read: at most four of the largest frames
INBOX_MAX = 4  # events that a consumer may lag behind before reading pauses

# Bit mask of reasons why reading pauses: the consumer lags behind, a handler runs, the client
# sends too fast, the upgrade request has no response yet.
PAUSE_CONSUMER, PAUSE_HANDLER, PAUSE_RATE, PAUSE_UPGRADE = 1, 2, 4, 8


class Gone(OSError):
    """Error of `send` after the client has disconnected (ASGI 2.4)."""


class Owner(Protocol):
    """The node, which owns a session after its consumer has ended."""

    async def dismiss(self, session: Session) -> None:
        """Remove a session whose connection has ended. Never raises."""


class FrameHandlers(Protocol):
    """Handlers of a session's frames: `push.connect.handlers`. `owner`: the argument of `adopt`."""

    def acknowledge(self, owner: Any, session: Session, frame: Frame, /) -> None:
        """Handle an acknowledgement."""

    async def handle(self, owner: Any, session: Session, frame: Frame, /) -> None:
        """Handle any other frame."""


class SocketLink:
    """One connection that owns its socket; subclasses know the transport.

    Writing: the kernel gets the bytes at once; the rest is queued and `waiting` counts it. While
    nothing waits, `session.send` is the socket's own `send`, for direct writes of shared bytes
    (`enable_direct_send`). Direct writes end as soon as bytes are queued, so the order is kept.

    Reading: `_pauses` holds the reasons why the socket is not read; it is read if there are none.
    Events go to the consumer until `adopt`, and to the frame handlers after it.

    Closing: `close` writes the closing bytes and ends our side of the stream. The link then waits
    for the peer's end, within the limits of `ClosingLimits`. `lose` closes the socket and frees
    everything.

    `is_watched`: the poller watches the socket already, for reading.
    """

    __slots__ = (
        "__weakref__",
        "_drained",
        "_events",
        "_handlers",
        "_inbox",
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

    def __init__(
        self, manager: LinkManager, sock: socket.socket, *, is_watched: bool = False
    ) -> None:
        self._manager = manager
        self._socket = sock
        self._inbox: Inbox | None = Inbox()
        self._queue: deque[tuple[bytes, int]] | None = None
        self._drained: asyncio.Event | None = None
        self._owner: Owner | None = None
        self._handlers: FrameHandlers | None = None
        self._events = READ
        self._is_open = True  # may be written to
        self._pauses = 0  # bit mask of the reasons
        self._is_giving_up = False
        self.session: Session | None = None
        self.waiting = 0
        if is_watched:
            manager.poller.hand_over(sock.fileno(), self._ready)
        else:
            manager.poller.add(sock.fileno(), self._ready)
        manager.admission.enter(self)

    # Out

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
            self._close_short_way()
            self._manager.stalled[self] = time.monotonic()
            self._watch(self._events | WRITE)
        elif self.waiting + len(data) > conf.SESSION_BYTES and not self._is_giving_up:
            self.give_up()
            return
        self.waiting += len(data)
        self._queue.append((data, receipt))

    def _close_short_way(self) -> None:
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
        self._close_short_way()
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
        """Close the socket and free everything; report the end to the owner or the consumer."""
        if self._socket.fileno() == -1:
            return
        self._manager.poller.remove(self._socket.fileno())
        self._manager.admission.leave(self)
        self._socket.close()
        self._is_open = False
        self._close_short_way()
        self._manager.stalled.pop(self, None)
        self._manager.closing.pop(self, None)
        self._queue, self.waiting = None, 0
        self._wake_drained()
        self._manager.paces.pop(self, None)
        if self._owner is not None and self.session is not None:
            self._manager.background.run(self._owner.dismiss(self.session))
        elif self._inbox is not None:
            self._inbox.put_nowait({"type": "tcp.disconnect"})

    # In

    def _watch(self, events: int) -> None:
        if events != self._events and self._socket.fileno() != -1:
            self._events = events
            self._manager.poller.watch(self._socket.fileno(), events)

    def _pause(self, reason: int) -> None:
        if self._is_open:
            self._pauses |= reason
            self._watch(self._events & ~READ)

    def _resume(self, reason: int) -> None:
        self._pauses &= ~reason
        if not self._pauses:
            self._watch(self._events | READ)

    def keep_reading(self) -> None:
        """Resume reading after a pause because of too many frames."""
        if self._pauses & PAUSE_RATE:
            self._resume(PAUSE_RATE)

    def _ready(self, events: int) -> None:
        """Handle the poller's events. Never raises: an error closes only this connection."""
        try:
            self._serve(events)
        except Exception:
            logger.exception("a connection failed, it is closed")
            self.lose()

    def _serve(self, events: int) -> None:
        if events & WRITE and self._queue is not None:
            self._flush()
        if events & ~WRITE and self._socket.fileno() != -1:
            try:
                data = self._socket.recv(READ_MAX)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data or not self._may_read(len(data)):
                self.lose()
            else:
                self.received(data)

    def _may_read(self, size: int) -> bool:
        """Return whether a closed link may still read these bytes; True for an open link."""
        farewell = self._manager.closing.get(self)
        if farewell is None:
            return True
        farewell.bytes_left -= size
        return farewell.bytes_left >= 0

    def received(self, data: bytes) -> None:
        """Handle bytes from the client."""
        raise NotImplementedError

    def _events_or_frames(self, events: list[dict[str, Any]]) -> None:
        """Pass events to the consumer; after its end, handle their frames."""
        if self._inbox is None:
            self._handle(self._frames(events))
        elif self._is_open:
            for event in events:
                self._inbox.put_nowait(event)
            if self._inbox.qsize() >= INBOX_MAX:
                self._pause(PAUSE_CONSUMER)

    def _frames(self, events: list[dict[str, Any]]) -> tuple[list[Frame], FrameError | None]:
        """Return the good frames of these events, and the error of the first bad one, if any."""
        frames: list[Frame] = []
        for event in events:
            try:
                frames += self._decode(event)
            except FrameError as error:
                return [*frames, *error.frames], error
        return frames, None

    def _decode(self, event: dict[str, Any]) -> list[Frame]:
        raise NotImplementedError

    def _handle(self, decoded: tuple[list[Frame], FrameError | None]) -> None:
        """Handle heartbeats and acknowledgements now, other frames in a coroutine.

        Frames after one of those go to the same coroutine, so the order is kept. Acknowledgements
        count even after the session was closed, because the client has read those messages.
        """
        frames, bad = decoded
        session = self.session
        assert session is not None
        assert self._owner is not None
        assert self._handlers is not None
        if not self._is_open:
            frames, bad = [frame for frame in frames if frame.op == Op.ACK], None
        elif frames:
            session.last_seen = self._manager.loop.time()
            if self._manager.spend(self, *weigh(frames)):
                self._pause(PAUSE_RATE)
        for index, frame in enumerate(frames):
            if frame.op == Op.HEARTBEAT:
                session.reply_to_heartbeat(frame.seq, frame.ver)
            elif frame.op == Op.ACK:
                self._handlers.acknowledge(self._owner, session, frame)
            else:
                self._pause(PAUSE_HANDLER)
                self._manager.background.run(self._handle_rest(session, frames[index:], bad))
                return
        if bad is not None:
            session.disconnect(bad.code, bad.message)

    async def _handle_rest(
        self, session: Session, frames: list[Frame], bad: FrameError | None
    ) -> None:
        """Pass frames to their handlers in order, then resume reading."""
        assert self._owner is not None
        assert self._handlers is not None
        try:
            for frame in frames:
                if not session.is_closed or frame.op == Op.ACK:
                    await self._handlers.handle(self._owner, session, frame)
            if bad is not None:
                session.disconnect(bad.code, bad.message)
        except Exception:
            logger.exception("a handler failed")
            session.disconnect(CloseCode.INTERNAL_ERROR)
        self._resume(PAUSE_HANDLER)

    # For the consumer, until the session is open

    async def receive(self) -> dict[str, Any]:
        """Return the next event: the ASGI application's `receive`."""
        assert self._inbox is not None
        event = await self._inbox.get()
        if self._inbox.qsize() < INBOX_MAX // 2:
            self._resume(PAUSE_CONSUMER)
        return event

    async def send(self, event: dict[str, Any]) -> None:
        """Handle an event: the ASGI application's `send`. Raises `Gone`."""
        raise NotImplementedError

    def adopt(self, owner: Owner, handlers: FrameHandlers, frames: list[Frame]) -> None:
        """Handle these frames and all later ones without the consumer, which ends.

        The session must be open.

        Raises `Gone` if the client disconnected meanwhile. Then the consumer must clean up.
        """
        assert self._inbox is not None
        inbox, self._inbox = self._inbox, None
        self._owner, self._handlers = owner, handlers
        events = [inbox.get_nowait() for _ in range(inbox.qsize())]
        is_lost = self._socket.fileno() == -1
        later, bad = self._frames([each for each in events if each["type"].endswith(".receive")])
        self._handle(([*frames, *later], bad))
        if is_lost:
            raise Gone("the client disconnected")
        self._manager.admission.leave(self)
        self._resume(PAUSE_CONSUMER)
        self.enable_direct_send()


class TcpLink(SocketLink):
    """Link over raw TCP, which carries consecutive frames."""

    __slots__ = ("decoder",)

    def __init__(self, manager: LinkManager, sock: socket.socket) -> None:
        super().__init__(manager, sock)
        self.decoder = Decoder(max(conf.MAX_AUTH_BODY, conf.MAX_CLIENT_BODY))
        assert self._inbox is not None
        self._inbox.put_nowait({"type": "tcp.connect"})

    def received(self, data: bytes) -> None:
        """Handle bytes from the client."""
        self._events_or_frames([{"type": "tcp.receive", "bytes": data}])

    def _decode(self, event: dict[str, Any]) -> list[Frame]:
        return self.decoder.feed(event["bytes"])

    async def send(self, event: dict[str, Any]) -> None:
        """Raise ValueError: a TCP consumer writes only through its session."""
        raise ValueError(f"unknown event type {event['type']!r}")
