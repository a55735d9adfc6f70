"""Sessions of one node in the rooms whose occupation is an event (`EVENT_ROOMS`).

A room is counted as a key is: its first session makes it occupied, and it is vacated when it has
been without a session for `PRESENCE_GRACE`. Its name is marked, so that it is not taken for a key.
"""

from collections.abc import Callable, Iterable, Iterator

from push.online.online_keys import OnlineKeys
from push.session.session_records import SessionEvent
from push.webhooks.endpoints import ROOM_MARK


class RoomVisits:
    """Rooms of one node's sessions. `now`: returns the database's Unix time in seconds."""

    def __init__(self, online: OnlineKeys, node: str, now: Callable[[], float]) -> None:
        self._online = online
        self._node = node
        self._now = now
        self._rooms: dict[str, set[str]] = {}  # by session id

    def entered(self, session_id: str, rooms: Iterable[str]) -> None:
        """Count a session in these rooms, unless it is counted in them."""
        present = self._rooms.setdefault(session_id, set())
        for room in set(rooms) - present:
            present.add(room)
            self._online.opened(ROOM_MARK + room, self._event())

    def left(self, session_id: str, room: str) -> None:
        """Count a session no more in a room."""
        if room in self._rooms.get(session_id, ()):
            self._rooms[session_id].remove(room)
            self._online.closed(ROOM_MARK + room, self._event())

    def ended(self, session_id: str) -> None:
        """Count a session no more in any room."""
        for room in self._rooms.pop(session_id, ()):
            self._online.closed(ROOM_MARK + room, self._event())

    def openings(self) -> Iterator[tuple[str, SessionEvent]]:
        """Yield the marked name of each room that has a session."""
        event = self._event()
        for room in set().union(*self._rooms.values()):
            yield ROOM_MARK + room, event

    def _event(self) -> SessionEvent:
        return SessionEvent(self._now(), self._node, "", "")
