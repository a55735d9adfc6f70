"""Transports: WebSocket with text messages, and raw TCP, behind one interface.

The transport of Server-Sent Events is in `event_transport.py`.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import Any, Protocol
from urllib.parse import urlsplit

import websockets
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_websocket

from imgo_client.errors import NoAnswer, ProtocolError
from imgo_client.frames import (
    Decoder,
    Frame,
    Op,
    decode_text,
    encode_binary,
    encode_text,
    to_json,
    value_of,
)
from imgo_client.tasks import within

ABNORMAL = 1006  # what WebSocket says of a connection that was not closed in order
CLOSE_TIMEOUT = 2.0  # seconds for the peer's part of an orderly close
READ_SIZE = 65_536  # bytes
TCP_PORT = 8080  # the server's default

# On DEBUG websockets shows all frames, and the first has the token in it.
_logger = logging.getLogger("imgo_client.websocket")
_logger.setLevel(logging.INFO)


class Ended(Exception):
    """The connection has ended. `reconnect`: the server's rule for reconnecting; None: unknown."""

    def __init__(self, code: int, reason: str = "", reconnect: bool | None = None) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason
        self.reconnect = reconnect


class Transport(Protocol):
    """One connection. Bodies of frames are JSON values.

    `needs_heartbeats`: the server closes the connection if it gets no heartbeats, and replies to
    them.
    """

    needs_heartbeats: bool

    async def send(self, op: Op, body: Any = None, seq: int = 0) -> None:
        """Send a frame; wait while the peer does not read. Raises `Ended`."""

    async def receive(self) -> list[Frame]:
        """Return the next frames. Raises `Ended`, or `ProtocolError` for other data."""

    async def close(self) -> None:
        """Close in order; at once if the call is cancelled."""

    def abort(self) -> None:
        """Close at once."""


async def connect(url: str, max_size: int, tls: ssl.SSLContext | None) -> Transport:
    """Open a connection to a WebSocket or TCP URL.

    `max_size`: limit of one message of the server, in bytes. `tls`: None: without TLS.

    Raises OSError or websockets' own exceptions. A cancelled call leaves nothing open.
    """
    parts = urlsplit(url)
    if parts.scheme in ("ws", "wss"):
        return await WebSocketTransport.open(url, max_size, tls)
    port = TCP_PORT if parts.port is None else parts.port
    reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=tls, limit=READ_SIZE)
    return TcpTransport(reader, writer, max_size)


class WebSocketTransport:
    """WebSocket with text messages: one JSON object from the client, an array from the server."""

    needs_heartbeats = True

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    @classmethod
    async def open(cls, url: str, max_size: int, tls: ssl.SSLContext | None) -> WebSocketTransport:
        """Connect; see `connect`."""
        options: dict[str, Any] = {} if tls is None else {"ssl": tls}
        connection = await connect_websocket(
            url,
            compression=None,  # the server has none
            open_timeout=None,  # the client has one for the whole attempt
            ping_interval=None,  # the protocol has a heartbeat of its own
            close_timeout=CLOSE_TIMEOUT,
            max_size=max_size,
            logger=_logger,
            max_queue=4,  # messages; then the kernel's buffers fill, and the server waits
            **options,
        )
        return cls(connection)

    async def send(self, op: Op, body: Any = None, seq: int = 0) -> None:
        """Send one text message."""
        text = encode_text(Frame(op, seq, {} if body is None else body))
        try:
            await self._connection.send(text)
        except websockets.ConnectionClosed as error:
            raise _ended(error) from None

    async def receive(self) -> list[Frame]:
        """Return the frames of one message."""
        try:
            message = await self._connection.recv()
        except websockets.ConnectionClosed as error:
            raise _ended(error) from None
        if not isinstance(message, str):
            raise ProtocolError("the server sent a binary message to a text session")
        return decode_text(message)

    async def close(self) -> None:
        """Close with the code 1000."""
        try:
            await self._connection.close()
        finally:
            self.abort()

    def abort(self) -> None:
        """Drop the TCP connection."""
        self._connection.transport.abort()


def _ended(error: websockets.ConnectionClosed) -> Ended:
    if error.rcvd is not None:
        return Ended(error.rcvd.code, error.rcvd.reason)
    # What our side found wrong, such as a message that is too large, is told by its own close.
    reason = error.sent.reason if error.sent is not None else "the connection was lost"
    return Ended(ABNORMAL, reason)


class TcpTransport:
    """Raw TCP with binary frames."""

    needs_heartbeats = True

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, max_size: int
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = Decoder(max_size)
        self._lock = asyncio.Lock()  # Python 3.10 lets one task wait for a stream to drain

    async def send(self, op: Op, body: Any = None, seq: int = 0) -> None:
        """Send one frame."""
        data = b"" if body is None else to_json(body).encode()
        try:
            self._writer.write(encode_binary(Frame(op, seq, data)))
            async with self._lock:
                await self._writer.drain()
        except OSError as error:
            raise Ended(ABNORMAL, str(error) or "the connection was lost") from None

    async def receive(self) -> list[Frame]:
        """Return the frames that the next bytes complete."""
        while True:
            if self._decoder.error is not None:
                raise self._decoder.error
            try:
                data = await self._reader.read(READ_SIZE)
            except OSError as error:
                raise Ended(ABNORMAL, str(error) or "the connection was lost") from None
            if not data:
                raise Ended(ABNORMAL, "the connection was lost")
            if frames := self._decoder.feed(data):
                return [frame._replace(body=value_of(frame.body)) for frame in frames]

    async def close(self) -> None:
        """Close after the buffered bytes were sent, if that succeeds in time."""
        self._writer.close()
        try:
            await within(CLOSE_TIMEOUT, self._writer.wait_closed())
        except (OSError, NoAnswer):
            pass  # it was lost before, or is now
        finally:
            self.abort()

    def abort(self) -> None:
        """Drop the connection."""
        self._writer.transport.abort()
