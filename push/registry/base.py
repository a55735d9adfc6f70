"""Who is where: key → sessions and room → sessions across all nodes.

For the cap on sessions of a key, for presence and for counts; never for delivery. It is kept in
memory in the embedded mode and in Redis otherwise, where all of it may be lost: a node that finds
its own entry gone writes everything again. Entries are leases: those of a node that has not
renewed its own for `NODE_LEASE` seconds count for nothing.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol

import msgspec

from imgo_site.deployment import redis_url
from imgo_site.errors import TooManySessions
from imgo_site.names import INT64_MAX, check_number

PROCESS_LEASE = 20.0  # seconds that an entry of a process stays without renewal
REFUSED = "This key has as many sessions as it may have."


@dataclass(frozen=True, slots=True)
class Entry:
    """One session as the registry shows it. `since` is Unix time in seconds."""

    id: str
    key: str
    node: str
    transport: str
    address: str
    platform: str
    since: float


@dataclass(frozen=True, slots=True)
class NodeEntry:
    """One live node. `number` is imgo's server id.

    `address`: where clients reach it alone. `addresses`: how many its sessions come from.
    """

    id: str
    name: str
    number: int
    since: float
    sessions: int = 0
    deliveries: int = 0  # messages written to sessions since it started, each session counted
    address: str = ""
    addresses: int = 0
    is_draining: bool = False  # takes no more sessions


@dataclass(frozen=True, slots=True)
class FullestRooms:
    """How many rooms have somebody in them, and (name, sessions) of the fullest, fullest first.

    Of several nodes with many rooms the count is an estimate, some per cent off at most.
    """

    count: int
    is_estimate: bool
    rows: list[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class SomeKeys:
    """(key, sessions) of some keys that are connected, in no order.

    `cursor`: where to go on, 0 when there is no more. `looked_at`: how many keys that took.
    """

    rows: list[tuple[str, int]]
    cursor: int
    looked_at: int


class Tally(msgspec.Struct, frozen=True):
    """What a process has counted since it started.

    `drops`: messages that were not delivered. `refusals`: connections and HTTP requests that were
    refused. `client_closes`, `server_closes`: sessions that have ended, by who ended them.
    """

    drops: int = 0
    refusals: int = 0
    client_closes: int = 0
    server_closes: int = 0


class ProcessEntry(msgspec.Struct, frozen=True):
    """One live process. `kind`: node, api, worker, or supervisor of workers.

    `since`: Unix time, seconds. `partitions`: those that a worker takes tasks of.
    """

    id: str
    kind: str
    name: str
    since: float
    partitions: tuple[int, ...] = ()
    tally: Tally = Tally()


@dataclass(frozen=True, slots=True)
class SomeRooms:
    """(room, sessions) of some rooms that have a session, in no order.

    `cursor`: where the next query continues, "" if it was the last. `looked_at`: how many names
    were compared; a room counts once for each of its nodes.
    """

    rows: list[tuple[str, int]]
    cursor: str
    looked_at: int


class Registry(Protocol):
    """What a node writes (awaited on its loop) and what the API reads (from any thread)."""

    async def start(self, node: NodeEntry) -> None:
        """Announce the node."""

    async def stop(self) -> None:
        """Take the node and all that it wrote out again."""

    async def reconnect(self) -> None:
        """Drop connections that may be dead."""

    async def renew(self, sessions: int, entries: Iterable[tuple[Entry, set[str]]]) -> None:
        """Renew the lease; if it was lost, write `entries` (session, rooms) again.

        `sessions`: how many were added and not removed.
        """

    async def report(
        self, deliveries: int, waiting: Mapping[str, int], *, is_draining: bool = False
    ) -> None:
        """Say how many messages the node has written to sessions since it started.

        `waiting`: bytes by session, for those for which some wait.
        """

    async def add(self, entry: Entry, cap: int, *, evict: bool) -> list[Entry]:
        """Count a session in.

        With a `cap` above 0 and that many sessions of the key: raises `TooManySessions`, or with
        `evict` takes the oldest out and returns them, for the caller to close.
        """

    async def remove(self, entry: Entry, rooms: Iterable[str]) -> None:
        """Take a session out, and out of its rooms."""

    async def join(self, entry: Entry, rooms: Iterable[str]) -> None:
        """Count a session into rooms."""

    async def leave(self, entry: Entry, room: str) -> None:
        """Take a session out of a room."""

    def probe(self) -> None:
        """Write as a login does, and publish as a push does. Raises `Unavailable`."""

    def sessions(self, key: str) -> list[Entry]:
        """The sessions of a key, oldest first."""

    def waiting(self, entries: Sequence[Entry]) -> list[int]:
        """The bytes that wait for each of these sessions, as their nodes said last."""

    def rooms(self) -> dict[str, int]:
        """Every room with somebody in it, and how many sessions that is."""

    def fullest_rooms(self, limit: int) -> FullestRooms:
        """The fullest rooms, without a look at all of them."""

    def some_keys(self, part: str, limit: int, cursor: int = 0) -> SomeKeys:
        """About `limit` of the keys with `part` in their name, from a bounded look at them."""

    def some_rooms(self, part: str, limit: int, cursor: str = "") -> SomeRooms:
        """Return about `limit` of the rooms with `part` in their name, from a bounded query.

        `cursor`: that of the answer before. Raises `Unavailable`; `BadRequest` for a cursor that
        no answer had.
        """

    def members(self, room: str) -> list[tuple[str, str]]:
        """(key, session id) of the sessions in a room, in order."""

    def sizes(self, rooms: Sequence[str], besides: str = "") -> list[int]:
        """How many sessions are in each of these rooms, without those of the node `besides`."""

    def peek(self, room: str, limit: int) -> tuple[int, list[tuple[str, str]]]:
        """How many sessions are in a room, and about `limit` of them as `members` has them."""

    def nodes(self) -> list[NodeEntry]:
        """The live nodes, in order of their numbers."""

    def announce_process(self, process: ProcessEntry) -> None:
        """Write the entry of a process, for `PROCESS_LEASE` seconds. Raises `Unavailable`."""

    def withdraw_process(self, process_id: str) -> None:
        """Take the entry of a process that ends out. Raises `Unavailable`."""

    def processes(self) -> list[ProcessEntry]:
        """Return the live processes by kind and name. Raises `Unavailable`."""

    def forget_node(self, node_id: str) -> None:
        """Drop what a node has written; a node that is alive writes it again."""


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

    def some_keys(self, part: str, limit: int, cursor: int = 0) -> SomeKeys:
        """`limit` of the keys with `part` in their name, after the first `cursor`."""
        rows = [(key, len(there)) for key, there in list(self._keys.items())]
        found = [row for row in rows if part in row[0]]
        end = cursor + limit
        return SomeKeys(found[cursor:end], end if end < len(found) else 0, len(rows))

    def some_rooms(self, part: str, limit: int, cursor: str = "") -> SomeRooms:
        """Return `limit` of the rooms with `part` in their name, after the first `cursor`."""
        start = check_number(cursor or "0", "The cursor", lowest=0, highest=INT64_MAX)
        rooms = self.rooms()
        found = sorted(row for row in rooms.items() if part in row[0])
        end = start + limit
        return SomeRooms(found[start:end], str(end) if end < len(found) else "", len(rooms))

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


def fullest(rooms: dict[str, int], limit: int) -> list[tuple[str, int]]:
    """(name, sessions) of the fullest of these rooms, those that are as full by name."""
    return heapq.nsmallest(limit, rooms.items(), key=lambda item: (-item[1], item[0]))


def _discard(table: dict[str, dict[str, Entry]], name: str, session_id: str) -> None:
    there = table.get(name)
    if there is not None:
        there.pop(session_id, None)
        if not there:
            del table[name]


@lru_cache(maxsize=1)
def get_registry() -> Registry:
    """The registry of this setup: Redis's with `REDIS_URL`, else this process's own."""
    if url := redis_url():
        from push.registry.redis_registry import RedisRegistry

        return RedisRegistry(url)
    return MemoryRegistry()
