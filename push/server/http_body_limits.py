"""Bodies of requests under way: what one may have, and what all of them may have together.

A small body is taken as it comes. A larger one, or any when many are under way, is taken when its
caller has shown an API key that the view accepts; until then its connection is not read. So those
who have no key can fill no more than a part of the memory, and keep nobody out who has one.
"""

import time
from typing import Any, Protocol

from django.urls import ResolverMatch

from imgo_site.conf import conf
from imgo_site.errors import ImgoError, TooLarge, Unavailable
from push.server.early_authorization import EarlyAuthorization

UNASKED_MAX = 64 * 1024  # bytes of a body that are taken from anybody
SHARE = 4  # of MAX_BODIES, bodies of callers that were not asked take one part in this


class RequestChannel(Protocol):
    """The connection that a body comes in on: `push.server.http_channel.Channel`."""

    transport: Any

    def refuse(self, error: ImgoError) -> None:
        """Answer the request with an error, and end the connection."""

    def end_with(self, refusal: Any) -> None:
        """Answer the request with the view's refusal, and end the connection."""

    def body_allowed(self) -> None:
        """Go on: the caller may send the body."""


class Bodies:
    """What all connections of a node hold."""

    def __init__(self, gate: EarlyAuthorization) -> None:
        self.gate = gate
        self.held = 0  # bytes
        self.unasked = 0  # bytes of those, whose callers were not asked for a key


class Body:
    """The body of one request."""

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
        self._is_known = False  # the caller has shown a key
        self.is_asking = False

    def begin(self, length: int | None, request: Any, method: bytes, target: bytes) -> None:
        """The headers are complete; `length` is what they announce, None for a chunked body."""
        self._request, self._method, self._target = request, method, target
        if length is not None and length > UNASKED_MAX:
            self._ask()

    def add(self, size: int) -> bool:
        """Count bytes that came; return False, and refuse the request, if they are too many."""
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
        has_to_ask = not self._is_known and (self._size > UNASKED_MAX or is_full)
        if has_to_ask and not self._ask() and is_full:
            self._channel.refuse(self._busy())
            return False
        return True

    def _ask(self) -> bool:
        """Stop reading until the caller is known; return False if nobody can be asked."""
        if self.is_asking:
            self._channel.transport.pauseProducing()
            return True
        if not self._bodies.gate.guards(self._match):
            return False
        self.is_asking = True
        self._channel.transport.pauseProducing()
        self._bodies.gate.ask(self._match, self._request, self._method, self._target, self._told)
        return True

    def _told(self, refusal: Any) -> None:
        """The gate's answer: a response that refuses, or None."""
        self.is_asking = False
        if self._request is None:
            return  # the connection has gone meanwhile
        if refusal is not None:
            self._channel.end_with(refusal)
            return
        self._is_known = True
        self._bodies.unasked -= self._size
        self._since = time.monotonic()
        self._channel.body_allowed()

    def left(self) -> float:
        """Return the seconds until the rest of the body has to be here."""
        if self.is_asking:  # the client's time does not run while ours does
            return conf.BODY_TIMEOUT
        allowed = conf.BODY_TIMEOUT + self._size / conf.BODY_RATE
        return self._since + allowed - time.monotonic()

    def drop(self) -> None:
        """Give back what was held; the request is over."""
        self._bodies.held -= self._size
        if not self._is_known:
            self._bodies.unasked -= self._size
        self._size = 0
        self._request = None

    def too_large(self) -> TooLarge:
        """Return what to say about a body above its limit."""
        return TooLarge(f"A request to this path has at most {self._limit} bytes in its body.")

    @staticmethod
    def _busy() -> Unavailable:
        return Unavailable("Too many large requests are under way; nothing was accepted.")
