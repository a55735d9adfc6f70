"""The hierarchy of errors that callers and clients may see.

Each has a code for programs, a message for people, an HTTP status, and a flag whether a retry may
succeed. `push/api/problems.py` maps them for the API, `push/connect/handshake.py` for the wire.
"""


class ImgoError(Exception):
    """Base error. `message`: text for the caller. `retry`: whether a retry may succeed."""

    code = "error"
    status = 500
    retry = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class BadRequest(ImgoError):
    """The request is invalid; only a changed request can succeed."""

    code = "bad_request"
    status = 400


class TooLarge(ImgoError):
    """A size or count above its limit."""

    code = "too_large"
    status = 413


class TooSlow(ImgoError):
    """A request that did not arrive in time."""

    code = "request_timeout"
    status = 408
    retry = True


class NotAuthenticated(ImgoError):
    """The caller could not be authenticated."""

    code = "not_authenticated"
    status = 401


class Forbidden(ImgoError):
    """The caller is authenticated, but not allowed to do this."""

    code = "forbidden"
    status = 403


class RoomForbidden(Forbidden):
    """The identity may not join the room."""

    code = "room_forbidden"


class PublishForbidden(Forbidden):
    """The client may not publish to the room."""

    code = "publish_forbidden"


class NotFound(ImgoError):
    """The requested object does not exist."""

    code = "not_found"
    status = 404


class TooManySessions(ImgoError):
    """The key has the maximum number of sessions."""

    code = "too_many_sessions"
    status = 429
    retry = True


class TooManyAttempts(ImgoError):
    """Too many attempts to authenticate have failed."""

    code = "too_many_attempts"
    status = 429
    retry = True


class TooManyPublishes(ImgoError):
    """The clients of the key publish too fast."""

    code = "too_many_publishes"
    status = 429
    retry = True


class Unavailable(ImgoError):
    """A required service is unavailable; nothing was accepted."""

    code = "unavailable"
    status = 503
    retry = True


class BackendUnavailable(Unavailable):
    """The user's backend gave no usable answer to a hook, which has been logged."""


class Overloaded(BackendUnavailable):
    """More calls of hooks wait than the backend can answer in time.

    Clients of imgo look for the word at the beginning of the message, and double their next pause.
    """

    def __init__(self) -> None:
        super().__init__("overloaded: too many clients come at once, come back later")


class OutcomeUnknown(ImgoError):
    """The database did not confirm a commit: the push may be accepted or not.

    `retry`: True only with a dedupe id, because then a repeated push is not stored twice.
    """

    code = "outcome_unknown"
    status = 503

    def __init__(self, has_dedupe_id: bool) -> None:
        advice = (
            "Push it again with the same dedupe_id: an accepted push is not stored twice."
            if has_dedupe_id
            else "Pushing it again may double it; with a dedupe_id it would not."
        )
        super().__init__(f"The database did not confirm whether the push is stored. {advice}")
        self.retry = has_dedupe_id
