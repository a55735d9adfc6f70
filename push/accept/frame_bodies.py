"""Conversion of clients' frame bodies to Python values, and of Python values to reply bodies."""

from collections.abc import Collection, Iterable
from json import dumps, loads
from typing import Any, NoReturn

from accounts.auth_body import RoomRequest, check_ops, room_request
from imgo_site.errors import BadRequest, ImgoError
from push.wire import json_body


def body_value(body: bytes) -> Any:
    """Return the JSON value of `body` if it is JSON, else its text, else the bytes."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return body
    try:
        return loads(text)
    except (ValueError, RecursionError):
        return text


def room_name(body: bytes) -> str:
    """Return the room that a frame names, or "" for none.

    `body`: the bare name, or a JSON string or number.

    Raises `BadRequest`.
    """
    value = body_value(body) if body else ""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value in ({}, None):
        return ""
    if not isinstance(value, str):
        raise BadRequest("The body must be the name of a room.")
    return value


def joined_room(body: bytes) -> tuple[str, RoomRequest | None]:
    """Return the room that a JOIN names, and what is asked of it.

    `body`: as for `room_name`, with None for what is asked; or an object of one room, such as
    `{"chat-1": {"rewind": 20}}`.

    Raises `BadRequest`.
    """
    value = body_value(body) if body else ""
    if not isinstance(value, dict) or not value:
        return room_name(body), None
    if len(value) > 1:
        raise BadRequest("A join names one room.")
    ((room, request),) = value.items()
    return room, room_request(request)


def check_members(names: Iterable[str], allowed: Collection[str], op: int) -> None:
    """Raise `BadRequest` if the body of a frame has a member that its op does not know.

    A mistyped option would otherwise count as absent.
    """
    for name in names:
        if name not in allowed:
            members = ", ".join(allowed)
            raise BadRequest(f"The body of op {op:d} has no member {name[:50]!r}, only {members}.")


def ops_of(body: bytes) -> tuple[int, ...]:
    """Return the ops that a frame names.

    `body`: numbers separated by commas, as in goim, or a JSON list.

    Raises `BadRequest`.
    """
    value = body_value(body) if body else ""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    elif isinstance(value, int) and not isinstance(value, bool):
        value = [value]
    return check_ops(value)


def is_json(body: bytes) -> bool:
    """Return whether these bytes are JSON text in UTF-8 that every client can read."""
    try:
        loads(body.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def reply_body(answer: Any) -> bytes:
    """Return the receiver's answer as JSON.

    Raises what the encoder raises. It refuses NaN and the infinities, which JSON does not have.
    """
    if answer is None:
        return b"{}"
    if isinstance(answer, bytes):
        return json_body(answer, is_json=is_json(answer))
    return dumps(answer, separators=(",", ":"), allow_nan=False).encode()


def error_body(error: ImgoError) -> bytes:
    """Return the body of a reply that reports an error."""
    value = {"error": {"code": error.code, "message": error.message}}
    return dumps(value, separators=(",", ":")).encode()
