"""A client's copy of the members of a room, by versions. Without I/O."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

SOON = 1.0  # seconds: the first request after a change that does not fit comes within
RARELY = 30.0  # seconds: the longest pause, if that does not help
SETTLING = 10.0  # seconds until a list that the server is collecting is asked for again


@dataclass(frozen=True)
class Member:
    """A key that is in a room. `info`: the JSON object from the key's login."""

    key: str
    info: dict[str, Any] = field(hash=False)


@dataclass(frozen=True)
class Changed(Member):
    """A member whose info has changed. `before`: its earlier info."""

    before: dict[str, Any] = field(hash=False)


class MemberList:
    """Members of one room, updated by the server's frames.

    A change continues one version of the list. If it does not continue the version of this list,
    the list must be requested again.

    `tell`: gets the name and the value of each event. `count`: number of keys in the room; 0: not
    known. `truncated`: there are more members than the server lists. `settling`: the server is
    collecting the members. `is_due`, `pause`: the list must be requested, after `pause` seconds.
    `is_awaited`: it was requested.
    """

    def __init__(self, tell: Callable[[str, Any], None]) -> None:
        self.members: dict[str, Member] = {}
        self.count = 0
        self.truncated = False
        self.settling = False
        self.is_due = asyncio.Event()
        self.pause = 0.0
        self.is_awaited = False
        self._tell = tell
        self._is_listed = False  # all members are in it, as of some version
        self._version = ""  # "": no snapshot has come in this session
        self._failures = 0  # requests in a row that did not help

    # When to ask

    def begin(self) -> None:
        """Request the list at once, because the room was joined."""
        if not self._version:
            self._ask_in(0.0)

    def lose(self) -> None:
        """Forget the version, because the session has ended.

        The next session starts with a snapshot.
        """
        self._version = ""
        self._failures = 0
        self.is_due.clear()

    def end(self) -> None:
        """Empty the list, because the room was left or refused."""
        self.lose()
        self._become(None, 0)
        self.is_due.set()  # whoever waits for that looks at the room's state

    def ask_later(self) -> None:
        """Request the list after a random pause, which grows while requests do not help."""
        if not self.is_due.is_set() and not self.is_awaited:
            ceiling = min(RARELY, SOON * 2.0 ** min(self._failures, 10))
            self._failures += 1
            self._ask_in(random.random() * ceiling)  # noqa: S311 - no secret

    def _ask_in(self, seconds: float) -> None:
        self.pause = seconds
        self.is_due.set()

    # What the server sends

    def adopt(self, body: Any) -> None:
        """Apply a snapshot, or a change that replaces the list."""
        self.is_awaited = False  # what comes in the same moment is behind it
        members = _members_of(body, "members")
        settling = bool(body.get("settling"))
        self._version = str(body.get("version"))
        self.is_due.clear()
        if settling:
            self._ask_in(SETTLING * (1 + random.random()))  # noqa: S311 - no secret
        self._become(members, _count_of(body), settling=settling)

    def take(self, body: Mapping[str, Any]) -> None:
        """Apply a change."""
        version = str(body.get("version"))
        if body.get("reset"):
            self.adopt(body)
        elif not self._version:
            return  # the snapshot has it
        elif body.get("base") == self._version:
            self._version = version
            self._failures = 0
            self._apply(body)
        elif not _is_covered(version, self._version):
            self.ask_later()

    def _apply(self, body: Mapping[str, Any]) -> None:
        if body.get("truncated"):
            self._become(None, _count_of(body))
            return
        members = dict(self.members)
        for key in body.get("left", ()):
            members.pop(key, None)
        members.update(_members_of(body, "joined") or {})
        self._become(members, _count_of(body), settling=self.settling)

    def _become(
        self, members: dict[str, Member] | None, count: int, *, settling: bool = False
    ) -> None:
        """Replace the list, or only the count, and emit the differences as events.

        While the server collects its members, some may be missing, so none is removed.
        """
        was_listed, before = self._is_listed, self._state()
        events = self._replace(members or {}, keep=settling and members is not None)
        self._is_listed = members is not None
        self.truncated = members is None and count > 0
        self.settling = settling
        self.count = max(count, len(self.members)) if settling else count
        if was_listed and self._is_listed:  # else nobody has joined or left now
            for event, value in events:
                self._tell(event, value)
        if events or before != self._state():
            self._tell("update", None)

    def _replace(self, members: dict[str, Member], *, keep: bool) -> list[tuple[str, Member]]:
        """Return the events of members. `keep`: keep members that are not in the new list."""
        gone = [] if keep else [key for key in self.members if key not in members]
        events = [("leave", self.members.pop(key)) for key in gone]
        for key, member in members.items():
            old = self.members.get(key)
            if old is None:
                events.append(("join", member))
            elif old.info != member.info:
                events.append(("change", Changed(key, member.info, old.info)))
            self.members[key] = member
        return events

    def _state(self) -> tuple[object, ...]:
        return self._is_listed, self.count, self.truncated, self.settling


def _members_of(body: Mapping[str, Any], name: str) -> dict[str, Member] | None:
    """Return the members under a name, by key; None if there is no list."""
    rows = body.get(name)
    if not isinstance(rows, list):
        return None
    members = [Member(row["key"], row.get("info") or {}) for row in rows if _is_member(row)]
    return {member.key: member for member in members}


def _is_member(row: Any) -> bool:
    return isinstance(row, dict) and isinstance(row.get("key"), str)


def _count_of(body: Mapping[str, Any]) -> int:
    count = body.get("count")
    return count if type(count) is int else 0


def _is_covered(version: str, other: str) -> bool:
    """Return whether a state of the first version is contained in one of the other version."""
    (epoch, _, number), (ours, _, reached) = version.partition("."), other.partition(".")
    is_number = number.isdecimal() and reached.isdecimal()
    return epoch == ours and is_number and int(number) <= int(reached)
