"""Interface of the registry: key → sessions and room → sessions across all nodes.

It serves the cap on sessions of a key, presence and counts, never delivery. It is in memory in
the embedded mode, else in Redis, where all of it may be lost. A node that finds its own entry
missing writes all its entries again. Entries are leases: readers ignore the entries of a node
that has not renewed its lease for `NODE_LEASE` seconds.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from push.hooks.figures import HookFigures

PROCESS_LEASE = 20.0  # seconds that an entry of a process lasts without renewal
REFUSED = "This key has as many sessions as it may have."


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One session in the registry. `since`: when it opened, Unix time in seconds."""

    id: str
    key: str
    node: str
    transport: str
    address: str
    platform: str
    since: float


@dataclass(frozen=True, slots=True)
class NodeEntry:
    """One live node.

    `number`: imgo's server id.
    `since`: when it started, Unix time in seconds.
    `address`: an address at which clients reach only this node; "" if there is none.
    `addresses`: number of distinct client addresses of its sessions.
    """

    id: str
    name: str
    number: int
    since: float
    sessions: int = 0
    deliveries: int = 0  # messages written to sessions since it started, once for each session
    address: str = ""
    addresses: int = 0
    is_draining: bool = False  # accepts no more sessions


@dataclass(frozen=True, slots=True)
class FullestRooms:
    """Number of rooms with sessions, and (name, sessions) of the fullest rooms, fullest first.

    With several nodes and many rooms the count is an estimate, at most some per cent off.
    """

    count: int
    is_estimate: bool
    rows: list[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class KeyMatches:
    """(key, sessions) of some connected keys, in no order.

    `cursor`: where the next query continues, 0 if this was the last.
    `examined`: number of keys that were compared.
    """

    rows: list[tuple[str, int]]
    cursor: int
    examined: int


class Tally(msgspec.Struct, frozen=True):
    """Counters of a process since it started.

    `drops`: messages that were not delivered.
    `refusals`: connections and HTTP requests that were refused.
    `client_closes`, `server_closes`: sessions that the client, or the server, ended.
    """

    drops: int = 0
    refusals: int = 0
    client_closes: int = 0
    server_closes: int = 0


class ProcessEntry(msgspec.Struct, frozen=True):
    """One live process.

    `kind`: node, api, worker, or supervisor of workers.
    `since`: when it started, Unix time in seconds.
    `partitions`: the partitions whose tasks a worker runs.
    `hooks`: a node's figures, by hook.
    """

    id: str
    kind: str
    name: str
    since: float
    partitions: tuple[int, ...] = ()
    tally: Tally = Tally()
    hooks: dict[str, HookFigures] = {}


@dataclass(frozen=True, slots=True)
class RoomMatches:
    """(room, sessions) of some rooms that have a session, in no order.

    `cursor`: where the next query continues, "" if this was the last.
    `examined`: number of names that were compared; a room counts once for each of its nodes.
    """

    rows: list[tuple[str, int]]
    cursor: str
    examined: int


class Registry(Protocol):
    """Interface of a registry. A node awaits the writes on its loop; the API reads in any thread.

    A registry in Redis raises `Unavailable` if Redis is unavailable.
    """

    async def start(self, node: NodeEntry) -> None:
        """Announce the node."""

    async def stop(self) -> None:
        """Remove the node and all that it wrote."""

    def close(self) -> None:
        """Close the connections of readers; the next query opens new ones."""

    async def reconnect(self) -> None:
        """Drop connections that may be dead."""

    async def renew(self, sessions: int, entries: Iterable[tuple[Entry, set[str]]]) -> None:
        """Renew the lease; if it was lost, write `entries` (session, rooms) again.

        `sessions`: number of sessions that were added and not removed.
        """

    async def report(
        self, deliveries: int, waiting: Mapping[str, int], *, is_draining: bool = False
    ) -> None:
        """Report the number of messages that the node has written to sessions since it started.

        `waiting`: session id → unsent bytes, for sessions that have any.
        """

    async def add(self, entry: Entry, cap: int, *, evict: bool) -> list[Entry]:
        """Add a session. Return the evicted sessions of its key, which the caller must close.

        `cap`: how many sessions the key may have, 0 for no cap.
        `evict`: at the cap, remove the oldest sessions of the key.

        Raises `TooManySessions` at the cap, without `evict`.
        """

    async def remove(self, entry: Entry, rooms: Iterable[str]) -> None:
        """Remove a session from its key and from these rooms."""

    async def join(self, entry: Entry, rooms: Iterable[str]) -> None:
        """Add a session to rooms."""

    async def leave(self, entry: Entry, room: str) -> None:
        """Remove a session from a room."""

    def probe(self) -> None:
        """Write as a login does, and publish as a push does, to check that both work."""

    def sessions(self, key: str) -> list[Entry]:
        """Return the sessions of a key, oldest first."""

    def waiting(self, entries: Sequence[Entry]) -> list[int]:
        """Return the unsent bytes of each of these sessions, as last reported by their nodes."""

    def rooms(self) -> dict[str, int]:
        """Return room → number of sessions, for every room with a session."""

    def fullest_rooms(self, limit: int) -> FullestRooms:
        """Return the fullest rooms, without reading all rooms."""

    def find_keys(self, part: str, limit: int, cursor: int = 0) -> KeyMatches:
        """Return about `limit` of the keys with `part` in their name, from a bounded query.

        `cursor`: that of the previous result, 0 for the first query.
        """

    def find_rooms(self, part: str, limit: int, cursor: str = "") -> RoomMatches:
        """Return about `limit` of the rooms with `part` in their name, from a bounded query.

        `cursor`: that of the previous result, "" for the first query.

        Raises `BadRequest` for a malformed cursor.
        """

    def members(self, room: str) -> list[tuple[str, str]]:
        """Return (key, session id) of the sessions in a room, sorted."""

    def sizes(self, rooms: Sequence[str], besides: str = "") -> list[int]:
        """Return the number of sessions in each room, without those of the node `besides`."""

    def peek(self, room: str, limit: int) -> tuple[int, list[tuple[str, str]]]:
        """Return the number of sessions in a room, and about `limit` rows as of `members`."""

    def nodes(self) -> list[NodeEntry]:
        """Return the live nodes, sorted by number."""

    def announce_process(self, process: ProcessEntry) -> None:
        """Write the entry of a process, which expires after `PROCESS_LEASE` seconds."""

    def withdraw_process(self, process_id: str) -> None:
        """Remove the entry of a process that ends."""

    def processes(self) -> list[ProcessEntry]:
        """Return the live processes, sorted by kind and name."""

    def forget_node(self, node_id: str) -> None:
        """Remove all entries of a node; a live node writes its entries again."""


def fullest(rooms: dict[str, int], limit: int) -> list[tuple[str, int]]:
    """Return (name, sessions) of the fullest of these rooms; equally full ones by name."""
    return heapq.nsmallest(limit, rooms.items(), key=lambda item: (-item[1], item[0]))
