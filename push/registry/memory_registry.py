"""The registry in the memory of a process, for the embedded mode and for tests."""

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


class MemoryTables:
    """The entries of all nodes of a process, in plain dicts.

    The API's threads read while the loop's thread writes. Each read first copies a dict in one
    step that the interpreter does not interrupt.
    """

    def __init__(self) -> None:
        self.nodes: dict[str, NodeEntry] = {}
        self.keys: dict[str, dict[str, Entry]] = {}  # key → session id → entry
        self.rooms: dict[str, dict[str, Entry]] = {}
        self.deliveries: dict[str, int] = {}  # by node
        self.waiting: dict[str, Mapping[str, int]] = {}  # node → session id → unsent bytes
        self.forgotten: set[str] = set()  # nodes that must write their entries again
        self.processes: dict[str, ProcessEntry] = {}

    def entries(self) -> list[Entry]:
        """Return the entries of all sessions."""
        of_keys = list(self.keys.values())
        return [entry for of_key in of_keys for entry in list(of_key.values())]

    def remove_sessions(self, node_id: str) -> None:
        """Remove the sessions of a node from their keys and rooms."""
        for table in (self.keys, self.rooms):
            for name, entries in list(table.items()):
                for entry in list(entries.values()):
                    if entry.node == node_id:
                        _discard(table, name, entry.id)


class MemoryRegistry:
    """The registry in memory, for one node or for readers; all of a process share the tables.

    `tables`: None for tables of its own.
    """

    def __init__(self, tables: MemoryTables | None = None) -> None:
        self._tables = MemoryTables() if tables is None else tables
        self._node: NodeEntry | None = None

    async def start(self, node: NodeEntry) -> None:
        """Announce the node."""
        self._node = node
        self._tables.nodes[node.id] = node

    async def stop(self) -> None:
        """Remove the node, its sessions and their rooms."""
        tables = self._tables
        for table in (tables.nodes, tables.deliveries, tables.waiting, tables.processes):
            table.pop(self._id, None)
        tables.forgotten.discard(self._id)
        tables.remove_sessions(self._id)

    def close(self) -> None:
        """Do nothing: there are no connections."""

    async def reconnect(self) -> None:
        """Do nothing: there are no connections."""

    async def renew(
        self,
        sessions: int,  # noqa: ARG002 - counted here
        entries: Iterable[tuple[Entry, set[str]]],
    ) -> None:
        """Write `entries` again after `forget_node`; nothing else loses entries here."""
        if self._id in self._tables.forgotten:
            self._tables.forgotten.discard(self._id)
            for entry, rooms in entries:
                self._keys.setdefault(entry.key, {})[entry.id] = entry
                await self.join(entry, rooms)

    async def report(
        self, deliveries: int, waiting: Mapping[str, int], *, is_draining: bool = False
    ) -> None:
        """Store the figures for readers."""
        tables = self._tables
        tables.nodes[self._id] = replace(tables.nodes[self._id], is_draining=is_draining)
        tables.deliveries[self._id], tables.waiting[self._id] = deliveries, waiting

    def probe(self) -> None:
        """Do nothing: memory is always available."""

    @property
    def _id(self) -> str:
        assert self._node is not None
        return self._node.id

    @property
    def _keys(self) -> dict[str, dict[str, Entry]]:
        return self._tables.keys

    @property
    def _rooms(self) -> dict[str, dict[str, Entry]]:
        return self._tables.rooms

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
        of_nodes = self._tables.waiting
        return [of_nodes.get(entry.node, {}).get(entry.id, 0) for entry in entries]

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
        """Return the number of sessions in each room, without those of the node `besides`."""
        if not self._tables.nodes.keys() - {besides}:
            return [0] * len(rooms)
        members = [list(self._rooms.get(room, {}).values()) for room in rooms]
        return [sum(entry.node != besides for entry in entries) for entries in members]

    def peek(self, room: str, limit: int) -> tuple[int, list[tuple[str, str]]]:
        """Return the number of sessions in a room, and `limit` of them."""
        members = list(self._rooms.get(room, {}).values())
        return len(members), sorted((entry.key, entry.id) for entry in members[:limit])

    def nodes(self) -> list[NodeEntry]:
        """Return the nodes that run in this process, sorted by number."""
        of_nodes: dict[str, list[Entry]] = {name: [] for name in list(self._tables.nodes)}
        for entry in self._tables.entries():
            of_nodes.setdefault(entry.node, []).append(entry)
        nodes = [
            replace(
                node,
                sessions=len(of_nodes.get(node.id, ())),
                deliveries=self._tables.deliveries.get(node.id, 0),
                addresses=len({entry.address for entry in of_nodes.get(node.id, ())}),
            )
            for node in list(self._tables.nodes.values())
        ]
        return sorted(nodes, key=lambda node: node.number)

    def announce_process(self, process: ProcessEntry) -> None:
        """Store the entry of a node's process."""
        self._tables.processes[process.id] = process

    def withdraw_process(self, process_id: str) -> None:
        """Remove an entry."""
        self._tables.processes.pop(process_id, None)

    def processes(self) -> list[ProcessEntry]:
        """Return the entries of nodes that run."""
        nodes = self._tables.nodes
        return [process for process in list(self._tables.processes.values()) if process.id in nodes]

    def forget_node(self, node_id: str) -> None:
        """Remove a node's sessions from the registry; its next renewal writes them again."""
        if node_id in self._tables.nodes:
            self._tables.remove_sessions(node_id)
            self._tables.forgotten.add(node_id)


def _discard(table: dict[str, dict[str, Entry]], name: str, session_id: str) -> None:
    entries = table.get(name)
    if entries is not None:
        entries.pop(session_id, None)
        if not entries:
            del table[name]
