"""The one hierarchy of errors that a caller or client may be told about.

Each has a code for programs, a message for people, an HTTP status, and whether trying again may
help. The API maps them in `push/api/problems.py`, the wire in `push/connect/handshake.py`.
"""


class ImgoError(Exception):
    """A mistake or fault with a message for whoever caused or met it."""

    code = "error"
    status = 500
    retry = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class BadRequest(ImgoError):
    """What was asked makes no sense as it is."""

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
    """Nobody we know."""

    code = "not_authenticated"
    status = 401


class Forbidden(ImgoError):
    """Known, but not allowed."""

    code = "forbidden"
    status = 403


class RoomForbidden(Forbidden):
    """The identity may not join the room."""

    code = "room_forbidden"


class NotFound(ImgoError):
    """No such thing."""

    code = "not_found"
    status = 404


class TooManySessions(ImgoError):
    """The key has as many sessions as it may have."""

    code = "too_many_sessions"
    status = 429
    retry = True


class TooManyAttempts(ImgoError):
    """Too many attempts to authenticate have failed."""

    code = "too_many_attempts"
    status = 429
    retry = True


class Unavailable(ImgoError):
    """A service that is needed cannot be reached; nothing was accepted."""

    code = "unavailable"
    status = 503
    retry = True


class OutcomeUnknown(ImgoError):
    """The database did not confirm a commit: the push may be accepted or not.

    `retry`: True only with a dedupe id, with which a second push of an accepted one does nothing.
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
