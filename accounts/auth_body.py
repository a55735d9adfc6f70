"""Parser of an auth frame's body: imgo's bare token, or a JSON object of ours, goim or others."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from imgo_site.conf import conf
from imgo_site.errors import BadRequest
from imgo_site.names import INT32_MAX, INT64_MAX, check_name, check_number, printable

REWIND_MAX = 100_000  # messages
EPOCH_MAX = 64  # characters
# Members of what is asked of a room. The last ones are for a client that sends a reply, or the
# position that the API gave, as it is.
ROOM_MEMBERS = ("epoch", "offset", "rewind", "presence")
REPLY_MEMBERS = ("recovered", "room")


class RoomRequest(NamedTuple):
    """What a session asks for when it joins a room with history: nothing, a position, a rewind.

    `epoch`, `offset`: the position of the last message that the client has. `rewind`: number of
    the newest messages to send. None: not asked for.
    `presence`: whether changes of who is in the room are wanted, if its policy sends them.
    """

    epoch: str | None = None
    offset: int = 0
    rewind: int | None = None
    presence: bool = True


@dataclass(slots=True)  # not frozen: to set twenty members would take three times as long
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
    `requests`: what is asked for of each room in `rooms`; None if `rooms` is a list. Only clients
    that know rooms with history send the other form.
    `names`: messages of rooms are to carry the room's name.
    `renews`: the client can send a new token, so the reply is to say when the session expires.
    `session`: the reply is to have the id of the session.
    `retractions`: messages that are cancelled are to be retracted (op 30).
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
    requests: dict[str, RoomRequest] | None = None
    names: bool = False
    renews: bool = False
    session: bool = False
    retractions: bool = False


def parse_auth_body(body: bytes, *, token_only: bool = False) -> AuthBody:
    """Parse imgo's bare token (also as a JSON string), or a JSON object. Never raises.

    Its size is not checked: the decoder refuses a frame above `MAX_AUTH_BODY`.

    `token_only`: ignore an object's other members, as in an open session. `raw` still has them.
    """
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
            return _of_object({"token": value.get("token")} if token_only else value, body)
        if isinstance(value, str):
            token = value
    return AuthBody(token=token, is_bare=True, raw=body)


def _of_object(value: dict[str, Any], raw: bytes) -> AuthBody:
    """Return the members of a JSON auth body. An invalid member counts as absent."""
    read: dict[str, Any] = {}
    mistake = ""
    for name, reader in _READERS.items():
        # null is as if absent, but for `accepts`.
        if name in value and (value[name] is not None or name == "accepts"):
            try:
                read[name] = reader(name, value[name])
            except BadRequest as error:
                mistake = mistake or error.message
    room_list = read.get("rooms", ())
    requests = room_list if isinstance(room_list, dict) else None
    rooms = [*room_list, *read.get("room_id", ())]
    if requests is not None and "room_id" in read:
        mistake = mistake or "'room_id' goes with a list of rooms only."
    if len(rooms) > conf.MAX_ROOMS_PER_SESSION:
        mistake = mistake or f"A session may be in {conf.MAX_ROOMS_PER_SESSION} rooms at most."
        rooms, requests = [], None
    elif len(rooms) > 1:
        rooms = list(dict.fromkeys(rooms))
    return AuthBody(
        token=read.get("token", ""),
        rooms=tuple(rooms),
        requests=requests,
        names=requests is not None or read.get("names", False),
        renews=read.get("renew", False),
        session=read.get("session", False),
        retractions=read.get("retractions", False),
        change_room=rooms[0] if len(rooms) == 1 else "",
        ack=read.get("ack", False),
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


def _rooms(name: str, value: object) -> list[str] | dict[str, RoomRequest]:
    if isinstance(value, dict):
        return {check_name(room, "room"): room_request(request) for room, request in value.items()}
    if not isinstance(value, list):
        raise BadRequest(f"{name!r} must be a list of room names, or an object of rooms.")
    return [check_name(room, "room") for room in value]


def _room(name: str, value: object) -> list[str]:  # noqa: ARG001 - like the others
    return [] if value == "" else [check_name(value, "room")]  # Go encodes no text as ""


def _key(name: str, value: object) -> str:
    return check_name(text, "key") if (text := _text(name, value)) else ""


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise BadRequest(f"{name!r} must be true or false.")
    return value


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise BadRequest(f"{name!r} must be a string.")
    return value


def _number(name: str, value: object) -> int:
    return check_number(0 if value == "" else value, f"{name!r}", lowest=0, highest=INT64_MAX)


def _accepts(name: str, value: object) -> tuple[int, ...]:  # noqa: ARG001 - like the others
    # Go encodes a missing list as null: goim's client takes no ops.
    return check_ops([] if value is None else value)


# Reader of each member that may be wrong, in the order in which mistakes are reported.
_READERS: dict[str, Callable[[str, Any], Any]] = {
    "rooms": _rooms,
    "room_id": _room,
    "token": _text,
    "platform": _text,
    "device": _text,
    "ack": _flag,
    "names": _flag,
    "renew": _flag,
    "session": _flag,
    "retractions": _flag,
    "key": _key,
    "since": _number,
    "accepts": _accepts,
    "mid": _number,
}


def room_request(value: object) -> RoomRequest:
    """Return what a client asks for of one room: `{}`, `{"epoch", "offset"}` or `{"rewind"}`.

    Each may have `"presence": false`.

    Raises `BadRequest`, also for a member that there is not: a mistyped one would cost messages.
    """
    if value is None:
        return RoomRequest()
    if not isinstance(value, dict):
        raise BadRequest("What is asked of a room must be an object.")
    _check_members(value)
    epoch, offset, rewind = value.get("epoch"), value.get("offset"), value.get("rewind")
    presence = value.get("presence", True)
    if not isinstance(presence, bool):
        raise BadRequest("'presence' is true or false.")
    if (epoch is None) != (offset is None):
        raise BadRequest("A position has an epoch and an offset.")
    if rewind is not None:
        if epoch is not None:
            raise BadRequest("Ask for a position or a rewind, not for both.")
        count = check_number(rewind, "rewind", lowest=0, highest=REWIND_MAX)
        return RoomRequest(rewind=count, presence=presence)
    if epoch is None:
        return RoomRequest(presence=presence)
    if not isinstance(epoch, str) or len(epoch) > EPOCH_MAX:
        raise BadRequest(f"An epoch is a string of at most {EPOCH_MAX} characters.")
    number = check_number(offset, "An offset", lowest=0, highest=INT64_MAX)
    return RoomRequest(epoch, number, presence=presence)


def _check_members(value: dict[str, Any]) -> None:
    """Raise `BadRequest` if a member of what is asked of a room is unknown."""
    for name in value:
        if name not in ROOM_MEMBERS and name not in REPLY_MEMBERS:
            allowed = ", ".join(ROOM_MEMBERS)
            raise BadRequest(f"A room has no member {name[:50]!r} here, only {allowed}.")


def check_ops(ops: object) -> tuple[int, ...]:
    """Return the ops that a client accepts. Raises `BadRequest` if `ops` is not a list of ops."""
    if not isinstance(ops, list):
        raise BadRequest("The ops that a session accepts are a list of numbers.")
    return tuple(check_number(op, "An op", lowest=0, highest=INT32_MAX) for op in ops)
