"""Endpoints of webhooks as the settings name them, and the types of events."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from imgo_site.conf import conf
from imgo_site.names import matches_pattern
from imgo_site.setting_values import shown
from offline.models import Event
from push.hooks.signature import HOW_TO_MAKE, secret_bytes
from push.hooks.urls import can_be_called

URL_MAX = 500  # characters: fits the column
MEMBERS = ("url", "secret", "events", "keys", "rooms")
ROOM_MARK = "\x02"  # begins a room's name where keys stand: no key has control characters
ANY = "*"


class EventType(StrEnum):
    """Type of an event."""

    RECEIVED = "message.received"
    ACKNOWLEDGED = "message.acknowledged"
    DELIVERED = "message.delivered"
    EXPIRED = "message.expired"
    DROPPED = "message.dropped"
    NOTIFIED = "message.notified"
    NOTIFY_FAILED = "message.notify_failed"
    KEY_ONLINE = "key.online"
    KEY_OFFLINE = "key.offline"
    ROOM_OCCUPIED = "room.occupied"
    ROOM_VACATED = "room.vacated"


# Types by the kind of the event in the table of events.
TYPES_OF_KINDS = {
    str(Event.Kind.RECEIVED): EventType.DELIVERED,
    str(Event.Kind.ACKNOWLEDGED): EventType.ACKNOWLEDGED,
    str(Event.Kind.EXPIRED): EventType.EXPIRED,
    str(Event.Kind.DROPPED): EventType.DROPPED,
    str(Event.Kind.NOTIFIED): EventType.NOTIFIED,
    str(Event.Kind.NOTIFY_FAILED): EventType.NOTIFY_FAILED,
}


@dataclass(frozen=True)
class Endpoint:
    """One entry of `WEBHOOKS`.

    `keys`, `rooms`: patterns, in which `*` stands for any text; `rooms` is for events of rooms.
    """

    url: str
    secrets: tuple[str, ...]
    events: frozenset[str]
    keys: tuple[str, ...]
    rooms: tuple[str, ...]

    def matches(self, event_type: str, key: str) -> bool:
        """Return whether events of this type and key, or marked room, are sent to the endpoint."""
        room = room_of(key)
        patterns, name = (self.keys, key) if room is None else (self.rooms, room)
        return event_type in self.events and any(matches_pattern(p, name) for p in patterns)


def room_of(name: str) -> str | None:
    """Return the room of a marked name; None for a key."""
    return name[len(ROOM_MARK) :] if name.startswith(ROOM_MARK) else None


_read: tuple[Any, tuple[Endpoint, ...]] = (None, ())  # a value of the setting, and its endpoints


def endpoints() -> tuple[Endpoint, ...]:
    """Return the endpoints. Raises what `_endpoint` raises for an entry that the checks refuse."""
    global _read  # noqa: PLW0603 - read once for each value of the setting
    if _read[0] is not conf.WEBHOOKS:
        _read = (conf.WEBHOOKS, tuple(map(_endpoint, conf.WEBHOOKS)))
    return _read[1]


def find(url: str) -> Endpoint | None:
    """Return the endpoint with this URL; None if the settings have none."""
    return next((endpoint for endpoint in endpoints() if endpoint.url == url), None)


def _endpoint(entry: dict[str, Any]) -> Endpoint:
    events = frozenset(map(str, entry["events"]))
    return Endpoint(
        url=str(entry["url"]),
        secrets=tuple(_texts(entry["secret"])),
        events=frozenset(EventType) if ANY in events else events,
        keys=tuple(_texts(entry.get("keys", [ANY]))),
        rooms=tuple(_texts(entry.get("rooms", [ANY]))),
    )


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def problems(entry: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with an entry, and a hint for each. No text contains a secret."""
    for name in entry:
        if name not in MEMBERS:
            yield f"has {shown(name)}, which is no member", f"Members: {', '.join(MEMBERS)}."
    if not _is_url(entry.get("url")):
        yield (
            "has no 'url' that can be called",
            "Use a URL such as https://shop.example.com/imgo/webhook/, without user and password, "
            f"of at most {URL_MAX} characters.",
        )
    yield from _problems_of_secrets(entry.get("secret"))
    yield from _problems_of_events(entry.get("events"))
    for name, example in (("keys", "user-*"), ("rooms", "chat-*")):
        if not _is_list_of_texts(entry.get(name, [ANY])):
            yield f"has '{name}' that are no list of patterns", f'Say which {name}: ["{example}"].'


def _is_url(url: Any) -> bool:
    is_text = isinstance(url, str) and len(url) <= URL_MAX and url.isprintable()
    return is_text and can_be_called(url)


def _problems_of_secrets(value: Any) -> Iterator[tuple[str, str]]:
    advice = f"Make one: {HOW_TO_MAKE}"
    if not isinstance(value, str) and not _is_list_of_texts(value):
        yield "has no 'secret', which is a text or a list of texts", advice
        return
    for number, secret in enumerate(_texts(value), 1):
        try:
            secret_bytes(secret)
        except ValueError as error:  # it does not contain the secret
            yield f"has a 'secret' (number {number}) that {error}", advice


def _problems_of_events(value: Any) -> Iterator[tuple[str, str]]:
    types = [*EventType, ANY]
    if not _is_list_of_texts(value):
        yield "has no 'events', which is a list of types", f"Types: {', '.join(types)}."
        return
    for name in value:
        if name not in types:
            close = difflib.get_close_matches(name, types, n=1)
            hint = f"Did you mean {close[0]}?" if close else f"Types: {', '.join(types)}."
            yield f"has the event {shown(name)}, which is no type", hint


def _is_list_of_texts(value: Any) -> bool:
    """Return whether this is a list of texts that is not empty."""
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)
