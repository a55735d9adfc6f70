"""Keys of one node: the number of sessions of each, and the changes that are not stored yet.

Only for keys that match `EVENT_KEYS`, and for rooms that match `EVENT_ROOMS`, as marked names. A
key is in the database from its first session on, until it has been without a session for
`PRESENCE_GRACE`. No I/O: `push/online/online_keys.py` writes.
"""

from collections.abc import Mapping
from typing import NamedTuple

from accounts.staff import is_dashboard_key
from imgo_site.conf import conf
from imgo_site.names import DASHBOARD_ROOM, matches_pattern
from push.session.session_records import SessionEvent
from push.webhooks.endpoints import room_of

# Seconds after the grace until a key is removed. A key that has come back in time, at another node,
# is in the database by then: that node writes it within `WRITE_EVERY`.
MARGIN = 1.0


def _is_counted(name: str) -> bool:
    """Return whether a key, or a marked room, has events."""
    room = room_of(name)
    if room is not None:
        return room != DASHBOARD_ROOM and any(matches_pattern(p, room) for p in conf.EVENT_ROOMS)
    return not is_dashboard_key(name) and any(matches_pattern(p, name) for p in conf.EVENT_KEYS)


class Gone(NamedTuple):
    """A key without a session. `due`: when it is removed, monotonic seconds."""

    due: float
    event: SessionEvent


class LocalKeys:
    """Keys of one node. For one thread."""

    def __init__(self) -> None:
        self._sessions: dict[str, int] = {}  # key → open sessions, at least one
        self._written: set[str] = set()  # keys that are in the database, or are being inserted
        self._new: dict[str, SessionEvent] = {}  # keys to insert, with an opening
        self._gone: dict[str, Gone] = {}  # keys without a session that are not removed, by `due`

    def opened(self, key: str, event: SessionEvent) -> None:
        """Count a session that was opened."""
        count = self._sessions.get(key)
        if count is not None:
            self._sessions[key] = count + 1
        elif _is_counted(key):
            self._sessions[key] = 1
            self._gone.pop(key, None)
            if key not in self._written:
                self._new.setdefault(key, event)

    def closed(self, key: str, event: SessionEvent, now: float) -> None:
        """Count a session that has ended. `now`: monotonic seconds."""
        count = self._sessions.get(key)
        if count is None:
            return
        if count > 1:
            self._sessions[key] = count - 1
        else:
            del self._sessions[key]
            self._gone[key] = Gone(now + conf.PRESENCE_GRACE + MARGIN, event)

    def take_new(self, limit: int) -> dict[str, SessionEvent]:
        """Return up to `limit` keys to insert, each with an opening.

        If they cannot be inserted, call `put_back_new`.
        """
        keys = list(self._new)[:limit]
        self._written.update(keys)
        return {key: self._new.pop(key) for key in keys}

    def put_back_new(self, events: Mapping[str, SessionEvent]) -> None:
        """Insert keys later that could not be inserted."""
        self._written.difference_update(events)
        self._new = {**events, **self._new}

    def take_gone(self, limit: int, now: float) -> dict[str, Gone]:
        """Return up to `limit` keys to remove. Insert all new ones before.

        If they cannot be removed, call `put_back_gone`.
        """
        keys: list[str] = []
        for key, gone in self._gone.items():
            if gone.due > now or len(keys) == limit:
                break
            keys.append(key)
        # A key that comes back now is inserted again, after it was removed.
        self._written.difference_update(keys)
        return {key: self._gone.pop(key) for key in keys}

    def put_back_gone(self, gone: Mapping[str, Gone]) -> None:
        """Remove keys later that could not be removed, or may have been, unless they are back."""
        present = self._sessions.keys() | self._gone.keys()
        left = {key: closing for key, closing in gone.items() if key not in present}
        self._written.update(key for key in left if key not in self._new)
        self._gone = {**left, **self._gone}

    def insert_all_again(self, openings: Mapping[str, SessionEvent], now: float) -> None:
        """Insert all keys under another lease, without those that are due to be removed.

        `openings`: of each key that has a session, one session's opening.
        """
        due = [key for key, gone in self._gone.items() if gone.due <= now and key in self._written]
        for key in due:
            del self._gone[key]
        last = {key: gone.event for key, gone in self._gone.items()}
        for key in self._written.difference(due):
            if event := openings.get(key) or last.get(key):
                self._new.setdefault(key, event)
        self._written.clear()

    @property
    def unwritten(self) -> int:
        """Return the number of keys that the database does not know yet."""
        return len(self._new)
