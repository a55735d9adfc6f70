"""What a client knows of who is in a room: the list, its version, what has changed. No I/O."""

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
    """A key that is in a room. `info`: what the key's login says of it."""

    key: str
    info: dict[str, Any] = field(hash=False)


@dataclass(frozen=True)
class Changed(Member):
    """A member whose info is another one. `before`: the one that it had."""

    before: dict[str, Any] = field(hash=False)


class MemberList:
    """The list of one room. It decides what comes of the server's frames.

    A change continues one version of the list. If the list has another version, the list is due:
    it must be asked for again.

    `tell`: gets each event, as its name and its value. `count`: keys in the room; 0: not known.
    `truncated`: there are more than the server lists. `settling`: the server is collecting them.
    `is_due`, `pause`: the list must be asked for, after so many seconds. `is_awaited`: it is.
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
        """The room was joined: ask at once."""
        if not self._version:
            self._ask_in(0.0)

    def lose(self) -> None:
        """The session has ended. What comes in another one does not continue this version."""
        self._version = ""
        self._failures = 0
        self.is_due.clear()

    def end(self) -> None:
        """The room was left or refused."""
        self.lose()
        self._become(None, 0)
        self.is_due.set()  # whoever waits for that looks at the room's state

    def ask_later(self) -> None:
        """Ask, but not in the same moment as others, and less often if it does not help."""
        if not self.is_due.is_set() and not self.is_awaited:
            ceiling = min(RARELY, SOON * 2.0 ** min(self._failures, 10))
            self._failures += 1
            self._ask_in(random.random() * ceiling)  # noqa: S311 - no secret

    def _ask_in(self, seconds: float) -> None:
        self.pause = seconds
        self.is_due.set()

    # What the server sends

    def adopt(self, body: Any) -> None:
        """Take a snapshot, or a change that replaces the list."""
        self.is_awaited = False  # what comes in the same moment is behind it
        members = _members_of(body, "members")
        settling = bool(body.get("settling"))
        self._version = str(body.get("version"))
        self.is_due.clear()
        if settling:
            self._ask_in(SETTLING * (1 + random.random()))  # noqa: S311 - no secret
        self._become(members, _count_of(body), settling=settling)

    def take(self, body: Mapping[str, Any]) -> None:
        """Take a change."""
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
        """Become this list, or only a number; tell what is different.

        While the server collects its data, members may be missing: nobody leaves.
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
        """Returns the events of members. `keep`: those that are not in the new list stay."""
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
    """The members under a name, by key; None if there is no list."""
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
    """Whether what has this version is in what has the other one, too."""
    (epoch, _, number), (ours, _, reached) = version.partition("."), other.partition(".")
    is_number = number.isdecimal() and reached.isdecimal()
    return epoch == ours and is_number and int(number) <= int(reached)
