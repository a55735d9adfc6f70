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
    """The registry of a single process: plain dicts.

    The API's threads read while the loop's thread writes: each read takes one copy of a dict in
    one step, which the interpreter does not interrupt.
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
        """Forget the node, its sessions and their rooms."""
        self._node = None
        self._keys.clear()
        self._rooms.clear()

    async def reconnect(self) -> None:
        """There are none."""

    async def renew(
        self,
        sessions: int,  # noqa: ARG002 - counted here
        entries: Iterable[tuple[Entry, set[str]]],
    ) -> None:
        """Nothing here is ever lost, unless `forget_node` was called."""
        if self._is_forgotten:
            self._is_forgotten = False
            for entry, rooms in entries:
                self._keys.setdefault(entry.key, {})[entry.id] = entry
                await self.join(entry, rooms)

    async def report(
        self, deliveries: int, waiting: Mapping[str, int], *, is_draining: bool = False
    ) -> None:
        """Keep the figures for who asks."""
        assert self._node is not None
        self._node = replace(self._node, is_draining=is_draining)
        self._deliveries, self._waiting = deliveries, waiting

    def probe(self) -> None:
        """Do nothing: nothing can be in the way."""

    async def add(self, entry: Entry, cap: int, *, evict: bool) -> list[Entry]:
        """Count a session in, or raise `TooManySessions`, or make room for it."""
        evicted: list[Entry] = []
        there = self._keys.get(entry.key, {})
        if cap and len(there) >= cap:
            if not evict:
                raise TooManySessions(REFUSED)
            evicted = list(there.values())[: len(there) - cap + 1]
            for oldest in evicted:
                del there[oldest.id]
        self._keys.setdefault(entry.key, {})[entry.id] = entry
        return evicted

    async def remove(self, entry: Entry, rooms: Iterable[str]) -> None:
        """Take a session out, and out of its rooms."""
        _discard(self._keys, entry.key, entry.id)
        for room in rooms:
            _discard(self._rooms, room, entry.id)

    async def join(self, entry: Entry, rooms: Iterable[str]) -> None:
        """Count a session into rooms."""
        for room in rooms:
            self._rooms.setdefault(room, {})[entry.id] = entry

    async def leave(self, entry: Entry, room: str) -> None:
        """Take a session out of a room."""
        _discard(self._rooms, room, entry.id)

    def sessions(self, key: str) -> list[Entry]:
        """The sessions of a key, oldest first."""
        return sorted(self._keys.get(key, {}).copy().values(), key=lambda entry: entry.since)

    def waiting(self, entries: Sequence[Entry]) -> list[int]:
        """The bytes that wait for each of these sessions."""
        return [self._waiting.get(entry.id, 0) for entry in entries]

    def rooms(self) -> dict[str, int]:
        """Every room with somebody in it, and how many sessions that is."""
        return {room: len(members) for room, members in list(self._rooms.items())}

    def fullest_rooms(self, limit: int) -> FullestRooms:
        """The fullest rooms: of one process, all of them can be looked at."""
        found = self.rooms()
        return FullestRooms(len(found), False, fullest(found, limit))

    def find_keys(self, part: str, limit: int, cursor: int = 0) -> KeyMatches:
        """`limit` of the keys with `part` in their name, after the first `cursor`."""
        rows = [(key, len(there)) for key, there in list(self._keys.items())]
        found = [row for row in rows if part in row[0]]
        end = cursor + limit
        return KeyMatches(found[cursor:end], end if end < len(found) else 0, len(rows))

    def find_rooms(self, part: str, limit: int, cursor: str = "") -> RoomMatches:
        """Return `limit` of the rooms with `part` in their name, after the first `cursor`."""
        start = check_number(cursor or "0", "The cursor", lowest=0, highest=INT64_MAX)
        rooms = self.rooms()
        found = sorted(row for row in rooms.items() if part in row[0])
        end = start + limit
        return RoomMatches(found[start:end], str(end) if end < len(found) else "", len(rooms))

    def members(self, room: str) -> list[tuple[str, str]]:
        """(key, session id) of the sessions in a room, in order."""
        return sorted((entry.key, entry.id) for entry in list(self._rooms.get(room, {}).values()))

    def sizes(self, rooms: Sequence[str], besides: str = "") -> list[int]:
        """How many sessions are in each of these rooms: without those of the one node, none."""
        if self._node is not None and self._node.id == besides:
            return [0] * len(rooms)
        return [len(self._rooms.get(room, ())) for room in rooms]

    def peek(self, room: str, limit: int) -> tuple[int, list[tuple[str, str]]]:
        """How many sessions are in a room, and `limit` of them."""
        members = list(self._rooms.get(room, {}).values())
        return len(members), sorted((entry.key, entry.id) for entry in members[:limit])

    def nodes(self) -> list[NodeEntry]:
        """The one node, if it runs in this process."""
        if self._node is None:
            return []
        entries = [entry for there in list(self._keys.values()) for entry in list(there.values())]
        return [
            replace(
                self._node,
                sessions=len(entries),
                deliveries=self._deliveries,
                addresses=len({entry.address for entry in entries}),
            )
        ]

    def announce_process(self, process: ProcessEntry) -> None:
        """Keep the entry of the one process."""
        self._process = process

    def withdraw_process(self, process_id: str) -> None:  # noqa: ARG002
        """Forget the one process."""
        self._process = None

    def processes(self) -> list[ProcessEntry]:
        """Return the one process, if its node runs."""
        return [self._process] if self._process and self._node else []

    def forget_node(self, node_id: str) -> None:
        """Drop everything, as far as the registry goes; the next renewal writes it again."""
        if self._node is not None and self._node.id == node_id:
            self._keys.clear()
            self._rooms.clear()
            self._is_forgotten = True


def _discard(table: dict[str, dict[str, Entry]], name: str, session_id: str) -> None:
    there = table.get(name)
    if there is not None:
        there.pop(session_id, None)
        if not there:
            del table[name]
