"""The body of a client's auth frame, and the query of its request for events."""

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
    """Return the body of the auth frame, with as many rooms as fit, without empty members.

    `about`: members besides the rooms, such as `token` and `since`. `max_body`: bytes. A body that
    names rooms of `Client.room` may have `BODY_MAX` bytes.
    """
    body = {name: value for name, value in about.items() if value}
    requested = subscriptions.requests()
    is_object = bool(requested)
    most = max(BODY_MAX, max_body) if is_object else max_body

    def with_rooms(names: list[str]) -> dict[str, Any]:
        if is_object:
            return {**body, "rooms": {**{room: {} for room in names}, **requested}}
        return {**body, "rooms": names} if names else body

    def fits(names: list[str]) -> bool:
        return size_of(with_rooms(names)) <= most

    names = rooms.ask(fits, others=len(requested))
    while requested and not fits(names):
        requested = dict(list(requested.items())[: len(requested) // 2])
    return with_rooms(names)


def events_body(
    about: Mapping[str, Any], rooms: Rooms, subscriptions: Subscriptions, resumption: Resumption
) -> dict[str, Any]:
    """Return the members of the request for events, with as many rooms as fit.

    `about`: members besides the rooms. `resumption`: decides which rooms of `Client.room` the
    request may name, and records them.
    """
    body = {name: value for name, value in about.items() if value}
    requested = subscriptions.ask(lambda stream: resumption.may_ask(stream, body))

    def with_rooms(names: list[str]) -> dict[str, Any]:
        return {**body, "rooms": [*names, *requested]} if names or requested else body

    def fits(names: list[str]) -> bool:
        return len(urlencode(query_of(with_rooms(names)))) <= QUERY_MAX

    names = rooms.ask(fits, others=len(requested))
    while requested and not fits(names):
        requested = dict(list(requested.items())[: len(requested) // 2])
    resumption.asks(requested.values())
    return with_rooms(names)


def check_token(token: object) -> None:
    """Raise TypeError unless `token` is a string or None."""
    if token is not None and not isinstance(token, str):
        raise TypeError("a token is a string")
