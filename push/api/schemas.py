"""Types of the API's requests, which msgspec decodes and checks in one step.

`Raw` keeps a pushed body as the bytes that were sent. A client receives them unchanged, with their
numbers, spaces and order of names.
"""

from typing import Annotated, Any, Literal, TypeVar

from msgspec import DecodeError, Raw, Struct, ValidationError, json

from accounts.models import TOKEN_MAX
from imgo_site.errors import BadRequest
from imgo_site.names import INT32_MAX, INT64_MAX, NAME_MAX, check_number
from offline.models import COLLAPSE_KEY_MAX, EXCLUDE_MAX
from push.accept.accept import SESSION_ID, Push
from push.accept.send_times import read_send_at
from push.api.device_requests import NotifyRequest
from push.api.hints import NO_CONTROL, schema_hints
from push.wire import FIRST_OWN_OP, Op

T = TypeVar("T")

EXPIRES_MAX = 10 * 366 * 86_400  # seconds


# An integer of JSON Schema, for which 5.0 is an integer. `check_number` converts it to an int.
Integer = int | float
# The rules of `check_name`.
NAME = {"minLength": 1, "maxLength": NAME_MAX, "pattern": NO_CONTROL}
Name = Annotated[str, schema_hints(**NAME)]
# The rules of `check_join` for a name, except that it also refuses the dashboard's room.
NO_PATTERN = r"^[^\u0000-\u001f\u007f*]*$"
# The rules of `Token.objects.issue` for the text of a token.
TOKEN = {"maxLength": TOKEN_MAX, "pattern": NO_CONTROL}


class Target(Struct, forbid_unknown_fields=True):
    """Whom a push is for: exactly one of these."""

    key: Name | None = None
    keys: Annotated[list[Name], schema_hints("See MAX_KEYS for how many.", minItems=1)] | None = (
        None
    )
    room: Name | None = None
    all: Annotated[bool, schema_hints("Everyone who is connected.", enum=[True])] | None = None


EXACTLY_ONE = [
    {"required": ["key"], "properties": {"key": {"type": "string"}}},
    {"required": ["keys"], "properties": {"keys": {"type": "array"}}},
    {"required": ["room"], "properties": {"room": {"type": "string"}}},
    {"required": ["all"], "properties": {"all": {"type": "boolean"}}},
]


class PushRequest(Struct, forbid_unknown_fields=True):
    """One push: to whom it goes, its body, and how long it is kept."""

    to: Annotated[Target, schema_hints(oneOf=EXACTLY_ONE)]
    body: Annotated[
        Raw,
        schema_hints(
            "Any JSON value. Clients receive the very bytes; see MAX_BODY for how many at most."
        ),
    ]
    op: Annotated[
        Integer,
        schema_hints(
            f"{int(Op.MESSAGE)}, or {FIRST_OWN_OP} and more: clients tell messages apart by it.",
            anyOf=[
                {"const": int(Op.MESSAGE)},
                {"minimum": FIRST_OWN_OP, "maximum": INT32_MAX},
            ],
        ),
    ] = 5
    ttl: (
        Annotated[
            Integer,
            schema_hints(
                "Seconds that it may wait for its keys; TTL.", minimum=1, maximum="MAX_TTL"
            ),
        ]
        | None
    ) = None
    store: Annotated[
        Literal["always", "never"],
        schema_hints("Kept for keys that are not there, or not. Rooms and all are never kept."),
    ] = "always"
    dedupe_id: (
        Annotated[
            Name, schema_hints("A second push with the same one is answered with the first's id.")
        ]
        | None
    ) = None
    ensure: Annotated[
        bool,
        schema_hints("A push to a room or to all waits for a busy node; others are not dropped."),
    ] = False
    send_at: (
        Annotated[
            int | float | str,
            schema_hints(
                "When it is due: a time with a zone, or seconds from now. A time in the past is "
                "now. `ttl` counts from then.",
                anyOf=[
                    {"type": "number", "minimum": 0, "maximum": "MAX_DELAY"},
                    {"type": "string", "format": "date-time"},
                ],
            ),
        ]
        | None
    ) = None
    exclude: Annotated[
        list[Annotated[str, schema_hints(pattern=f"^{SESSION_ID.pattern}$")]],
        schema_hints(
            "Ids of sessions that do not get it, such as the sender's own; not for all.",
            maxItems=EXCLUDE_MAX,
        ),
    ] = []

    collapse_key: (
        Annotated[
            str,
            schema_hints(
                "It replaces older pushes with the same one to the same key or room.",
                **{**NAME, "maxLength": COLLAPSE_KEY_MAX},
            ),
        ]
        | None
    ) = None
    version: (
        Annotated[
            Integer,
            schema_hints(
                "Of the collapse key: a push with a lower one than the last is dropped as stale.",
                minimum=0,
                maximum=INT64_MAX,
            ),
        ]
        | None
    ) = None
    notify: NotifyRequest | None = None
    notify_after: (
        Annotated[
            int | float,
            schema_hints(
                "Seconds after which devices are notified, if it is still pending; NOTIFY_AFTER.",
                minimum=0,
                maximum="MAX_TTL",
            ),
        ]
        | None
    ) = None

    def as_push(self) -> Push:
        """Return the push that this requests. Raises `BadRequest` or `TooLarge`."""
        targets = [
            name for name in ("key", "keys", "room", "all") if getattr(self.to, name) is not None
        ]
        if len(targets) != 1 or self.to.all is False:
            raise BadRequest("'to' must name exactly one of key, keys, room, or all: true.")
        keys = [self.to.key] if self.to.key is not None else self.to.keys
        if keys == [] or self.to.room == "" or self.to.key == "":
            raise BadRequest(f"'to.{targets[0]}' is empty.")
        if self.dedupe_id == "":
            raise BadRequest("'dedupe_id' is empty.")
        if self.collapse_key == "":
            raise BadRequest("'collapse_key' is empty.")
        return Push(
            body=utf8(bytes(self.body)),
            keys=tuple(keys or ()),
            room=self.to.room or "",
            to_all=bool(self.to.all),
            op=whole(self.op, "op"),
            ttl=None if self.ttl is None else whole(self.ttl, "ttl"),
            store=self.store == "always",
            dedupe_id=self.dedupe_id or "",
            ensure=self.ensure,
            send_at=read_send_at(self.send_at),
            exclude=tuple(self.exclude),
            collapse_key=self.collapse_key or "",
            version=None if self.version is None else whole(self.version, "version"),
            notify=self.notify.as_notify() if self.notify else None,
            notify_after=self.notify_after,
        )


class ManyRequest(Struct):
    """imgo's body of /1/pushs."""

    u: Annotated[
        list[Annotated[Integer, schema_hints(minimum=0, maximum=INT64_MAX)]],
        schema_hints("Ids of users; see MAX_KEYS for how many."),
    ]
    m: Annotated[Raw, schema_hints("The message, any JSON value.")]


class TokenRequest(Struct, forbid_unknown_fields=True):
    """A token to make. `expires_in`: seconds; `rooms`: names or `*` patterns; `join`: names.

    `info`: an object.
    """

    key: Name
    token: Annotated[str, schema_hints("A text of your own; made here when empty.", **TOKEN)] = ""
    expires_in: (
        Annotated[Integer, schema_hints("Seconds; null: never.", minimum=1, maximum=EXPIRES_MAX)]
        | None
    ) = None
    rooms: (
        Annotated[list[Name], schema_hints("Names or `*` patterns; null: the default.")] | None
    ) = None
    join: (
        Annotated[
            list[Annotated[str, schema_hints(**{**NAME, "pattern": NO_PATTERN})]],
            schema_hints(
                "Rooms that its sessions are in from the start, at most MAX_ROOMS_PER_SESSION; "
                "null: none.",
                maxItems="MAX_ROOMS_PER_SESSION",
            ),
        ]
        | None
    ) = None
    info: (
        Annotated[
            dict[str, Any],
            schema_hints(
                "What others in a room with presence see of the key, at most PRESENCE_INFO_MAX "
                "bytes; null: nothing."
            ),
        ]
        | None
    ) = None

    @property
    def seconds(self) -> int | None:
        """Return `expires_in` as an int, None for never. Raises `BadRequest` for other values."""
        if self.expires_in is None:
            return None
        return check_number(self.expires_in, "expires_in", lowest=1, highest=EXPIRES_MAX)


def whole(value: Integer, what: str) -> int:
    """Return a whole number as an int; the caller checks its range.

    Raises `BadRequest` for a fraction such as 1.5.
    """
    if isinstance(value, float) and not value.is_integer():
        raise BadRequest(f"{what} must be a whole number, not {value}.")
    return int(value)


def utf8(data: bytes) -> bytes:
    """Return `data` if it is UTF-8. msgspec does not check the inside of a `Raw`.

    Raises `BadRequest` if it is not UTF-8.
    """
    try:
        data.decode()
    except UnicodeDecodeError:
        raise BadRequest("The request must be UTF-8.") from None
    return data


def read(data: bytes | Raw, kind: type[T]) -> T:
    """Decode JSON as `kind`. Raises `BadRequest` that names the place of the error."""
    try:
        return json.decode(data, type=kind)
    except ValidationError as error:
        raise BadRequest(str(error)) from None
    except (DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"The request is not valid JSON: {error}") from None
    except RecursionError:
        raise BadRequest("The request is nested too deeply.") from None
