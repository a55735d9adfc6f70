"""The one table of close codes: the reason and the reconnect rule of each code."""

import json
from enum import IntEnum
from typing import Self

# Clients check only this range, so a code added later needs no new client.
RECONNECT_CODES = range(4000, 4500)


class CloseCode(IntEnum):
    """Reason why the server closes a session; also the WebSocket close code.

    `reason`: the text for the peer.
    `backoff`: seconds a client must wait before it reconnects; 0 if it must not reconnect.
    """

    reason: str
    backoff: int

    # The defaults are for type checkers: they treat CloseCode(4401) as this call.
    def __new__(cls, code: int, reason: str = "", backoff: int = 0) -> Self:  # noqa: D102
        member = int.__new__(cls, code)
        member._value_ = code
        member.reason = reason
        member.backoff = backoff
        return member

    GOING_AWAY = 4000, "server is shutting down", 1
    SLOW_READER = 4001, "too many bytes waiting to be read", 1
    HEARTBEAT_TIMEOUT = 4002, "no frame within the heartbeat timeout", 1
    HANDSHAKE_TIMEOUT = 4003, "no auth frame within the handshake timeout", 5
    INTERNAL_ERROR = 4011, "internal error", 5
    UNAVAILABLE = 4013, "a service the server needs is unavailable", 5
    UNAUTHORIZED = 4401, "authentication failed", 5
    EXPIRED = 4402, "the token expired during the session", 1
    REVOKED = 4403, "the token was revoked, or the login has ended", 5
    TOO_MANY_ATTEMPTS = 4428, "too many attempts to authenticate", 60
    # Longer than the rest: a retry succeeds only after another session has ended.
    TOO_MANY_SESSIONS = 4429, "too many sessions for this key", 30

    BAD_FRAME = 4500, "malformed frame"  # or auth object; the reason then names the mistake
    UNKNOWN_OP = 4501, "unknown operation"
    FRAME_TOO_LARGE = 4502, "frame too large"
    REPLACED = 4503, "replaced by a newer session of the same key"
    KICKED = 4504, "closed by an administrator"
    NOT_AUTHENTICATED = 4505, "the first frame must be auth"
    ROOM_FORBIDDEN = 4506, "not allowed in this room"

    @property
    def reconnect(self) -> bool:
        """Return whether the client should reconnect."""
        return self in RECONNECT_CODES


def disconnect_body(code: int, reason: str = "") -> bytes:
    """Return the body of a DISCONNECT frame: compact JSON, in ASCII.

    `reason`: "" for the table's; a code that is not in the table has none.
    """
    if not reason and code in CloseCode._value2member_map_:
        reason = CloseCode(code).reason
    body = {"code": int(code), "reason": reason, "reconnect": code in RECONNECT_CODES}
    return json.dumps(body, separators=(",", ":")).encode()
