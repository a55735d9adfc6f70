"""HTTP request of a node: Daphne's, with the channel's limits and with flow control.

Daphne passes a response to Twisted without waiting for the client to read it. Here `drained` waits.
So a client that does not read keeps one chunk of its response in memory, not all of it.
"""

import asyncio
import re
from typing import Any
from urllib.parse import unquote

from daphne.http_protocol import WebRequest
from daphne.utils import HEADER_NAME_RE

from imgo_site.addresses import is_proxy
from imgo_site.conf import conf
from imgo_site.errors import BadRequest, ImgoError
from push.api.problems import error_response_at

ROOT_PATH = b"Daphne-Root-Path"
CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f\x85]")  # forbidden in values: RFC 9110, 5.5


def request_scope(
    method: str,
    target: bytes,
    headers: list[tuple[bytes, bytes]],
    *,
    client: list[str | int],
    server: list[str | int],
    scheme: str,
) -> dict[str, Any]:
    """Return the ASGI scope of a request. `client`, `server`: host and port."""
    path, _, query = target.partition(b"?")
    return {
        "type": "http",
        "method": method,
        "path": unquote(path.decode("latin1")),
        "query_string": query,
        "headers": headers,
        "client": client,
        "server": server,
        "scheme": scheme,
    }


class NodeRequest(WebRequest):  # type: ignore[misc]  # Daphne has no types
    """Daphne's HTTP request with flow control in both directions."""

    producer: Any

    def __init__(self, channel: Any, queued: object = False) -> None:
        self._writable = asyncio.Event()
        self._writable.set()
        # Twisted would parse forms with any number of fields. Django parses them with limits.
        super().__init__(channel, queued, parsePOSTFormSubmission=False)

    @property
    def is_upgrade(self) -> bool:
        """Whether the request is an upgrade to WebSocket."""
        upgrade = self.requestHeaders.getRawHeaders(b"Upgrade") or [b""]
        return bool(upgrade[0].lower() == b"websocket")

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802 - Twisted's
        """Keep a chunk of the body if the channel allows it."""
        if self.channel is not None and self.channel.body_received(len(data)):
            super().handleContentChunk(data)

    def process(self) -> Any:
        """Serve a complete request; answer 400 if a header is invalid."""
        if problem := self.unusable_header():
            self.basic_error(400, b"Bad Request", problem)
            return None
        return super().process()

    def basic_error(self, status: int, status_text: bytes, body: str) -> None:
        """Refuse the request, or report a bug in its view, in the form of its path.

        Daphne's own answer is a page of HTML.
        """
        if self.startedWriting:
            super().basic_error(status, status_text, body)
        elif self.channel is not None:
            error = BadRequest(f"{body}.") if status < 500 else ImgoError("internal error")
            error.status = status
            self.channel.end_with(
                error_response_at(self.uri.partition(b"?")[0].decode("latin1"), error)
            )

    def unusable_header(self) -> str:
        """Return the fault of the headers, "" for none.

        Drop the Daphne-Root-Path header if the client is not a trusted proxy.
        """
        for name, values in self.requestHeaders.getAllRawHeaders():
            if not HEADER_NAME_RE.fullmatch(name):
                return "Invalid header name"
            if any(map(CONTROL.search, values)):
                return "Invalid header value"
        root_paths = self.requestHeaders.getRawHeaders(ROOT_PATH) or []
        if root_paths and not is_proxy(str(self.client.host)):
            self.requestHeaders.removeHeader(ROOT_PATH)
        elif not all(path.isascii() for path in root_paths):
            return f"Invalid {ROOT_PATH.decode()}"
        return ""

    def http_scope(self, method: bytes, target: bytes) -> dict[str, Any]:
        """Return the ASGI scope of a request whose headers are complete."""
        headers = [
            (name.lower(), value)
            for name, values in self.requestHeaders.getAllRawHeaders()
            for value in values
        ]
        return request_scope(
            method.decode("latin1"),
            target,
            headers,
            client=[str(self.client.host), self.client.port],
            server=[str(self.host.host), self.host.port],
            scheme="https" if self.isSecure() else "http",
        )

    # The response

    def handle_reply(self, message: dict[str, Any]) -> None:
        """Write a part of the response; register for flow control at its start."""
        is_gone = self.finished or self.channel is None
        if message["type"] == "http.response.start" and not is_gone and self.producer is None:
            self.registerProducer(self, True)
        super().handle_reply(message)

    async def drained(self) -> None:
        """Return when the transport's buffer has room; close if the client reads too slowly.

        After the last part of the response, the channel waits for the client.
        """
        if self.finished or self._writable.is_set():
            return
        try:
            await asyncio.wait_for(self._writable.wait(), conf.SLOW_READER_TIMEOUT)
        except TimeoutError:
            if not self.finished and self.channel is not None:
                self.channel.evict()

    def pauseProducing(self) -> None:  # noqa: N802 - Twisted's name
        """Make `drained` wait: the transport's buffer is full."""
        self._writable.clear()

    def resumeProducing(self) -> None:  # noqa: N802
        """Release `drained`: the transport's buffer has room again."""
        self._writable.set()

    def stopProducing(self) -> None:  # noqa: N802
        """Release `drained`: the transport is closed."""
        self._writable.set()

    def finish(self) -> None:
        """End the response."""
        if self.producer is not None:
            self.unregisterProducer()
        super().finish()

    def connectionLost(self, reason: Any) -> None:
        """Release `drained`: the client has disconnected."""
        self.producer = None
        self._writable.set()
        super().connectionLost(reason)
