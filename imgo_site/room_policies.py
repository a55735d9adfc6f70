"""Policies of rooms, from the setting `ROOMS`.

`ROOMS` maps patterns to policies, and the first pattern that matches a name decides. A room that no
pattern matches has the default policy: it is live only.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any

from imgo_site.conf import conf
from imgo_site.errors import BadRequest
from imgo_site.names import DASHBOARD_ROOM, check_name, matches_pattern
from imgo_site.setting_values import shown

HISTORY_MAX = 100_000  # messages that a room may keep
DAY = 86_400
YEAR = 366 * DAY
CACHED = 10_000  # rooms whose policy is remembered
NOBODY, MEMBERS_ONLY = "nobody", "members"
PUBLISHERS = (NOBODY, MEMBERS_ONLY)


@dataclass(frozen=True, slots=True)
class RoomPolicy:
    """Policy of the rooms whose names match a pattern.

    `history`: messages that the room's stream keeps; 0: the room has no stream.
    `history_ttl`: seconds that it keeps them.
    `rewind_max`: messages that a session may ask for when it joins; None: `history`.
    `max_sessions`: sessions that may be in the room at once, roughly; 0: any number.
    `client_publish`: whose sessions may publish to the room: one of `PUBLISHERS`.
    `presence`: sessions in the room may ask which keys are in it.
    `presence_events`: sessions that know rooms are sent the changes; None: as `presence`.
    """

    pattern: str = ""
    history: int = 0
    history_ttl: int = DAY
    rewind_max: int | None = None
    max_sessions: int = 0
    client_publish: str = NOBODY
    presence: bool = False
    presence_events: bool | None = None

    @property
    def events(self) -> bool:
        """Whether sessions are sent the changes of who is in the room."""
        return self.presence if self.presence_events is None else self.presence_events

    @property
    def rewind(self) -> int:
        """Messages that a session may ask for when it joins."""
        return self.history if self.rewind_max is None else min(self.rewind_max, self.history)


DEFAULT = RoomPolicy()
MEMBERS = tuple(item.name for item in fields(RoomPolicy) if item.name != "pattern")

# Lowest and highest value of each number.
_LIMITS = {
    "history": (0, HISTORY_MAX),
    "history_ttl": (1, YEAR),
    "rewind_max": (0, HISTORY_MAX),
    "max_sessions": (0, 10_000_000),
}
_SWITCHES = ("presence", "presence_events")


def policy_of(room: str) -> RoomPolicy:
    """Return the policy of a room."""
    if not conf.ROOMS or room == DASHBOARD_ROOM:
        return DEFAULT
    return _find(_Setting(conf.ROOMS), room)


def has_presence() -> bool:
    """Return whether any policy has presence."""
    return bool(conf.ROOMS) and _has_presence(_Setting(conf.ROOMS))


def has_history() -> bool:
    """Return whether any policy has history."""
    return any(policy.history for policy in policies())


def as_row(policy: RoomPolicy) -> dict[str, Any]:
    """Return a policy as a JSON object, for commands and pages."""
    row = asdict(policy)
    return {**row, "rewind_max": policy.rewind, "presence_events": policy.events}


def policies() -> list[RoomPolicy]:
    """Return all policies, in the order in which they are tried."""
    return [RoomPolicy(pattern, **entry) for pattern, entry in conf.ROOMS.items()]


class _Setting:
    """One value of the setting as a key of the cache: equal only to the same object."""

    __slots__ = ("value",)

    def __init__(self, value: Mapping[str, Any]) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Setting) and other.value is self.value


@lru_cache(maxsize=4)
def _has_presence(setting: _Setting) -> bool:
    entries = setting.value.values()
    return any(isinstance(entry, Mapping) and entry.get("presence") is True for entry in entries)


@lru_cache(maxsize=CACHED)
def _find(setting: _Setting, room: str) -> RoomPolicy:
    for pattern, entry in setting.value.items():
        if matches_pattern(pattern, room):
            return RoomPolicy(pattern, **entry)
    return DEFAULT


def problems(pattern: object, entry: object) -> Iterator[tuple[str, str]]:
    """Yield (problem, hint) for each mistake in one entry of `ROOMS`."""
    try:
        check_name(pattern, "pattern")
    except BadRequest as error:
        yield (
            f"is wrong: {error.message.rstrip('.')}",
            'Name a room, or a pattern such as "chat-*".',
        )
        return
    if not isinstance(entry, Mapping):
        yield (f"is {shown(entry)}, which is no policy", 'Write {"history": 100}.')
        return
    for name in entry:
        if name not in MEMBERS:
            yield (f"has the unknown member {name!r}", f"A policy has: {', '.join(MEMBERS)}.")
    for name, (lowest, highest) in _LIMITS.items():
        if name in entry and not _is_number(entry[name], lowest, highest):
            hint = f"Give a whole number from {lowest} to {highest}."
            yield (f"has {name}={shown(entry[name])}", hint)
    if entry.get("client_publish", NOBODY) not in PUBLISHERS:
        hint = f"It is one of: {', '.join(PUBLISHERS)}."
        yield (f"has client_publish={shown(entry['client_publish'])}", hint)
    yield from _problems_of_presence(entry)


def _problems_of_presence(entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in _SWITCHES:
        if name in entry and not isinstance(entry[name], bool):
            yield (
                f"has {name}={shown(entry[name])}",
                "It is True or False, in JSON true or false.",
            )
    if entry.get("presence_events") is True and entry.get("presence") is not True:
        yield ("has presence_events without presence", 'Add "presence": True.')


def members_without_effect(entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (text, hint) for each member without effect in an entry of `ROOMS` that can work."""
    history = entry.get("history", 0)
    if not history:
        for name in ("history_ttl", "rewind_max"):
            if name in entry:
                hint = f"Give the policy a history, or remove {name}."
                yield (
                    f"has {name}={entry[name]} without history: the room keeps no messages",
                    hint,
                )
    elif entry.get("rewind_max", 0) > history:
        text = f"has rewind_max={entry['rewind_max']}, above history={history}"
        hint = f"Lower rewind_max to {history}, or raise history."
        yield (f"{text}: the room keeps only {history} messages", hint)


def _is_number(value: object, lowest: int, highest: int) -> bool:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return is_whole and lowest <= value <= highest  # type: ignore[operator]
