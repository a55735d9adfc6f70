"""Parser of an auth frame's body: imgo's bare token, or a JSON object of ours, goim or others."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
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
            return _Members(value).as_body(body)
        if isinstance(value, str):
            token = value
    mistake = "The token is too long." if len(token) > TOKEN_MAX * 4 else ""
    return AuthBody(token=token, is_bare=True, raw=body, mistake=mistake)


class _Members:
    """Members of a JSON auth body. An invalid member counts as absent."""

    def __init__(self, value: dict[str, Any]) -> None:
        self._value = value
        self._mistake = ""

    def as_body(self, raw: bytes) -> AuthBody:
        """Return the members as an `AuthBody`, with the first mistake in them."""
        value, read = self._value, self._read
        rooms: tuple[str, ...] = read(_rooms, ())
        token, platform, device, key = (
            read(partial(_text, name), "") for name in ("token", "platform", "device", "key")
        )
        return AuthBody(
            token=token,
            rooms=rooms,
            change_room=rooms[-1] if len(rooms) == 1 else "",
            ack=value.get("ack") is True,
            since=read(partial(_number, "since"), 0),
            platform=printable(platform[:50]),
            device=printable(device[:100]),
            accepts=read(_accepts, None),
            is_goim=any(name in value for name in ("mid", "room_id", "accepts")),
            mid=read(partial(_number, "mid"), 0),
            goim_key=key,
            raw=raw,
            mistake=self._mistake,
        )

    def _read(self, reader: Callable[[dict[str, Any]], Any], absent: Any) -> Any:
        try:
            return reader(self._value)
        except BadRequest as error:
            self._mistake = self._mistake or error.message
            return absent


def _rooms(value: dict[str, Any]) -> tuple[str, ...]:
    rooms = value.get("rooms") or []
    if not isinstance(rooms, list):
        raise BadRequest("'rooms' must be a list of room names.")
    rooms = [check_name(room, "room") for room in rooms]
    if value.get("room_id"):  # goim
        rooms.append(check_name(value["room_id"], "room"))
    if len(rooms) > conf.MAX_ROOMS_PER_SESSION:
        raise BadRequest(f"A session may be in {conf.MAX_ROOMS_PER_SESSION} rooms at most.")
    return tuple(dict.fromkeys(rooms))


def _text(name: str, value: dict[str, Any]) -> str:
    text = value.get(name) or ""
    if not isinstance(text, str):
        raise BadRequest(f"{name!r} must be a string.")
    if name == "key" and text:
        check_name(text, "key")
    return text


def _number(name: str, value: dict[str, Any]) -> int:
    return check_number(value.get(name) or 0, f"{name!r}", lowest=0, highest=INT64_MAX)


def _accepts(value: dict[str, Any]) -> tuple[int, ...] | None:
    # Go encodes a missing list as null. goim treats that as an empty list.
    return check_ops(value["accepts"] or []) if "accepts" in value else None


def check_ops(ops: object) -> tuple[int, ...]:
    """Return the ops that a client accepts. Raises `BadRequest` if `ops` is not a list of ops."""
    if not isinstance(ops, list):
        raise BadRequest("The ops that a session accepts are a list of numbers.")
    return tuple(check_number(op, "An op", lowest=0, highest=INT32_MAX) for op in ops)
