"""What can go wrong, as exceptions: of sessions here, of pushes below them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imgo_client.pushes import Push


class ImgoError(Exception):
    """All that this package raises by itself, except for wrong arguments."""


# Sessions


class Closed(ImgoError):
    """The session has ended and the client must not come back, or it was closed by its user."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"the session is closed: {self.code} {self.reason}".rstrip()


class NotOpen(ImgoError, ConnectionError):
    """There is no session to ask in, or it ended before the answer came."""


class NoAnswer(ImgoError, TimeoutError):
    """No answer came in time, or no session."""


class Refused(ImgoError):
    """The server refused a request; `code` is its word for why, such as "room_forbidden"."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return self.message or self.code


class ProtocolError(ImgoError):
    """The server sent what is not the protocol."""


class FrameError(ProtocolError):
    """Bytes that are no frame. `code`: the close code that a server has for them."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


# Pushes


class PublishError(ImgoError):
    """A call of the HTTP API failed.

    `pushes` are those that it was for. They keep their `dedupe_id`: to push them once more, later
    or from another process, doubles none of those that were accepted after all.
    """

    def __init__(self, message: str, pushes: tuple[Push, ...] = ()) -> None:
        super().__init__(message)
        self.pushes = pushes


class Unreachable(PublishError):
    """No answer came, in as many attempts and as much time as there was for them."""


class BadAnswer(PublishError):
    """What came back is not an answer of the API: is it the right address?"""


class ApiError(PublishError):
    """The API refused, and `problem` says why: the members of RFC 9457, and imgo's own.

    `status`: HTTP's. `code`: for programs. `detail`: for people. `retry`: whether the same may
    succeed later. The subclasses are the statuses that a caller may want to tell apart.
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
    """400: what was asked makes no sense as it is."""


class NotAuthenticated(ApiError):
    """401: the API key is missing or wrong."""


class Forbidden(ApiError):
    """403: the API key has not the scope."""


class NotFound(ApiError):
    """404: there is no such thing."""


class TooLarge(ApiError):
    """413: a size or count above its limit."""


class TooManyRequests(ApiError):
    """429: slower."""


class Unavailable(ApiError):
    """502, 503, 504: nothing was accepted, or a proxy answered; later attempts failed as well."""


class OutcomeUnknown(Unavailable):
    """503: the server does not know whether it accepted the push; later attempts failed as well."""


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
