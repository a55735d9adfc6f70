"""HTTP connection of a node, with limits on the client's bytes and on its time.

Twisted's `HTTPChannel` accepts any body, restarts its timeout with every byte, and closes without a
response. This channel differs in three points:

- Headers have a maximum number and size, bodies a maximum size. Both have a total deadline.
- Once a request is refused, nothing more of it is read.
- A refused request gets a response before the connection is closed.

A connection passes these states: reading headers, reading a body (`_waits_for_body`), serving the
request, waiting for the client to read the response (`_unread`), idle until the next request
(`_is_idle`). It may be refused in each (`_is_refused`).
"""

import logging
import time
from typing import Any
from urllib.parse import unquote

from django.http import HttpResponseBase
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.web.http import HTTPChannel

from imgo_site.conf import conf
from imgo_site.errors import BadRequest, ImgoError, TooLarge, TooSlow
from imgo_site.names import REQUEST_LINE_MAX
from imgo_site.request_limits import body_limit, find_view
from push.api.problems import error_response_at
from push.api.raw_response import closing_bytes
from push.metrics import definitions as metrics
from push.server.http_body_limits import Body
from push.server.http_request import NodeRequest
from push.server.http_target import BadTarget, read_target
from push.server.ports import plain_address
from push.server.tcp_listener import has_proxy_header
from push.wire.proxy_protocol import ProxyError, parse_proxy_header

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT = 2  # seconds for a client to read a response that ends its connection
LINE_TEXT = (
    f"The first line and the headers of a request have at most {REQUEST_LINE_MAX} bytes each."
)
LENGTH_DIGITS = 18  # of a Content-Length; no size has more, and Python refuses to parse 4,301


def is_smuggling_risk(line: bytes) -> bool:
    """Return whether a header gives the body a length that other servers may parse differently.

    Twisted accepts "identity" besides "chunked", and a number with any number of digits.
    """
    name, _, value = line.partition(b":")
    match name.lower():
        case b"transfer-encoding":
            return value.strip(b" \t").lower() != b"chunked"
        case b"content-length":
            return len(value.strip(b" \t")) > LENGTH_DIGITS
    return False


def _target_of(line: bytes) -> bytes:
    """Return the target in a request's first line, which may be malformed; b"/" for none."""
    words = line[: REQUEST_LINE_MAX + 1].split(b" ", 2)
    return words[1] if len(words) > 1 else b"/"


class Channel(HTTPChannel):
    """One HTTP connection, for requests one after the other."""

    MAX_LENGTH = REQUEST_LINE_MAX
    totalHeadersSize = 2 * REQUEST_LINE_MAX  # noqa: N815 - Twisted's name; the first line counts
    abortTimeout = CLOSE_TIMEOUT  # noqa: N815
    transport: Any
    factory: Any
    requests: list[NodeRequest]
    _command: bytes
    _path: Any  # bytes; Twisted's own hints are wrong
    _version: bytes
    _target = b"/"  # of the latest request, as it was sent
    _is_refused = False
    _is_idle = False  # between two requests
    _waits_for_body = False
    _has_all = False  # the body is complete, but its caller is not authorized yet
    _body: Body | None = None
    _is_full = False  # the transport takes no more bytes for now
    _unread: Any = None  # the request whose response the client has not read yet
    _proxy_data: bytes | None = None  # the start of an incomplete PROXY protocol header
    _client: tuple[str, int] | None = None  # from that header
    since = 0.0  # monotonic seconds: the start of this request, or of the connection

    def connectionMade(self) -> None:
        """Start the deadline of the first request's headers."""
        self.maxHeaders = conf.MAX_HEADERS
        self.since = time.monotonic()
        self.factory.server.unauthenticated.enter(self)
        listener = "ws" if self.transport.getHost().port == conf.WS_PORT else "http"
        if has_proxy_header(listener, self.getPeer().host):
            self._proxy_data = b""
        super().connectionMade()  # type: ignore[no-untyped-call]

    def count_from(self, accepted: float) -> None:
        """Let the deadline of the first request's headers count from `accepted`.

        `accepted`: when the connection was accepted, monotonic seconds.
        """
        self.since = accepted
        left = accepted + conf.HANDSHAKE_TIMEOUT - time.monotonic()
        self.setTimeout(max(0.0, left))  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Any = None) -> None:
        """Release the connection's place and its body."""
        self.factory.server.unauthenticated.leave(self)
        self._drop_body()
        super().connectionLost(reason)  # type: ignore[no-untyped-call]

    def evict(self) -> None:
        """Close at once, to make room for another connection."""
        self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        """Handle received bytes. Only the first bytes of a next request restart the deadline."""
        if self._is_refused:
            return
        if self._is_idle:
            self._is_idle = False
            self.since = time.monotonic()
            self.resetTimeout()  # type: ignore[no-untyped-call]
        if self._proxy_data is not None and (data := self._read_proxy_header(data)) == b"":
            return
        # Not HTTPChannel's method, which restarts the deadline with every byte.
        super(HTTPChannel, self).dataReceived(data)  # type: ignore[no-untyped-call]

    # The client's address

    def _read_proxy_header(self, data: bytes) -> bytes:
        """Return the bytes that follow the PROXY protocol header of a connection.

        Return b"" if the header is incomplete. Close the connection if the header is invalid.
        """
        assert self._proxy_data is not None
        self._proxy_data += data
        try:
            header = parse_proxy_header(self._proxy_data)
        except ProxyError as error:
            metrics.CLOSES.labels("proxy_header").inc()
            logger.warning(
                "a connection of the proxy %s was closed: %s", self.getPeer().host, error
            )
            self.evict()
            return b""
        if header is None:
            return b""
        rest, self._proxy_data = self._proxy_data[header.size :], None
        if header.address:
            self._client = header.address, header.port
        return rest

    def getPeer(self) -> Any:  # noqa: N802
        """Return the client's address; an IPv4 address has the form of IPv4."""
        peer = self.transport.getPeer()
        host, port = self._client or (plain_address(peer.host), peer.port)
        return (IPv6Address if ":" in host else IPv4Address)("TCP", host, port)

    # The first line and the headers

    def lineReceived(self, line: bytes) -> None:  # noqa: N802 - Twisted's
        """Handle a line of the request; refuse the request if its headers are too large."""
        if not self._receivedHeaderSize:
            self._target = _target_of(line)
        if self._receivedHeaderSize + len(line) > self.totalHeadersSize:
            self.refuse(TooLarge(f"Headers have at most {self.totalHeadersSize} bytes."), 431)
        if not self._is_refused:
            super().lineReceived(line)  # type: ignore[no-untyped-call]

    def lineLengthExceeded(self, line: bytes) -> None:  # noqa: N802
        """Refuse a line that is too long."""
        status = 431 if self._receivedHeaderSize else 414
        if status == 414:
            self._target = _target_of(line)
        self.refuse(TooLarge(LINE_TEXT), status)

    def headerReceived(self, line: bytes) -> bool:  # noqa: N802
        """Handle a header; refuse the request if it has too many, or a doubtful length."""
        if self._receivedHeaderCount >= self.maxHeaders:
            self.refuse(TooLarge(f"A request has at most {self.maxHeaders} headers."), 431)
            return False
        if is_smuggling_risk(line):
            self._respondToBadRequestAndDisconnect()
            return False
        return bool(super().headerReceived(line))  # type: ignore[no-untyped-call]

    def allHeadersReceived(self) -> None:  # noqa: N802
        """Refuse the request, or start its body, before any of the body is read."""
        request = self.requests[-1]
        try:
            self._path = read_target(self._path, self._version, request.requestHeaders)
        except BadTarget as error:
            self.refuse(BadRequest(str(error)))
            return
        if self.length == 0:
            super().allHeadersReceived()  # type: ignore[no-untyped-call]
            return
        path = unquote(self._path.partition(b"?")[0].decode("latin1"))
        match = find_view(path)
        limit = 0 if request.is_upgrade else body_limit(self._command.decode("latin1"), match)
        self._body = Body(self, self.factory.server.bodies, limit, match)
        if self.length is not None and self.length > limit:
            self.refuse(self._body.too_large())
            return
        self._waits_for_body = True
        self.setTimeout(conf.BODY_TIMEOUT)  # type: ignore[no-untyped-call]
        super().allHeadersReceived()  # type: ignore[no-untyped-call]
        self._body.begin(self.length, request, self._command, self._path)

    # The body

    def body_received(self, size: int) -> bool:
        """Count bytes of the body; return whether they may be kept."""
        if self._is_refused or self._body is None:
            return False
        return self._body.add(size)

    def allContentReceived(self) -> None:  # noqa: N802
        """Serve the request, unless it is refused or its authorization is under way."""
        if self._is_refused:
            return
        if self._body is not None and self._body.is_asking:
            self._has_all = True
            return
        self._waits_for_body = self._has_all = False
        self.setTimeout(conf.HANDSHAKE_TIMEOUT)  # type: ignore[no-untyped-call]
        self.factory.server.unauthenticated.serve(self)
        super().allContentReceived()  # type: ignore[no-untyped-call]

    def body_allowed(self) -> None:
        """Continue with the request: its caller may send this body."""
        if self._has_all:
            self.allContentReceived()
        else:
            self.transport.resumeProducing()

    def requestDone(self, request: Any) -> None:  # noqa: N802
        """Wait for the next request: the response to this one is written.

        While the client has not read the response, no further request of it is served. Otherwise
        each of many pipelined requests would leave its response in memory.
        """
        self._drop_body()
        if self.persistent and self._is_full:
            self._unread = request
            self.setTimeout(conf.SLOW_READER_TIMEOUT)  # type: ignore[no-untyped-call]
            return
        self._is_idle = True
        self.since = time.monotonic()
        self.factory.server.unauthenticated.enter(self)
        super().requestDone(request)  # type: ignore[no-untyped-call]
        if not self.persistent:
            self._is_refused = True  # read nothing more; the client may still read the response
            self.setTimeout(conf.SLOW_READER_TIMEOUT)  # type: ignore[no-untyped-call]

    def pauseProducing(self) -> None:  # noqa: N802
        """Note that the transport's buffer is full: the client reads slowly, or not at all."""
        self._is_full = True
        super().pauseProducing()  # type: ignore[no-untyped-call]

    def resumeProducing(self) -> None:  # noqa: N802
        """Go on when the client has read enough of a response."""
        self._is_full = False
        super().resumeProducing()  # type: ignore[no-untyped-call]
        request, self._unread = self._unread, None
        if request is not None:
            self.setTimeout(conf.HANDSHAKE_TIMEOUT)  # type: ignore[no-untyped-call]
            self.requestDone(request)

    def _drop_body(self) -> None:
        if self._body is not None:
            self._body.drop()
            self._body = None

    # The end

    def timeoutConnection(self) -> None:  # noqa: N802
        """Close after a deadline, with a response if there is a request."""
        if self._is_refused or self._unread is not None:
            self.transport.abortConnection()
        elif self._waits_for_body and self._body is not None and (left := self._body.left()) > 0:
            self.setTimeout(left)  # type: ignore[no-untyped-call]
        elif self.requests or self._buffer:
            self.refuse(TooSlow("The request did not arrive in time."))
        else:
            super().timeoutConnection()  # type: ignore[no-untyped-call]

    def refuse(self, error: ImgoError, status: int = 0) -> None:
        """Refuse a request, with an error response in the format of its path.

        `status`: HTTP status; 0 for the error's own.
        """
        if status:
            error.status = status
        path = self._target.partition(b"?")[0].decode("latin1")
        self.end_with(error_response_at(path, error))

    def end_with(self, response: HttpResponseBase) -> None:
        """Write a response and close the sending side; stop reading the request.

        The connection ends when the client closes it, or after `CLOSE_TIMEOUT`. Closing both sides
        at once would reset the connection, and the client might not read the response.
        """
        if self._is_refused:
            return
        self._is_refused = True
        self._drop_body()
        metrics.REQUESTS_REFUSED.labels(str(response.status_code)).inc()
        self.transport.write(closing_bytes(response))
        self.transport.resumeProducing()
        self.transport.loseWriteConnection()
        self.setTimeout(CLOSE_TIMEOUT)  # type: ignore[no-untyped-call]

    def _respondToBadRequestAndDisconnect(self) -> None:  # noqa: N802
        self.refuse(BadRequest("The request is not valid HTTP/1.1."))
