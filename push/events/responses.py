"""HTTP responses of Server-Sent Events: the head of a stream, and refusals."""

from collections.abc import Mapping

from django.http import HttpResponse

from imgo_site.errors import (
    ImgoError,
    NotAuthenticated,
    TooManyAttempts,
    TooManySessions,
    Unavailable,
)
from push.api.problems import RETRY_AFTER, problem_response
from push.connect.handshake import Refusal
from push.wire import CloseCode

STREAM_HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache, no-store, no-transform",
    "X-Accel-Buffering": "no",  # nginx would hold back the events
}
_WAITS: list[tuple[type[ImgoError], CloseCode]] = [
    (TooManySessions, CloseCode.TOO_MANY_SESSIONS),
    (TooManyAttempts, CloseCode.TOO_MANY_ATTEMPTS),
    (Unavailable, CloseCode.UNAVAILABLE),
]


def stream_head(headers: Mapping[str, str]) -> bytes:
    """Return the head of a response that ends with its connection.

    The body is not chunked, so its bytes are the same for all clients and for HTTP/1.0 proxies.
    """
    lines = {**STREAM_HEADERS, "Connection": "close", **headers}
    text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 200 OK\r\n{text}\r\n".encode("latin1")


def refusing_response(error: ImgoError, headers: Mapping[str, str]) -> HttpResponse:
    """Return problem details, with the time after which a retry may succeed."""
    response = problem_response(error)
    for name, value in headers.items():
        response[name] = value
    if isinstance(error, NotAuthenticated):
        response["WWW-Authenticate"] = "Bearer"
    if error.retry:
        codes = (code for kind, code in _WAITS if isinstance(error, kind))
        code = next(codes, None)
        response["Retry-After"] = str(RETRY_AFTER if code is None else code.backoff)
    return response


def error_of(refusal: Refusal) -> ImgoError:
    """Return the error of a refused handshake."""
    if refusal.error is not None:
        return refusal.error
    if refusal.code == CloseCode.UNAVAILABLE:
        return Unavailable(f"{refusal.reason[:1].upper()}{refusal.reason[1:]}.")
    return ImgoError("internal error")
