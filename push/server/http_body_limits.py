"""Limits of request bodies: for one body, and for all bodies of a node together.

A small body is accepted from any caller. A larger body needs a caller with an API key that the view
accepts. So does every body while callers without a key fill their share. Until the caller is
authorized, its connection is not read. So callers without a key can fill only a share of the
memory, and cannot keep out callers with one.
"""

import time
from typing import Any, Protocol

from django.urls import ResolverMatch

from imgo_site.conf import conf
from imgo_site.errors import ImgoError, TooLarge, Unavailable
from push.server.early_authorization import EarlyAuthorization

UNAUTHORIZED_BODY_MAX = 64 * 1024  # bytes of a body that are accepted without authorization
SHARE = 4  # bodies of callers that are not authorized get 1/SHARE of MAX_BODIES


class RequestChannel(Protocol):
    """The connection of a body: the methods of `push.server.http_channel.Channel` used here."""

    transport: Any

    def refuse(self, error: ImgoError) -> None:
        """Answer the request with an error, and end the connection."""

    def end_with(self, refusal: Any) -> None:
        """Answer the request with the view's refusal, and end the connection."""

    def body_allowed(self) -> None:
        """Continue reading: the caller may send the body."""


class Bodies:
    """Bytes of the bodies of all connections of a node."""

    def __init__(self, gate: EarlyAuthorization) -> None:
        self.gate = gate
        self.held = 0  # bytes
        self.unasked = 0  # bytes of them whose callers are not authorized


class Body:
    """Body of one request.

    `limit`: bytes.
    `match`: the view of the request; None if there is none.
    """

    def __init__(
        self, channel: RequestChannel, bodies: Bodies, limit: int, match: ResolverMatch | None
    ) -> None:
        self._channel = channel
        self._bodies = bodies
        self._limit = limit
        self._match = match
        self._since = time.monotonic()
        self._request: Any = None
        self._target = b""
        self._method = b""
        self._size = 0
        self._is_known = False  # the caller is authorized
        self.is_asking = False

    def begin(self, length: int | None, request: Any, method: bytes, target: bytes) -> None:
        """Start with complete headers; authorize the caller if the announced length needs that.

        `length`: bytes, from the headers; None for a chunked body.
        """
        self._request, self._method, self._target = request, method, target
        if length is not None and length > UNAUTHORIZED_BODY_MAX:
            self._authorize()

    def add(self, size: int) -> bool:
        """Count received bytes; refuse the request and return False if they are too many."""
        self._size += size
        self._bodies.held += size
        if not self._is_known:
            self._bodies.unasked += size
        if self._size > self._limit:
            self._channel.refuse(self.too_large())
            return False
        if self._bodies.held > conf.MAX_BODIES:
            self._channel.refuse(self._busy())
            return False
        is_full = self._bodies.unasked > conf.MAX_BODIES // SHARE
        needs_key = not self._is_known and (self._size > UNAUTHORIZED_BODY_MAX or is_full)
        if needs_key and not self._authorize() and is_full:
            self._channel.refuse(self._busy())
            return False
        return True

    def _authorize(self) -> bool:
        """Stop reading until the caller is authorized; return False if its view cannot."""
        if self.is_asking:
            self._channel.transport.pauseProducing()
            return True
        if not self._bodies.gate.guards(self._match):
            return False
        self.is_asking = True
        self._channel.transport.pauseProducing()
        self._bodies.gate.ask(self._match, self._request, self._method, self._target, self._decided)
        return True

    def _decided(self, refusal: Any) -> None:
        """Continue or refuse. `refusal`: the view's refusing response; None if allowed."""
        self.is_asking = False
        if self._request is None:
            return  # the connection was closed meanwhile
        if refusal is not None:
            self._channel.end_with(refusal)
            return
        self._is_known = True
        self._bodies.unasked -= self._size
        self._since = time.monotonic()
        self._channel.body_allowed()

    def left(self) -> float:
        """Return the seconds until the body must be complete."""
        if self.is_asking:  # the client's time does not run during the authorization
            return conf.BODY_TIMEOUT
        allowed = conf.BODY_TIMEOUT + self._size / conf.BODY_RATE
        return self._since + allowed - time.monotonic()

    def drop(self) -> None:
        """Release the bytes of a request that has ended."""
        self._bodies.held -= self._size
        if not self._is_known:
            self._bodies.unasked -= self._size
        self._size = 0
        self._request = None

    def too_large(self) -> TooLarge:
        """Return the error for a body above its limit."""
        return TooLarge(f"A request to this path has at most {self._limit} bytes in its body.")

    @staticmethod
    def _busy() -> Unavailable:
        return Unavailable("Too many large requests are under way; nothing was accepted.")
