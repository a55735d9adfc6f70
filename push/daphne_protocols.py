"""Daphne's WebSocket protocol and a raw-TCP one, with flow control both ways.

They carry sessions that stay with Daphne. `send` returns when the kernel has the bytes and raises
`ClientGone` when it never will; reading pauses for a client that sends faster than it is served.
"""

import asyncio
from typing import TYPE_CHECKING, Any, cast

from autobahn.exception import Disconnected
from daphne.ws_protocol import WebSocketProtocol

if TYPE_CHECKING:
    from push.door import ImgoServer

INBOX_MAX = 64  # events a consumer may lag behind before its socket is not read any more
POLL_INTERVAL = 0.02  # seconds between looks at such an inbox
CLOSE_TIMEOUT = 2.0  # seconds that a closed TCP connection may take to send what is left


class ClientGone(OSError):
    """Raised by `send` after the client has disconnected (ASGI 2.4)."""


class SessionProtocol(WebSocketProtocol):  # type: ignore[misc]  # Daphne has no types
    """Daphne's WebSocket protocol with flow control both ways and close reasons."""

    maxMessagePayloadSize: int  # noqa: N815 - autobahn's

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

    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: N802, N803
        """Hand a message to the consumer; stop reading while it lags behind."""
        super().onMessage(payload, isBinary)
        if self.application_queue.qsize() >= INBOX_MAX:
            self.transport.pauseProducing()
            self._resume_later()

    def _resume_later(self) -> None:
        asyncio.get_running_loop().call_later(POLL_INTERVAL, self._resume_reading)

    def _resume_reading(self) -> None:
        if self.application_queue.qsize() < INBOX_MAX // 2:
            self.transport.resumeProducing()
        else:
            self._resume_later()

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
        self.writable.set()
        self.inbox.put_nowait({"type": "tcp.disconnect"})
