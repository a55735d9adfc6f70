"""The registry in the memory of a single process, for the embedded mode and for tests."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from imgo_site.errors import TooManySessions
from imgo_site.names import INT64_MAX, check_number
from push.registry.base import (
    REFUSED,
    Entry,
    FullestRooms,
    KeyMatches,
    NodeEntry,
    ProcessEntry,
    RoomMatches,
    fullest,
)


class MemoryRegistry:
    """The registry of a single process, in plain dicts.

    The API's threads read while the loop's thread writes. Each read first copies a dict in one
    step that the interpreter does not interrupt.
    """

    def __init__(self) -> None:
        self._node: NodeEntry | None = None
        self._keys: dict[str, dict[str, Entry]] = {}
        self._rooms: dict[str, dict[str, Entry]] = {}
        self._deliveries = 0
        self._waiting: Mapping[str, int] = {}
        self._is_forgotten = False
        self._process: ProcessEntry | None = None

    async def start(self, node: NodeEntry) -> None:
        """Announce the node."""
        self._node = node

    async def stop(self) -> None:
        """Remove the node, its sessions and their rooms."""
        self._node = None
        self._keys.clear()
        self._rooms.clear()

    async def reconnect(self) -> None:
        """Do nothing: there are no connections."""

    async def renew(
        self,
        sessions: int,  # noqa: ARG002 - counted here
        entries: Iterable[tuple[Entry, set[str]]],
    ) -> None:
        """Write `entries` again after `forget_node`; nothing else loses entries here."""
        if self._is_forgotten:
            self._is_forgotten = False
            for entry, rooms in entries:
                self._keys.setdefault(entry.key, {})[entry.id] = entry
                await self.join(entry, rooms)

    async def report(
        self, deliveries: int, waiting: Mapping[str, int], *, is_draining: bool = False
    ) -> None:
        """Store the figures for readers."""
        assert self._node is not None
        self._node = replace(self._node, is_draining=is_draining)
        self._deliveries, self._waiting = deliveries, waiting

    def probe(self) -> None:
        """Do nothing: memory is always available."""

    async def add(self, entry: Entry, cap: int, *, evict: bool) -> list[Entry]:
        """Add a session; at the cap, evict the oldest or raise `TooManySessions`."""
        evicted: list[Entry] = []
        present = self._keys.get(entry.key, {})
        if cap and len(present) >= cap:
            if not evict:
                raise TooManySessions(REFUSED)
            evicted = list(present.values())[: len(present) - cap + 1]
            for oldest in evicted:
                del present[oldest.id]
        self._keys.setdefault(entry.key, {})[entry.id] = entry
        return evicted

    async def remove(self, entry: Entry, rooms: Iterable[str]) -> None:
        """Remove a session from its key and from these rooms."""
        _discard(self._keys, entry.key, entry.id)
        for room in rooms:
            _discard(self._rooms, room, entry.id)

    async def join(self, entry: Entry, rooms: Iterable[str]) -> None:
        """Add a session to rooms."""
        for room in rooms:
            self._rooms.setdefault(room, {})[entry.id] = entry

    async def leave(self, entry: Entry, room: str) -> None:
        """Remove a session from a room."""
        _discard(self._rooms, room, entry.id)

    def sessions(self, key: str) -> list[Entry]:
        """Return the sessions of a key, oldest first."""
        return sorted(self._keys.get(key, {}).copy().values(), key=lambda entry: entry.since)

    def waiting(self, entries: Sequence[Entry]) -> list[int]:
        """Return the unsent bytes of each of these sessions."""
        return [self._waiting.get(entry.id, 0) for entry in entries]

    def rooms(self) -> dict[str, int]:
        """Return room → number of sessions, for every room with a session."""
        return {room: len(members) for room, members in list(self._rooms.items())}

    def fullest_rooms(self, limit: int) -> FullestRooms:
        """Return the fullest rooms. One process has few enough rooms to read all of them."""
        rooms = self.rooms()
        return FullestRooms(len(rooms), False, fullest(rooms, limit))

    def find_keys(self, part: str, limit: int, cursor: int = 0) -> KeyMatches:
        """Return `limit` of the keys with `part` in their name, after the first `cursor`."""
        rows = [(key, len(entries)) for key, entries in list(self._keys.items())]
        matches = [row for row in rows if part in row[0]]
        end = cursor + limit
        return KeyMatches(matches[cursor:end], end if end < len(matches) else 0, len(rows))

    def find_rooms(self, part: str, limit: int, cursor: str = "") -> RoomMatches:
        """Return `limit` of the rooms with `part` in their name, after the first `cursor`."""
        start = check_number(cursor or "0", "The cursor", lowest=0, highest=INT64_MAX)
        rooms = self.rooms()
        matches = sorted(row for row in rooms.items() if part in row[0])
        end = start + limit
        return RoomMatches(matches[start:end], str(end) if end < len(matches) else "", len(rooms))

    def members(self, room: str) -> list[tuple[str, str]]:
        """Return (key, session id) of the sessions in a room, sorted."""
        return sorted((entry.key, entry.id) for entry in list(self._rooms.get(room, {}).values()))

    def sizes(self, rooms: Sequence[str], besides: str = "") -> list[int]:
        """Return the number of sessions in each room; 0 if `besides` is the only node."""
        if self._node is not None and self._node.id == besides:
            return [0] * len(rooms)
        return [len(self._rooms.get(room, ())) for room in rooms]

    def peek(self, room: str, limit: int) -> tuple[int, list[tuple[str, str]]]:
        """Return the number of sessions in a room, and `limit` of them."""
        members = list(self._rooms.get(room, {}).values())
        return len(members), sorted((entry.key, entry.id) for entry in members[:limit])

    def nodes(self) -> list[NodeEntry]:
        """Return the one node, if it runs in this process."""
        if self._node is None:
            return []
        of_keys = list(self._keys.values())
        entries = [entry for of_key in of_keys for entry in list(of_key.values())]
        return [
            replace(
                self._node,
                sessions=len(entries),
                deliveries=self._deliveries,
                addresses=len({entry.address for entry in entries}),
            )
        ]

    def announce_process(self, process: ProcessEntry) -> None:
        """Store the entry of the one process."""
        self._process = process

    def withdraw_process(self, process_id: str) -> None:  # noqa: ARG002
        """Remove the entry of the one process."""
        self._process = None

    def processes(self) -> list[ProcessEntry]:
        """Return the one process, if its node runs."""
        return [self._process] if self._process and self._node else []

    def forget_node(self, node_id: str) -> None:
        """Remove all entries from the registry; the next renewal writes them again."""
        if self._node is not None and self._node.id == node_id:
            self._keys.clear()
            self._rooms.clear()
            self._is_forgotten = True


def _discard(table: dict[str, dict[str, Entry]], name: str, session_id: str) -> None:
    entries = table.get(name)
    if entries is not None:
        entries.pop(session_id, None)
        if not entries:
            del table[name]
