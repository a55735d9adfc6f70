"""What a client says of itself in its first frame, or in its request for events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from imgo_client.event_transport import query_of
from imgo_client.frames import size_of
from imgo_client.resumption import Resumption
from imgo_client.rooms import Rooms
from imgo_client.subscriptions import Subscriptions

BODY_MAX = 8_192  # bytes that a server takes, since this frame may name many rooms
QUERY_MAX = 4_000  # bytes; proxies take a request line of 8,192 with all that is in it


def auth_body(
    about: Mapping[str, Any], rooms: Rooms, subscriptions: Subscriptions, max_body: int
) -> dict[str, Any]:
    """The body of the auth frame, with as many rooms as fit. Members without a value are left out.

    `max_body`: bytes; a body that asks for rooms of `Client.room` may have `BODY_MAX`.
    """
    body = {name: said for name, said in about.items() if said}
    asked = subscriptions.requests()
    is_object = bool(asked)
    most = max(BODY_MAX, max_body) if is_object else max_body

    def with_rooms(names: list[str]) -> dict[str, Any]:
        if is_object:
            return {**body, "rooms": {**{room: {} for room in names}, **asked}}
        return {**body, "rooms": names} if names else body

    def fits(names: list[str]) -> bool:
        return size_of(with_rooms(names)) <= most

    names = rooms.ask(fits, others=len(asked))
    while asked and not fits(names):
        asked = dict(list(asked.items())[: len(asked) // 2])
    return with_rooms(names)


def events_body(
    about: Mapping[str, Any], rooms: Rooms, subscriptions: Subscriptions, resumption: Resumption
) -> dict[str, Any]:
    """What the request for events says, as an auth body: with as many rooms as fit.

    `resumption`: decides which rooms of `Client.room` are among them, and is told.
    """
    body = {name: said for name, said in about.items() if said}
    asked = subscriptions.ask(lambda stream: resumption.may_ask(stream, body))

    def with_rooms(names: list[str]) -> dict[str, Any]:
        return {**body, "rooms": [*names, *asked]} if names or asked else body

    def fits(names: list[str]) -> bool:
        return len(urlencode(query_of(with_rooms(names)))) <= QUERY_MAX

    names = rooms.ask(fits, others=len(asked))
    while asked and not fits(names):
        asked = dict(list(asked.items())[: len(asked) // 2])
    resumption.asks(asked.values())
    return with_rooms(names)


def check_token(token: object) -> None:
    """Raise TypeError unless this may be a token."""
    if token is not None and not isinstance(token, str):
        raise TypeError("a token is a string")
