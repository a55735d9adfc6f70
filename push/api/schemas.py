"""What requests of our API look like: msgspec reads and checks them in one step.

`Raw` keeps a pushed body as the very bytes that were sent, so that a client receives what the
caller wrote: numbers, spaces and the order of names included.
"""

from typing import Annotated, Literal, TypeVar

from msgspec import DecodeError, Meta, Raw, Struct, ValidationError, json

from imgo_site.errors import BadRequest
from imgo_site.names import INT64_MAX
from push.services import Push

T = TypeVar("T")

Count = Annotated[int, Meta(ge=0, le=INT64_MAX)]


class Target(Struct, forbid_unknown_fields=True):
    """Whom a push is for: exactly one of these."""

    key: str | None = None
    keys: list[str] | None = None
    room: str | None = None
    all: bool | None = None


class PushRequest(Struct, forbid_unknown_fields=True):
    """One push."""

    to: Target
    body: Raw
    op: Count = 5
    ttl: Count | None = None
    store: Literal["always", "never"] = "always"
    dedupe_id: str | None = None
    ensure: bool = False

    def as_push(self) -> Push:
        """The push that this asks for, checked. Raises `BadRequest` or `TooLarge`."""
        named = [
            name for name in ("key", "keys", "room", "all") if getattr(self.to, name) is not None
        ]
        if len(named) != 1 or self.to.all is False:
            raise BadRequest("'to' must name exactly one of key, keys, room, or all: true.")
        keys = [self.to.key] if self.to.key is not None else self.to.keys
        if keys == [] or self.to.room == "" or self.to.key == "":
            raise BadRequest(f"'to.{named[0]}' is empty.")
        if self.dedupe_id == "":
            raise BadRequest("'dedupe_id' is empty.")
        push = Push(
            body=utf8(bytes(self.body)),
            keys=tuple(keys or ()),
            room=self.to.room or "",
            to_all=bool(self.to.all),
            op=self.op,
            ttl=self.ttl,
            store=self.store == "always",
            dedupe_id=self.dedupe_id or "",
            ensure=self.ensure,
        )
        push.check()
        return push


class ManyRequest(Struct):
    """imgo's body of /1/pushs."""

    u: list[int]
    m: Raw


class TokenRequest(Struct, forbid_unknown_fields=True):
    """A token to make. `expires_in`: seconds; `rooms`: names or `*` patterns."""

    key: str
    token: str = ""
    expires_in: Annotated[int, Meta(ge=1, le=10 * 366 * 86_400)] | None = None
    rooms: list[str] | None = None


def utf8(data: bytes) -> bytes:
    """`data` if it is UTF-8; raises `BadRequest`. msgspec does not look inside a `Raw`."""
    try:
        data.decode()
    except UnicodeDecodeError:
        raise BadRequest("The request must be UTF-8.") from None
    return data


def read(data: bytes | Raw, kind: type[T]) -> T:
    """`data`, JSON, as `kind`. Raises `BadRequest` that says where it went wrong."""
    try:
        return json.decode(data, type=kind)
    except ValidationError as error:
        raise BadRequest(str(error)) from None
    except (DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"The request is not valid JSON: {error}") from None
    except RecursionError:
        raise BadRequest("The request is nested too deeply.") from None
