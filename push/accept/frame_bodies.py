"""Bodies of clients' frames as Python values, and Python values as bodies of replies."""

from json import dumps, loads
from typing import Any, NoReturn

from accounts.auth_body import check_ops
from imgo_site.errors import BadRequest, ImgoError
from push.wire import json_body


def body_value(body: bytes) -> Any:
    """The JSON value where `body` is JSON, else text, else the bytes."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return body
    try:
        return loads(text)
    except (ValueError, RecursionError):
        return text


def room_name(body: bytes) -> str:
    """The room that a frame names: bare, or as a JSON string or number; "" when there is none.

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
    """The ops that a frame names: with commas between them, as goim has it, or a JSON list.

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
    """Return what the receiver returned, as JSON.

    Raises what the encoder raises, also for numbers that JSON has not: NaN and the infinities.
    """
    if answer is None:
        return b"{}"
    if isinstance(answer, bytes):
        return json_body(answer, is_json=is_json(answer))
    return dumps(answer, separators=(",", ":"), allow_nan=False).encode()


def error_body(error: ImgoError) -> bytes:
    """The body of a reply that says what was wrong."""
    value = {"error": {"code": error.code, "message": error.message}}
    return dumps(value, separators=(",", ":")).encode()
