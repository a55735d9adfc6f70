"""The direct link, for a session that owns its socket.

The link takes the socket over when the upgrade request was read, or when a TCP connection was
accepted. Until the session is open, the link acts as the ASGI server for the consumer: events in,
events out. Then the consumer ends, and a session consists of only this object, its socket, and
its entry in the hub.

The link decodes incoming bytes, replies to heartbeats and records acknowledgements. A coroutine
passes other frames to their handlers. `push/session/socket_writer.py` writes.
"""

import logging
import socket
from typing import Any, Protocol

from push.session.inbox import Inbox
from push.session.link_manager import LinkManager
from push.session.poller import READ, WRITE
from push.session.read_pace import weigh
from push.session.session import Session
from push.session.socket_writer import Owner, SocketWriter
from push.wire import CloseCode, Frame, FrameError, Op

logger = logging.getLogger(__name__)

DIRECT_LINK = "imgo.link"  # the scope's entry that holds a direct link
READ_MAX = 4_096  # bytes of one read: at most four of the largest frames
INBOX_MAX = 4  # events that a consumer may lag behind before reading pauses

# Bit mask of reasons why reading pauses: the consumer lags behind, a handler runs, the client
# sends too fast, the upgrade request has no response yet.
PAUSE_CONSUMER, PAUSE_HANDLER, PAUSE_RATE, PAUSE_UPGRADE = 1, 2, 4, 8


class Gone(OSError):
    """Error of `send` after the client has disconnected (ASGI 2.4)."""


class FrameHandlers(Protocol):
    """Handlers of a session's frames: `push.connect.handlers`. `owner`: the argument of `adopt`."""

    def acknowledge(self, owner: Any, session: Session, frame: Frame, /) -> None:
        """Handle an acknowledgement."""

    async def handle(self, owner: Any, session: Session, frame: Frame, /) -> None:
        """Handle any other frame."""


class SocketLink(SocketWriter):
    """One connection that owns its socket; subclasses know the transport.

    Reading: `_pauses` holds the reasons why the socket is not read; it is read if there are none.
    Events go to the consumer until `adopt`, and to the frame handlers after it.

    `is_watched`: the poller watches the socket already, for reading.
    """

    __slots__ = ("_handlers", "_inbox")

    def __init__(
        self, manager: LinkManager, sock: socket.socket, *, is_watched: bool = False
    ) -> None:
        super().__init__(manager, sock)
        self._inbox: Inbox | None = Inbox()
        self._handlers: FrameHandlers | None = None
        if is_watched:
            manager.poller.hand_over(sock.fileno(), self._ready)
        else:
            manager.poller.add(sock.fileno(), self._ready)
        manager.unauthenticated.enter(self)

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

    def _report_end(self) -> None:
        if self._owner is not None and self.session is not None:
            self._manager.background.run(self._owner.dismiss(self.session))
        elif self._inbox is not None:
            self._inbox.put_nowait({"type": "tcp.disconnect"})

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
        self._manager.unauthenticated.leave(self)
        self._resume(PAUSE_CONSUMER)
        self.enable_direct_send()
