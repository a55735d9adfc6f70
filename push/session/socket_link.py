"""The direct link: a session that owns its socket.

A socket is taken over as soon as its upgrade request was read, or its connection accepted. Until
its session is open the link plays the ASGI server for the consumer: events in, events out. Then
the consumer ends, and what is left of a session is this object, its socket, and its place in the
hub. Shared bytes are sent with one system call; what comes in is decoded, heartbeats are answered,
and any other frame goes to the handler of its op as a coroutine for that one frame.
"""

import asyncio
import logging
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from imgo_site.conf import conf
from push.bus.background_tasks import Background
from push.metrics.definitions import count_close
from push.session.admission import Admission
from push.session.poller import READ, WRITE, Poller
from push.session.read_pace import Pace, weigh
from push.session.session import Session
from push.session.websocket_framing import Framing, FramingPool, packet, refuse_upgrade
from push.wire import CloseCode, Decoder, Frame, FrameError, Op, decode_binary, decode_text

logger = logging.getLogger(__name__)

DIRECT_LINK = "imgo.link"  # the scope's entry that holds a direct link
READ_MAX = 4_096  # bytes of one read: four of the largest frames, and no more than that at once
INBOX_MAX = 4  # events that a consumer may lag behind before the socket is not read any more
CLOSE_TIMEOUT = 2.0  # seconds for a peer to answer a close
CLOSING_BYTES = (
    1024 * 1024
)  # read of a peer in that time; with more unread a close would be a reset

# Why a link is not read; several may hold at once.
LAGS, HANDLES, RACES, UPGRADES = 1, 2, 4, 8


class Gone(OSError):
    """Raised by `send` after the client has disconnected (ASGI 2.4)."""


class Owner(Protocol):
    """The node that holds a session after its consumer has ended."""

    async def dismiss(self, session: Session) -> None:
        """Forget a session whose connection has ended. Never raises."""


class FrameHandlers(Protocol):
    """Handlers of a session's frames: `push.connect.handlers`. `owner` is that of `adopt`."""

    def acknowledge(self, owner: Any, session: Session, frame: Frame, /) -> None:
        """Handle an acknowledgement."""

    async def handle(self, owner: Any, session: Session, frame: Frame, /) -> None:
        """Handle any other frame."""


class Farewell:
    """How long, and for how many more bytes, a link that was closed waits for its peer."""

    __slots__ = ("bytes_left", "until")

    def __init__(self) -> None:
        self.until = time.monotonic() + CLOSE_TIMEOUT
        self.bytes_left = CLOSING_BYTES


class Care:
    """What all direct links of a node share: the poller, framings, and who needs looking after.

    One `tick` a second serves every link that waits for time to pass: no timers of their own.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, admission: Admission | None = None) -> None:
        self.loop = loop
        self.admission = admission or Admission()
        self.poller = Poller(loop)
        self.framings = FramingPool(8 * conf.MAX_CLIENT_BODY + 4096)
        self.stalled: dict[SocketLink, float] = {}  # since when bytes wait
        self.closing: dict[SocketLink, Farewell] = {}
        self.paces: dict[SocketLink, Pace] = {}  # of those that have sent something lately
        self.background = Background("a session's handler failed")

    def tick(self) -> None:
        """Close slow readers and peers that do not answer a close; read throttled ones again."""
        now = time.monotonic()
        for link, since in list(self.stalled.items()):
            if now - since > conf.SLOW_READER_TIMEOUT:
                _guarded(link, link.give_up)
        for link, farewell in list(self.closing.items()):
            if now > farewell.until:
                _guarded(link, link.abort)
        for link, pace in list(self.paces.items()):
            pace.renew()
            if pace.is_idle:
                del self.paces[link]
            if not pace.is_over:
                _guarded(link, link.keep_reading)

    def spend(self, link: "SocketLink", frames: int, ids: int = 0) -> bool:
        """Count what a link has received; return whether it must not be read for now."""
        pace = self.paces.get(link)
        if pace is None:
            pace = self.paces[link] = Pace()
        pace.spend(frames, ids)
        return pace.is_over

    def close(self) -> None:
        """Drop what is left."""
        for link in [*self.stalled, *self.closing]:
            link.abort()
        self.poller.close()


def _guarded(link: "SocketLink", care: Callable[[], None]) -> None:
    """Call `care`; a failure ends that link, and the others get their turn."""
    try:
        care()
    except Exception:
        logger.exception("a connection failed, it is closed")
        link.lose()


class Inbox:
    """The events that a consumer has not taken yet.

    A queue for its one reader: asyncio's own costs several times as much to make and to use.
    """

    __slots__ = ("_queue", "_waiter")

    def __init__(self) -> None:
        self._queue: deque[dict[str, Any]] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def qsize(self) -> int:
        """How many events wait."""
        return len(self._queue)

    def put_nowait(self, event: dict[str, Any]) -> None:
        """Add an event."""
        self._queue.append(event)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def get_nowait(self) -> dict[str, Any]:
        """Take the first event, which must be there."""
        return self._queue.popleft()

    async def get(self) -> dict[str, Any]:
        """Take the first event as soon as there is one. For one reader at a time."""
        is_free = self._waiter is None or self._waiter.done()
        assert is_free, "Inbox.get cannot be called concurrently"
        while not self._queue:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._queue.popleft()


class SocketLink:
    """One connection: a socket, and how its frames travel."""

    __slots__ = (
        "__weakref__",
        "_care",
        "_drained",
        "_events",
        "_handlers",
        "_inbox",
        "_is_giving_up",
        "_is_open",
        "_owner",
        "_pauses",
        "_queue",
        "_socket",
        "session",
        "waiting",
    )

    def __init__(self, care: Care, sock: socket.socket) -> None:
        self._care = care
        self._socket = sock
        self._inbox: Inbox | None = Inbox()
        self._queue: deque[tuple[bytes, int]] | None = None
        self._drained: asyncio.Event | None = None
        self._owner: Owner | None = None
        self._handlers: FrameHandlers | None = None
        self._events = READ
        self._is_open = True  # may be written to
        self._pauses = 0  # why it is not read
        self._is_giving_up = False
        self.session: Session | None = None
        self.waiting = 0
        care.poller.add(sock.fileno(), self._ready)
        care.admission.enter(self)

    # Out

    wraps = False

    @staticmethod
    def wrap(payload: bytes, is_text: bool) -> bytes:  # noqa: ARG004 - WebSocket needs to know
        """The bytes that carry one message on this transport."""
        return payload

    def write(self, data: bytes, receipt: int = 0) -> None:
        """Give `data` to the kernel, or queue what it does not take."""
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
        """The first `sent` bytes of `data` were given to the socket directly: take over."""
        if self._is_open:
            self._enqueue(data[sent:], receipt)

    def open_short_way(self) -> None:
        """Let shared bytes go straight to the socket while nothing is waiting."""
        session = self.session
        if session is None or session.is_replaying or self.waiting:
            return
        # A paced session has a link of its own in between, which must not be passed by.
        if self._is_open and self._owner is not None and session.link is self:
            session.send = self._socket.send

    def _enqueue(self, data: bytes, receipt: int) -> None:
        if self._queue is None:
            self._queue = deque()
        if not self.waiting:
            self._close_short_way()
            self._care.stalled[self] = time.monotonic()
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
        """The kernel takes bytes again."""
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
            self._care.stalled[self] = time.monotonic()
            if receipt and self.session is not None:
                self.session.sent(receipt)
        self._queue = None
        self._care.stalled.pop(self, None)
        self._watch(self._events & ~WRITE)
        self.open_short_way()
        self._has_drained()
        if self in self._care.closing:
            self._finish()

    @property
    def is_open(self) -> bool:
        """Whether it may be written to."""
        return self._is_open

    def fileno(self) -> int:
        """The socket's descriptor; -1 when the connection has ended."""
        return self._socket.fileno()

    async def drained(self) -> None:
        """Return when nothing is waiting, or when the link is closed."""
        if self.waiting and self._is_open:
            if self._drained is None:
                self._drained = asyncio.Event()
            await self._drained.wait()

    def _has_drained(self) -> None:
        """Let all go on who wait for it."""
        drained, self._drained = self._drained, None
        if drained is not None:
            drained.set()

    def give_up(self) -> None:
        """The reader is too slow: drop what waits, and end with a code that says to come back.

        No receipt is given for what is dropped: pending messages stay pending.
        """
        self._is_giving_up = True
        if self._queue is not None:
            # What is left of the message that the kernel took a part of has to come first.
            self._queue = deque([(self._queue[0][0], 0)])
            self.waiting = len(self._queue[0][0])
        if self.session is not None:
            self.session.is_closed = True
            self.session.close_code = CloseCode.SLOW_READER
        self.close(CloseCode.SLOW_READER, CloseCode.SLOW_READER.reason)

    def close(self, code: int, reason: str) -> None:
        """Say goodbye behind what was written before; only the first call counts."""
        if self._is_open:
            count_close(code)
            self._goodbye(code, reason)
            self._close_soon()

    def _goodbye(self, code: int, reason: str) -> None:
        """Write what this transport says at the end."""

    def _close_soon(self) -> None:
        """Write nothing more; give the peer a moment to read, and to end its side.

        What it still sends is read and dropped, except acknowledgements: a close with unread
        bytes would reset the connection, and the peer would lose what it has not read yet.
        """
        self._is_open = False
        self._close_short_way()
        self._care.stalled.pop(self, None)
        self._care.closing.setdefault(self, Farewell())
        self._pauses = 0
        self._watch(self._events | READ)
        if not self.waiting:
            self._finish()
        self._has_drained()

    def _stop_writing(self) -> None:
        """Note that the peer takes no more bytes. What it sent before is read up to its end."""
        self._queue, self.waiting = None, 0
        self._watch(self._events & ~WRITE)
        self._close_soon()

    def _finish(self) -> None:
        """All is sent: end our side of the stream, and wait for the peer to end its own."""
        with suppress(OSError):  # the peer has gone; what it sent is read first
            self._socket.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """Close without waiting any longer."""
        self.lose()

    def evict(self) -> None:
        """Close at once: others need the place."""
        self.lose()

    def lose(self) -> None:
        """The connection has ended: let go of everything."""
        if self._socket.fileno() == -1:
            return
        self._care.poller.remove(self._socket.fileno())
        self._care.admission.leave(self)
        self._socket.close()
        self._is_open = False
        self._close_short_way()
        self._care.stalled.pop(self, None)
        self._care.closing.pop(self, None)
        self._queue, self.waiting = None, 0
        self._has_drained()
        self._care.paces.pop(self, None)
        if self._owner is not None and self.session is not None:
            self._care.background.run(self._owner.dismiss(self.session))
        elif self._inbox is not None:
            self._inbox.put_nowait({"type": "tcp.disconnect"})

    # In

    def _watch(self, events: int) -> None:
        if events != self._events and self._socket.fileno() != -1:
            self._events = events
            self._care.poller.watch(self._socket.fileno(), events)

    def _pause(self, reason: int) -> None:
        if self._is_open:
            self._pauses |= reason
            self._watch(self._events & ~READ)

    def _resume(self, reason: int) -> None:
        self._pauses &= ~reason
        if not self._pauses:
            self._watch(self._events | READ)

    def keep_reading(self) -> None:
        """Read again what came too fast."""
        if self._pauses & RACES:
            self._resume(RACES)

    def _ready(self, events: int) -> None:
        """The poller's call. Never raises: a failure ends this connection, and no other."""
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
        """Return whether these bytes are within what a closed link still reads."""
        farewell = self._care.closing.get(self)
        if farewell is None:
            return True
        farewell.bytes_left -= size
        return farewell.bytes_left >= 0

    def received(self, data: bytes) -> None:
        """Bytes from the client."""
        raise NotImplementedError

    def _events_or_frames(self, events: list[dict[str, Any]]) -> None:
        """Give events to the consumer, or, when that has ended, handle their frames."""
        if self._inbox is None:
            self._handle(self._frames(events))
        elif self._is_open:
            for event in events:
                self._inbox.put_nowait(event)
            if self._inbox.qsize() >= INBOX_MAX:
                self._pause(LAGS)

    def _frames(self, events: list[dict[str, Any]]) -> tuple[list[Frame], FrameError | None]:
        """The good frames of these events, and what was wrong with the one behind them."""
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
        """Take heartbeats and acknowledgements; anything rarer, and what follows, is a coroutine's.

        Acknowledgements count also when the session has been closed: what they are for was read.
        """
        frames, bad = decoded
        session = self.session
        assert session is not None
        assert self._owner is not None
        assert self._handlers is not None
        if not self._is_open:
            frames, bad = [frame for frame in frames if frame.op == Op.ACK], None
        elif frames:
            session.last_seen = self._care.loop.time()
            if self._care.spend(self, *weigh(frames)):
                self._pause(RACES)
        for place, frame in enumerate(frames):
            if frame.op == Op.HEARTBEAT:
                session.beat(frame.seq, frame.ver)
            elif frame.op == Op.ACK:
                self._handlers.acknowledge(self._owner, session, frame)
            else:
                self._pause(HANDLES)
                self._care.background.run(self._handle_rest(session, frames[place:], bad))
                return
        if bad is not None:
            session.disconnect(bad.code, bad.message)

    async def _handle_rest(
        self, session: Session, frames: list[Frame], bad: FrameError | None
    ) -> None:
        """Pass frames to their handlers in order; reading goes on behind them."""
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
        self._resume(HANDLES)

    # For the consumer, until the session is open

    async def receive(self) -> dict[str, Any]:
        """The ASGI application's `receive`."""
        assert self._inbox is not None
        event = await self._inbox.get()
        if self._inbox.qsize() < INBOX_MAX // 2:
            self._resume(LAGS)
        return event

    async def send(self, event: dict[str, Any]) -> None:
        """The ASGI application's `send`. Raises `Gone`."""
        raise NotImplementedError

    def adopt(self, owner: Owner, handlers: FrameHandlers, frames: list[Frame]) -> None:
        """The session is open and the consumer ends: handle these frames and what comes next.

        Raises `Gone` when the client disconnected meanwhile: then it is the consumer's to clean up.
        """
        assert self._inbox is not None
        inbox, self._inbox = self._inbox, None
        self._owner, self._handlers = owner, handlers
        left = [inbox.get_nowait() for _ in range(inbox.qsize())]
        is_lost = self._socket.fileno() == -1
        behind, bad = self._frames([one for one in left if one["type"].endswith(".receive")])
        self._handle(([*frames, *behind], bad))
        if is_lost:
            raise Gone("the client disconnected")
        self._care.admission.leave(self)
        self._resume(LAGS)
        self.open_short_way()


class TcpLink(SocketLink):
    """Raw TCP: frames one after the other."""

    __slots__ = ("decoder",)

    def __init__(self, care: Care, sock: socket.socket) -> None:
        super().__init__(care, sock)
        self.decoder = Decoder(conf.MAX_CLIENT_BODY)
        assert self._inbox is not None
        self._inbox.put_nowait({"type": "tcp.connect"})

    def received(self, data: bytes) -> None:
        """Bytes from the client."""
        self._events_or_frames([{"type": "tcp.receive", "bytes": data}])

    def _decode(self, event: dict[str, Any]) -> list[Frame]:
        return self.decoder.feed(event["bytes"])

    async def send(self, event: dict[str, Any]) -> None:
        """The ASGI application's `send`. Raises `Gone`."""
        raise ValueError(f"unknown event type {event['type']!r}")


class WebSocketLink(SocketLink):
    """WebSocket: each frame, or several binary ones, in a message."""

    __slots__ = ("_early", "_framing", "response")

    wraps = True

    def __init__(self, care: Care, sock: socket.socket, response: bytes) -> None:
        super().__init__(care, sock)
        self._framing: Framing | None = None
        self._early = b""  # what came before it was sent
        self.response = response  # to the upgrade request, until it is sent
        assert self._inbox is not None
        self._inbox.put_nowait({"type": "websocket.connect"})

    @staticmethod
    def wrap(payload: bytes, is_text: bool) -> bytes:
        """One WebSocket message."""
        return packet(payload, is_text)

    def received(self, data: bytes) -> None:
        """Bytes from the client, those of the closing handshake included.

        Before the upgrade is answered they wait: an answer to a frame must not come first.
        """
        if self.response:
            if self._is_open:
                self._early += data
                self._pause(UPGRADES)
            return
        framing = self._framing or self._care.framings.take()
        messages = framing.feed(data)
        out = framing.out()
        if framing.parts and self._care.spend(self, framing.parts):
            self._pause(RACES)
        if framing.is_idle:
            self._care.framings.give_back(framing)
            self._framing = None
        else:
            self._framing = framing
        if out and framing.is_open:  # pongs, to pings that may have come inside of a message
            self.write(out)
            out = b""
        if messages:
            self._events_or_frames([_event(message) for message in messages])
        if out:
            self.write(out)  # does nothing behind a goodbye of ours, which answered already
        if framing.is_done and self not in self._care.closing and self._socket.fileno() != -1:
            # Its own end of the stream, or the timeout, closes the socket: closing it while the
            # peer is still sending would reset the connection and take our close frame along.
            self._close_soon()

    def refuse(self, response: bytes) -> None:
        """Answer an upgrade request that cannot be accepted."""
        self._inbox = None
        self.response = response
        self.write(response)
        self._close_soon()

    def _goodbye(self, code: int, reason: str) -> None:
        framing = self._framing = self._framing or self._care.framings.take()
        if self.response:
            self.write(refuse_upgrade(403, f"{reason}\n"))
        else:
            framing.close(code, reason)
            if out := framing.out():
                self.write(out)

    def _decode(self, event: dict[str, Any]) -> list[Frame]:
        text = event.get("text")
        if text is None:
            return decode_binary(event["bytes"], conf.MAX_CLIENT_BODY)
        return [decode_text(text, conf.MAX_CLIENT_BODY)]

    async def send(self, event: dict[str, Any]) -> None:
        """The ASGI application's `send`. Raises `Gone`."""
        if self._socket.fileno() == -1:
            raise Gone("the client disconnected")
        if event["type"] == "websocket.accept":
            response, self.response = self.response, b""
            early, self._early = self._early, b""
            self.write(response)
            self._resume(UPGRADES)
            if early:
                self.received(early)
        elif event["type"] == "websocket.close":
            self.close(event.get("code", 1000), event.get("reason") or "")
        else:
            raise ValueError(f"unknown event type {event['type']!r}")


def _event(message: str | bytes) -> dict[str, Any]:
    kind = "text" if isinstance(message, str) else "bytes"
    return {"type": "websocket.receive", kind: message}
