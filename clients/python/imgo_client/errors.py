"""Exceptions of the package: those of sessions first, those of pushes below."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imgo_client.pushes import Push


class ImgoError(Exception):
    """Base of all exceptions of this package, except those for wrong arguments."""


# Sessions


class Closed(ImgoError):
    """The session has ended, and the client must not reconnect or was closed by its user."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"the session is closed: {self.code} {self.reason}".rstrip()


class NotOpen(ImgoError, ConnectionError):
    """There is no open session for the request, or it ended before the reply arrived."""


class NoAnswer(ImgoError, TimeoutError):
    """No reply arrived within the timeout, or no session was opened."""


class Refused(ImgoError):
    """The server refused a request. `code`: the reason for programs, such as "room_forbidden"."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return self.message or self.code


class ProtocolError(ImgoError):
    """The server sent data that does not follow the protocol."""


class FrameError(ProtocolError):
    """Bytes that are not a valid frame. `code`: the server's close code for them."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


# Pushes


class PublishError(ImgoError):
    """A call of the HTTP API failed.

    `pushes`: the pushes of the call. They keep their `dedupe_id`. So they can be pushed again,
    later or from another process, and none is accepted twice.
    """

    def __init__(self, message: str, pushes: tuple[Push, ...] = ()) -> None:
        super().__init__(message)
        self.pushes = pushes


class Unreachable(PublishError):
    """No answer arrived within the attempts and the time that `Retry` allows."""


class BadAnswer(PublishError):
    """The answer is not one of the API. The URL may be wrong."""


class ApiError(PublishError):
    """The API refused the request. `problem`: the members of RFC 9457, and imgo's own.

    `status`: the HTTP status. `code`: the reason for programs. `detail`: the reason for people.
    `retry`: whether the same request may succeed later. The subclasses are the statuses that a
    caller may want to distinguish.
    """

    def __init__(self, problem: Mapping[str, Any], pushes: tuple[Push, ...] = ()) -> None:
        self.problem = dict(problem)
        status = problem.get("status")
        self.status = status if isinstance(status, int) else 0
        self.code = str(problem.get("code", ""))
        self.title = str(problem.get("title", ""))
        self.detail = str(problem.get("detail", ""))
        self.retry = problem.get("retry") is True
        super().__init__(f"{self.status} {self.detail or self.title or self.code}", pushes)


class BadRequest(ApiError):
    """400: the request is invalid."""


class NotAuthenticated(ApiError):
    """401: the API key is missing or wrong."""


class Forbidden(ApiError):
    """403: the API key lacks the scope."""


class NotFound(ApiError):
    """404: the requested object does not exist."""


class TooLarge(ApiError):
    """413: a size or a count exceeds its limit."""


class TooManyRequests(ApiError):
    """429: too many requests; retry later."""


class Unavailable(ApiError):
    """502, 503, 504: nothing was accepted, or a proxy answered. All retries failed too."""


class OutcomeUnknown(Unavailable):
    """503: the server does not know whether it accepted the push. All retries failed too."""


_BY_STATUS: dict[int, type[ApiError]] = {
    400: BadRequest,
    401: NotAuthenticated,
    403: Forbidden,
    404: NotFound,
    413: TooLarge,
    429: TooManyRequests,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


def api_error(problem: Mapping[str, Any], pushes: tuple[Push, ...] = ()) -> ApiError:
    """Return the exception for a problem, by its code or status."""
    status = problem.get("status")
    kind = _BY_STATUS.get(status, ApiError) if isinstance(status, int) else ApiError
    if problem.get("code") == "outcome_unknown":
        kind = OutcomeUnknown
    return kind(problem, pushes)
