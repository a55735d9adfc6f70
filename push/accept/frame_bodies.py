"""Conversion of clients' frame bodies to Python values, and of Python values to reply bodies."""

from json import dumps, loads
from typing import Any, NoReturn

from accounts.auth_body import check_ops
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
