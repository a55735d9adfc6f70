"""Parser of an auth frame's body: imgo's bare token, or a JSON object of ours, goim or others."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from accounts.models import TOKEN_MAX
from imgo_site.conf import conf
from imgo_site.errors import BadRequest
from imgo_site.names import INT32_MAX, INT64_MAX, check_name, check_number, printable


@dataclass(frozen=True, slots=True)
class AuthBody:
    """Content of a client's auth frame, not verified yet.

    `change_room`: the room that a later op 12 leaves, as a session of goim has one room.
    `accepts`: the project's own ops that the client accepts; None: all.
    `is_goim`: the body has goim's form, and names the client by `mid` and `goim_key`.
    `is_bare`: the body is not a JSON object.
    `raw`: the body as it was sent, for an `AUTHENTICATOR` whose clients send something else. It
    holds any bytes over binary transports, and JSON in text frames.
    `mistake`: the first error in the body, "" if there is none. The default authenticator refuses
    a body with one. The other members hold the parts without errors.
    """

    token: str = ""
    rooms: tuple[str, ...] = ()
    change_room: str = ""
    ack: bool = False
    since: int = 0
    platform: str = ""
    device: str = ""
    accepts: tuple[int, ...] | None = None
    is_goim: bool = False
    mid: int = 0
    goim_key: str = ""
    is_bare: bool = field(default=False, compare=False)
    raw: bytes = field(default=b"", compare=False, repr=False)
    mistake: str = ""


def parse_auth_body(body: bytes) -> AuthBody:
    """Parse imgo's bare token (also as a JSON string), or a JSON object. Never raises."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return AuthBody(is_bare=True, raw=body, mistake="The auth body must be UTF-8 text.")
    # A token such as 12345 is valid JSON too, but the token is the text.
    token = text
    if text.lstrip()[:1] in ("{", '"'):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            return _of_object(value, body)
        if isinstance(value, str):
            token = value
    mistake = "The token is too long." if len(token) > TOKEN_MAX * 4 else ""
    return AuthBody(token=token, is_bare=True, raw=body, mistake=mistake)


def _of_object(value: dict[str, Any], raw: bytes) -> AuthBody:
    """Return the members of a JSON auth body. An invalid member counts as absent."""
    read: dict[str, Any] = {}
    mistake = ""
    for name, reader in _READERS.items():
        if name in value and (value[name] or name == "accepts"):  # else it is as if absent
            try:
                read[name] = reader(name, value[name])
            except BadRequest as error:
                mistake = mistake or error.message
    rooms = [*read.get("rooms", ()), *read.get("room_id", ())]
    if len(rooms) > conf.MAX_ROOMS_PER_SESSION:
        mistake = mistake or f"A session may be in {conf.MAX_ROOMS_PER_SESSION} rooms at most."
        rooms = []
    elif len(rooms) > 1:
        rooms = list(dict.fromkeys(rooms))
    return AuthBody(
        token=read.get("token", ""),
        rooms=tuple(rooms),
        change_room=rooms[0] if len(rooms) == 1 else "",
        ack=value.get("ack") is True,
        since=read.get("since", 0),
        platform=printable(read.get("platform", "")[:50]),
        device=printable(read.get("device", "")[:100]),
        accepts=read.get("accepts"),
        is_goim="mid" in value or "room_id" in value or "accepts" in value,
        mid=read.get("mid", 0),
        goim_key=read.get("key", ""),
        raw=raw,
        mistake=mistake,
    )


def _rooms(name: str, value: object) -> list[str]:
    if not isinstance(value, list):
        raise BadRequest(f"{name!r} must be a list of room names.")
    return [check_name(room, "room") for room in value]


def _room(name: str, value: object) -> list[str]:  # noqa: ARG001 - like the others
    return [check_name(value, "room")]


def _key(name: str, value: object) -> str:
    return check_name(_text(name, value), "key")


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise BadRequest(f"{name!r} must be a string.")
    return value


def _number(name: str, value: object) -> int:
    return check_number(value, f"{name!r}", lowest=0, highest=INT64_MAX)


def _accepts(name: str, value: object) -> tuple[int, ...]:  # noqa: ARG001 - like the others
    return check_ops(value or [])  # Go encodes a missing list as null: goim's client takes no ops


# Reader of each member that may be wrong, in the order in which mistakes are reported.
_READERS: dict[str, Callable[[str, Any], Any]] = {
    "rooms": _rooms,
    "room_id": _room,
    "token": _text,
    "platform": _text,
    "device": _text,
    "key": _key,
    "since": _number,
    "accepts": _accepts,
    "mid": _number,
}


def check_ops(ops: object) -> tuple[int, ...]:
    """Return the ops that a client accepts. Raises `BadRequest` if `ops` is not a list of ops."""
    if not isinstance(ops, list):
        raise BadRequest("The ops that a session accepts are a list of numbers.")
    return tuple(check_number(op, "An op", lowest=0, highest=INT32_MAX) for op in ops)
