"""One HTTP/2 connection to a provider, which many requests share.

`h2` keeps the protocol's state; this is the I/O around it. Requests of one turn of the event loop
are written together. Of what the server may send, only the answer to a request is kept.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import H2Error, StreamClosedError
from h2.settings import SettingCodes, Settings

from push.devices.providers.answer import BODY_MAX, Answer, Broken, NotProcessed
from push.devices.providers.goaway import FrameSplitter

_SETTINGS = {SettingCodes.ENABLE_PUSH: 0, SettingCodes.MAX_HEADER_LIST_SIZE: 65_536}

UNSENT_MAX = 1_048_576  # bytes that wait to be sent

Fields = list[tuple[bytes, bytes]]


@dataclass(slots=True)
class _Exchange:
    """A request, and what has come of its answer. `unsent`: rest of the request's body."""

    answer: "asyncio.Future[Answer]"
    unsent: bytes
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    is_over: bool = False  # the server has ended its stream

    def finish(self) -> None:
        """Set the answer, unless nobody waits for it any more."""
        if not self.answer.done():
            self.answer.set_result(Answer(self.status, self.headers, bytes(self.body[:BODY_MAX])))

    def fail(self, error: Exception) -> None:
        """Set the error, unless nobody waits for the answer any more."""
        if not self.answer.done():
            self.answer.set_exception(error)


class Http2Connection(asyncio.Protocol):
    """A connection over TLS for which the server has chosen HTTP/2."""

    def __init__(self) -> None:
        self.is_usable = True  # whether it takes further requests
        self.used_at = time.monotonic()
        # `HttpClient` writes the names of headers in lower case.
        config = H2Configuration(header_encoding=None, normalize_outbound_headers=False)
        self._h2 = H2Connection(config)
        self._h2.local_settings = Settings(client=True, initial_values=_SETTINGS)
        self._frames = FrameSplitter()
        self._exchanges: dict[int, _Exchange] = {}
        self._waiting: deque[asyncio.Future[None]] = deque()  # for a stream to become free
        self._received_at = self.used_at
        self._transport: asyncio.Transport | None = None
        self._closed = asyncio.Event()
        self._has_begun = False
        self._has_settings = False  # whether the server has sent its settings
        self._is_flushing = False

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way."""
        return not self._exchanges and not self._waiting

    def begin(self) -> None:
        """Send the preface. Call it once, when the server has chosen HTTP/2."""
        self._h2.initiate_connection()
        self._has_begun = True
        self._flush()

    def is_old(self, seconds: float) -> bool:
        """Return whether it has been idle for longer than this."""
        return self.is_idle and time.monotonic() - self.used_at > seconds

    def close(self) -> None:
        """Close it. Requests that are under way end with `Broken`."""
        self._end()

    async def wait_closed(self) -> None:
        """Return when its socket is closed, after `close`."""
        await self._closed.wait()

    async def request(self, fields: Fields, body: bytes) -> Answer:
        """Send a request and return its answer. If it is cancelled, its stream is reset.

        `fields`: with those that begin with a colon first. Raises `Broken`, or `NotProcessed` if
        the server has certainly not processed it.
        """
        await self._await_stream()
        began = self.used_at = time.monotonic()
        exchange = _Exchange(asyncio.get_running_loop().create_future(), body)
        try:
            stream = self._h2.get_next_available_stream_id()
            self._h2.send_headers(stream, fields, end_stream=not body)
            self._exchanges[stream] = exchange
            self._send_body(stream, exchange)
        except H2Error as error:
            self._end()
            raise Broken from error
        self._flush_soon()
        try:
            return await exchange.answer
        finally:
            if not exchange.answer.done() or exchange.answer.cancelled():
                # The server was silent for all of the time: the network may have lost it.
                self.is_usable = self.is_usable and self._received_at > began
            self._forget(stream, exchange)

    async def _await_stream(self) -> None:
        """Return when the server takes one more stream. Raises `NotProcessed`."""
        while self.is_usable and not self._has_room():
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            try:
                await future
            finally:
                if future in self._waiting:
                    self._waiting.remove(future)
        if not self.is_usable:
            raise NotProcessed

    def _has_room(self) -> bool:
        # A server such as Apple's refuses streams above its limit, which is not known at first.
        limit = self._h2.remote_settings.max_concurrent_streams if self._has_settings else 1
        return len(self._exchanges) < limit

    def _forget(self, stream: int, exchange: _Exchange) -> None:
        self._exchanges.pop(stream, None)
        if not exchange.is_over and self._transport is not None:
            with contextlib.suppress(H2Error):
                self._h2.reset_stream(stream, ErrorCodes.CANCEL)
            self._flush_soon()
        self._wake()
        if self.is_idle and not self.is_usable:
            self._end()

    def _wake(self) -> None:
        """Let requests that wait for a stream look again."""
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)

    def _send_body(self, stream: int, exchange: _Exchange) -> None:
        """Send as much of the body as the windows of the server let through."""
        while exchange.unsent and not exchange.is_over:
            window = self._h2.local_flow_control_window(stream)
            size = min(window, self._h2.max_outbound_frame_size, len(exchange.unsent))
            if size <= 0:
                return
            part, exchange.unsent = exchange.unsent[:size], exchange.unsent[size:]
            self._h2.send_data(stream, part, end_stream=not exchange.unsent)

    # Writing

    def _flush_soon(self) -> None:
        if not self._is_flushing:
            self._is_flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flushing = False
        if self._transport is None or not self._has_begun:
            return
        if frames := self._h2.data_to_send():
            self._transport.write(frames)
        # Such as of a server that sends pings, and reads no answers.
        if self._transport.get_write_buffer_size() > UNSENT_MAX:
            self._end()

    # Reading: the methods of asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002, D102
        self._end()
        self._closed.set()

    def data_received(self, data: bytes) -> None:  # noqa: D102
        self._received_at = time.monotonic()
        frames, last_streams = self._frames.split(data)
        try:
            self._handle(self._h2.receive_data(frames))
        except (H2Error, ValueError):  # ValueError: a status that is no number
            self._end()
            return
        for stream in last_streams:
            self._go_away(stream)
        self._flush()

    def _handle(self, received: Iterable[events.Event]) -> None:
        for event in received:
            if isinstance(event, events.WindowUpdated | events.RemoteSettingsChanged):
                self._has_settings |= isinstance(event, events.RemoteSettingsChanged)
                for stream, exchange in self._exchanges.items():
                    with contextlib.suppress(StreamClosedError):  # its event follows
                        self._send_body(stream, exchange)
                self._wake()
                continue
            if isinstance(event, events.DataReceived):
                size = event.flow_controlled_length
                self._h2.acknowledge_received_data(size, event.stream_id)
            target = self._exchanges.get(getattr(event, "stream_id", None) or 0)
            if target is not None:
                _take(target, event)

    def _go_away(self, last_stream: int) -> None:
        """Take no further requests, and wait for the answers to those that the server accepted."""
        self.is_usable = False
        for stream, exchange in self._exchanges.items():
            if stream > last_stream:
                exchange.is_over = True
                exchange.fail(NotProcessed())
        self._wake()
        if self.is_idle:
            self._end()

    def _end(self) -> None:
        """Close the connection. Requests that are under way end with `Broken`."""
        self.is_usable = False
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
        for exchange in self._exchanges.values():
            exchange.is_over = True
            exchange.fail(Broken())
        self._wake()


def _take(exchange: _Exchange, event: events.Event) -> None:
    """Let an exchange have an event of its stream."""
    if isinstance(event, events.ResponseReceived):
        headers = {bytes(n).decode("latin1"): bytes(v).decode("latin1") for n, v in event.headers}
        exchange.status = int(headers.pop(":status"))
        exchange.headers = headers
    elif isinstance(event, events.DataReceived):
        exchange.body += event.data
        if len(exchange.body) >= BODY_MAX:
            exchange.finish()
    elif isinstance(event, events.StreamEnded):
        exchange.is_over = not exchange.unsent
        exchange.finish()
    elif isinstance(event, events.StreamReset):
        exchange.is_over = True
        exchange.fail(Broken())
