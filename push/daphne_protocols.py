"""Daphne's WebSocket protocol and a raw-TCP one, for sessions whose sockets stay with Daphne.

`send` returns when the kernel has the bytes and raises `ClientGone` when it never will. What ours
adds to Daphne's: flow control both ways, close reasons, a pace for the frames that no consumer sees
(pings, pongs, unfinished fragments), and a close that leaves the peer time to read it.
"""

import asyncio
from typing import TYPE_CHECKING, Any, cast

from autobahn.exception import Disconnected
from daphne.ws_protocol import WebSocketProtocol
from twisted.internet import tcp
from twisted.internet.protocol import connectionDone

from push.pace import GONE, TimedPace
from push.sockets import CLOSE_TIMEOUT, CLOSING_BYTES, READ_MAX

if TYPE_CHECKING:
    from push.door import ImgoServer

INBOX_MAX = 64  # events a consumer may lag behind before its socket is not read any more
POLL_INTERVAL = 0.02  # seconds between looks at such an inbox


class ClientGone(OSError):
    """Raised by `send` after the client has disconnected (ASGI 2.4)."""


class SessionProtocol(WebSocketProtocol):  # type: ignore[misc]  # Daphne has no types
    """One WebSocket connection."""

    maxMessagePayloadSize: int  # noqa: N815 - autobahn's
    _pace: TimedPace
    _unread = b""  # came from the kernel, and is not looked at yet
    _is_waiting = False  # until more may be looked at
    _bytes_left: int | None = None  # that are read and dropped before the end, if it has begun
    _ending: asyncio.TimerHandle | None = None

    # In

    def connectionMade(self) -> None:
        """The upgrade request is about to be read."""
        self._pace = TimedPace()
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:
        """Process bytes a few at a time: Twisted reads up to 64 KiB at once."""
        if self._bytes_left is not None:
            self._bytes_left -= len(data)
            if self._bytes_left < 0:
                self.transport.abortConnection()
            return
        self._unread += data
        self._read_on()

    def _read_on(self) -> None:
        while self._unread and not self._is_waiting and self._bytes_left is None:
            some, self._unread = self._unread[:READ_MAX], self._unread[READ_MAX:]
            super().dataReceived(some)
            if self._has_enough():
                self._is_waiting = True
                self.transport.pauseProducing()
                self._wait_for = asyncio.ensure_future(self._wait())

    def _has_enough(self) -> bool:
        queue = getattr(self, "application_queue", None)
        return self._pace.is_over or (queue is not None and queue.qsize() >= INBOX_MAX)

    async def _wait(self) -> None:
        """Read again when the pace allows it and the consumer has caught up."""
        await self._pace.wait()
        # Daphne's queue has no event for that.
        while self.application_queue.qsize() >= INBOX_MAX // 2:  # noqa: ASYNC110
            await asyncio.sleep(POLL_INTERVAL)
        self._is_waiting = False
        self._read_on()
        if not self._is_waiting:
            self.transport.resumeProducing()

    def onFrameEnd(self) -> bool | None:  # noqa: N802 - autobahn's
        """Count a frame that is no message: the others are counted by the consumer."""
        frame = self.current_frame
        found: bool | None = super().onFrameEnd()
        if frame.opcode > 7 or not frame.fin:
            self._pace.spend(1)
        return found

    def onMessageFrame(self, payload: list[bytes]) -> None:  # noqa: N802
        """Keep what a fragment carries; an empty one costs no memory."""
        super().onMessageFrame([part for part in payload if part])

    # Out

    def onOpen(self) -> None:  # noqa: N802 - autobahn's name
        """Become the transport's producer, so that it says when its buffer is empty."""
        self._writable = asyncio.Event()
        self._writable.set()
        self._lost = False
        self.transport.unregisterProducer()  # the HTTP channel that took the upgrade request
        self.transport.registerProducer(self, True)
        super().onOpen()

    def pauseProducing(self) -> None:  # noqa: N802 - Twisted's name
        """The transport has bytes that the kernel did not take."""
        self._writable.clear()

    def resumeProducing(self) -> None:  # noqa: N802
        """The kernel has everything."""
        self._writable.set()

    def stopProducing(self) -> None:  # noqa: N802
        """The transport is closed."""
        self._lost = True
        self._writable.set()

    async def send_now(self, message: dict[str, Any]) -> None:
        """Send, and return when the kernel has it; raises `ClientGone` when it never will."""
        # While this is 0 the transport pauses its producer, which is us, at the first byte that
        # has to wait instead of after 64 KiB. It is also the size of a read: so not for longer.
        self.transport.bufferSize = 0
        # The limit is for clients; autobahn applies it both ways.
        limit = self.maxMessagePayloadSize
        self.maxMessagePayloadSize = 0
        try:
            self.handle_reply(message)
        except Disconnected as error:
            raise ClientGone("the client disconnected") from error
        finally:
            self.maxMessagePayloadSize = limit
            del self.transport.bufferSize
        await self._writable.wait()
        if self._lost:
            raise ClientGone("the client disconnected")

    # The end

    def _closeConnection(self, abort: bool = False) -> None:  # noqa: N802
        """End our side, and read what still comes, for some time and bytes, before the rest ends.

        A close with unread bytes would reset the connection, and the peer would lose the close
        frame that it has not read yet.
        """
        transport: Any = self.transport
        is_plain = type(self.transport) is tcp.Server and not self.transport.TLS
        if not is_plain or not transport.connected:
            super()._closeConnection(abort)  # the end of TLS waits for the peer by itself
            return
        self._unread, self._bytes_left = b"", CLOSING_BYTES
        transport.loseWriteConnection()
        transport.resumeProducing()
        loop = asyncio.get_running_loop()
        self._ending = loop.call_later(CLOSE_TIMEOUT, transport.abortConnection)

    def connectionLost(self, reason: Any = connectionDone) -> None:
        """The connection has ended; what came before that counts."""
        if self._ending is not None:
            self._ending.cancel()
        if self._is_waiting:
            self._wait_for.cancel()
        if self._unread:
            super().dataReceived(self._unread)
            self._unread = b""
        super().connectionLost(reason)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:  # noqa: N802, N803
        """Let a waiting `send` know, and tell the consumer."""
        self._lost = True
        if hasattr(self, "_writable"):
            self._writable.set()
        super().onClose(wasClean, code, reason)

    def handle_reply(self, message: dict[str, Any]) -> None:
        """Daphne's, with what it leaves out: the reason of a close."""
        if message["type"] == "websocket.close" and self.state == self.STATE_OPEN:
            self.sendClose(code=message.get("code", 1000), reason=message.get("reason") or None)
        else:
            super().handle_reply(message)


class TcpProtocol(asyncio.Protocol):
    """One raw-TCP connection as an ASGI application of scope type `tcp`.

    Events in: `tcp.connect`, `tcp.receive` (bytes), `tcp.disconnect`. Out: `tcp.send` (bytes),
    which returns when the kernel has them, and `tcp.close`.
    """

    def __init__(self, server: "ImgoServer") -> None:
        self.server = server
        self.inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.writable = asyncio.Event()
        self.writable.set()
        self.transport: asyncio.Transport
        self.is_paused = False
        self.is_closing = False
        self.is_lost = False
        self.gone = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the application."""
        self.transport = transport = cast("asyncio.Transport", transport)
        transport.set_write_buffer_limits(0)  # `resume_writing` means: all of it is gone
        scope = {
            "type": "tcp",
            "asgi": {"version": "3.0"},
            # None when the client has gone already.
            "client": list((transport.get_extra_info("peername") or ("", 0))[:2]),
            "server": list(transport.get_extra_info("sockname")[:2]),
            GONE: self.gone,
        }
        self.inbox.put_nowait({"type": "tcp.connect"})
        self.server.run_tcp(self, scope)

    def data_received(self, data: bytes) -> None:
        """Hand bytes to the consumer; stop reading while it lags behind."""
        if self.is_closing:
            return
        self.inbox.put_nowait({"type": "tcp.receive", "bytes": data})
        if not self.is_paused and self.inbox.qsize() >= INBOX_MAX:
            self.is_paused = True
            self.transport.pause_reading()

    async def receive(self) -> dict[str, Any]:
        """The application's `receive`."""
        event = await self.inbox.get()
        if self.is_paused and self.inbox.qsize() < INBOX_MAX // 2 and not self.is_lost:
            self.is_paused = False
            self.transport.resume_reading()
        return event

    async def send(self, event: dict[str, Any]) -> None:
        """The application's `send`. Raises `ClientGone`."""
        if self.is_lost or self.is_closing or self.transport.is_closing():
            raise ClientGone("the client disconnected")
        if event["type"] == "tcp.send":
            self.transport.write(event["bytes"])
            await self.writable.wait()
            if self.is_lost:
                raise ClientGone("the client disconnected")
        elif event["type"] == "tcp.close":
            # Our end alone: closing at once would reset a connection whose peer is still sending,
            # and what it has not read yet would be lost to it.
            self.is_closing = True
            self.transport.write_eof()
            self.transport.resume_reading()
            asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, self.transport.abort)
        else:
            raise ValueError(f"unknown event type {event['type']!r}")

    def pause_writing(self) -> None:
        """The transport has bytes that the kernel did not take."""
        self.writable.clear()

    def resume_writing(self) -> None:
        """The kernel has everything."""
        self.writable.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - a reset is a goodbye
        """Let a waiting `send` know, and tell the consumer."""
        self.is_lost = True
        self.gone.set()
        self.writable.set()
        self.inbox.put_nowait({"type": "tcp.disconnect"})
