"""Roster: a node's copy of the members of one room, and the frames about it. No I/O.

Two versions matter. `version` is the version of the copy. `sent_version` is the version that was
sent to the sessions last. Snapshots are given only when both are the same. So the next diff
continues each snapshot.
"""

from collections.abc import Mapping
from typing import Any

from push.presence.base import Change, Snapshot
from push.wire import compact_json

EARLY_MAX = 1_000  # changes that may wait for one before them
BYTES_MAX = 262_144  # of the members in one frame; above that they are not listed

NO_INFO = "{}"


def member_json(key: str, info: str) -> bytes:
    """Return one member as clients get it."""
    return b'{"key":%b,"info":%b}' % (compact_json(key), (info or NO_INFO).encode())


class Roster:
    """Copy of one room.

    `limit`: keys above which members are not listed (`PRESENCE_MAX`).
    `epoch`: "" until the first snapshot was adopted. Changes wait until then.
    `members`: key → info; None above the limit.
    """

    __slots__ = (
        "_early",
        "_needs_reset",
        "_size",
        "_touched",
        "count",
        "epoch",
        "expected",
        "is_sent_short",
        "limit",
        "members",
        "number",
        "room",
        "sent_count",
        "sent_version",
    )

    def __init__(self, room: str, limit: int) -> None:
        self.room = room
        self.limit = limit
        self.epoch = ""
        self.number = 0
        self.count = 0
        self.members: dict[str, str] | None = None
        self.sent_version = ""
        self.sent_count = 0
        self._size = 0  # bytes of the members
        # Keys that changed since `sent_version`, and whether each was in the room then.
        self._touched: dict[str, bool] = {}
        self._early: dict[int, Change] = {}  # by number
        self.expected = ("", 0)  # epoch and number that the store is known to have
        self._needs_reset = False  # sessions must get all members
        self.is_sent_short = False  # sessions have no list of members

    @property
    def version(self) -> str:
        """Return the version of the copy."""
        return f"{self.epoch}.{self.number}"

    @property
    def is_short(self) -> bool:
        """Return whether frames have only the number of members."""
        return self.members is None or self.count > self.limit or self._size > BYTES_MAX

    @property
    def needs_members(self) -> bool:
        """Return whether the members must be read: the room has fallen below the limit again."""
        return bool(self.epoch) and self.members is None and self.count <= self.limit

    @property
    def is_behind(self) -> bool:
        """Return whether sessions know another state than the copy."""
        has_no_list = self.is_short or self.is_sent_short
        is_old = self.version != self.sent_version and has_no_list
        return self._needs_reset or bool(self._touched) or is_old

    @property
    def is_due(self) -> bool:
        """Return whether there is a frame to write, now or later."""
        return self.is_behind or (self.is_sent_short and not self.is_short)

    # Changes

    def apply(self, change: Change) -> bool:
        """Apply a change and those that waited for it; return False if one before it is missing."""
        if not self.epoch or (change.epoch == self.epoch and change.number > self.number + 1):
            if len(self._early) < EARLY_MAX:
                self._early[change.number] = change
            return False
        if change.epoch != self.epoch:
            self.expect(change.epoch, change.number)
            return False
        if change.number == self.number + 1:
            self._apply(change)
            self._apply_early()
        return not self._early

    def expect(self, epoch: str, number: int) -> None:
        """Record that the store has this version: the copy must reach it."""
        self.expected = (epoch, number)

    def was_read(self, expected: tuple[str, int]) -> None:
        """Record that the copy was read; `expected`: as it was when the reading began.

        A version of another epoch is then outdated.
        """
        if self.expected == expected and expected[0] != self.epoch:
            self.expected = ("", 0)

    @property
    def is_complete(self) -> bool:
        """Return whether no change is known to be missing."""
        epoch, number = self.expected
        is_reached = not epoch or (epoch == self.epoch and number <= self.number)
        return bool(self.epoch) and is_reached and not self._early

    def _apply_early(self) -> None:
        while (change := self._early.pop(self.number + 1, None)) is not None:
            if change.epoch == self.epoch:
                self._apply(change)
        self._early = {
            number: change
            for number, change in self._early.items()
            if number > self.number and change.epoch == self.epoch
        }

    def _apply(self, change: Change) -> None:
        self.number, self.count = change.number, change.count
        if not change.is_listed or self.members is None or self.count > self.limit:
            self._drop_members()
            return
        for key, info, _ in change.joined:
            self._put(key, info)
        for key in change.left:
            self._remove(key)

    def _drop_members(self) -> None:
        self.members, self._size = None, 0
        self._touched.clear()

    def _put(self, key: str, info: str) -> None:
        assert self.members is not None
        old = self.members.get(key)
        self._touched.setdefault(key, old is not None)
        if old is not None:
            self._size -= len(member_json(key, old))
        self.members[key] = info
        self._size += len(member_json(key, info))

    def _remove(self, key: str) -> None:
        assert self.members is not None
        if (old := self.members.pop(key, None)) is not None:
            self._touched.setdefault(key, True)
            self._size -= len(member_json(key, old))

    def adopt(self, snapshot: Snapshot) -> bool:
        """Take over a snapshot; return False for one that is older than the copy."""
        is_first = not self.epoch
        if snapshot.epoch == self.epoch and snapshot.number < self.number:
            return False
        old, new = self.members, snapshot.members
        self.number, self.count = snapshot.number, snapshot.count
        self.epoch = snapshot.epoch
        if old is not None and new is not None:
            self._become(old, new)
        else:
            self._replace(new)
            self._needs_reset = not is_first and not self.is_sent_short
        if is_first:
            self._tell(self.is_short)
        self._apply_early()
        return True

    def _become(self, old: Mapping[str, str], new: Mapping[str, str]) -> None:
        for key in [key for key in old if key not in new]:
            self._remove(key)
        for key, info in new.items():
            if old.get(key) != info:
                self._put(key, info)

    def _replace(self, members: Mapping[str, str] | None) -> None:
        self._drop_members()
        if members is not None:
            self.members = dict(members)
            self._size = sum(len(member_json(*pair)) for pair in members.items())

    def reset(self) -> None:
        """Have sessions get all members in the next frame."""
        self._needs_reset = True

    # Frames

    def mark_told(self) -> None:
        """Record that nobody must be told what has changed up to now."""
        self._tell(self.is_short)

    def _tell(self, is_short: bool) -> None:
        self.sent_version, self.sent_count = self.version, self.count
        self._touched.clear()
        self._needs_reset = False
        self.is_sent_short = is_short

    def frame(self, *, may_list: bool = True) -> bytes | None:
        """Return the body of the next frame for sessions; None if there is nothing to tell.

        `may_list`: whether sessions that have no list of members may get one now. Until then they
        get counts.
        """
        is_held_back = self.is_sent_short and not may_list and not self._needs_reset
        if self.is_short or is_held_back:
            if self.version == self.sent_version and self.is_sent_short:
                self._needs_reset = False
                return None
            return self._short_frame()
        if self._needs_reset or self.is_sent_short:
            return self._reset_frame()
        return self._diff_frame()

    def _short_frame(self) -> bytes:
        head: dict[str, Any] = {
            "room": self.room,
            "base": self.sent_version,
            "version": self.version,
        }
        self._tell(is_short=True)
        return compact_json({**head, "count": self.count, "truncated": True})

    def _reset_frame(self) -> bytes:
        self._tell(is_short=False)
        return self._listed(b'"reset":true,')

    def _diff_frame(self) -> bytes | None:
        assert self.members is not None
        joined, left = [], []
        for key, was_there in self._touched.items():
            if key in self.members:
                joined.append(member_json(key, self.members[key]))
            elif was_there:
                left.append(key)
        if not joined and not left:
            self._touched.clear()
            return None  # `sent_version` stays: its members are the present ones
        if sum(map(len, joined)) + sum(map(len, left)) > BYTES_MAX:
            return self._reset_frame()
        head = {"room": self.room, "base": self.sent_version, "version": self.version}
        tail = {"left": left, "count": self.count}
        self._tell(is_short=False)
        return b'%b,"joined":[%b],%b' % (
            compact_json(head)[:-1],
            b",".join(joined),
            compact_json(tail)[1:],
        )

    def snapshot(self, *, is_settling: bool = False) -> bytes:
        """Return the reply to op 26: the members as of `sent_version`.

        `is_settling`: say so.
        """
        extra = b'"settling":true,' if is_settling else b""
        if self.is_short:
            head = {"room": self.room, "version": self.sent_version, "count": self.sent_count}
            return b'%b,%b"truncated":true}' % (compact_json(head)[:-1], extra)
        return self._listed(extra)

    def _listed(self, extra: bytes) -> bytes:
        assert self.members is not None
        head = {"room": self.room, "version": self.sent_version, "count": self.count}
        members = b",".join(member_json(*pair) for pair in self.members.items())
        return b'%b,%b"members":[%b]}' % (compact_json(head)[:-1], extra, members)
