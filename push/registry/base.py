"""Who is where: key → sessions and room → sessions across all nodes.

For the cap on sessions of a key, for presence and for counts; never for delivery. It is kept in
memory in the embedded mode and in Redis otherwise, where all of it may be lost: a node that finds
its own entry gone writes everything again. Entries are leases: those of a node that has not
renewed its own for `NODE_LEASE` seconds count for nothing.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

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
class KeyMatches:
    """(key, sessions) of some keys that are connected, in no order.

    `cursor`: where to go on, 0 when there is no more. `examined`: how many keys that took.
    """

    rows: list[tuple[str, int]]
    cursor: int
    examined: int


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
class RoomMatches:
    """(room, sessions) of some rooms that have a session, in no order.

    `cursor`: where the next query continues, "" if it was the last. `examined`: how many names
    were compared; a room counts once for each of its nodes.
    """

    rows: list[tuple[str, int]]
    cursor: str
    examined: int


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

    def find_keys(self, part: str, limit: int, cursor: int = 0) -> KeyMatches:
        """About `limit` of the keys with `part` in their name, from a bounded look at them."""

    def find_rooms(self, part: str, limit: int, cursor: str = "") -> RoomMatches:
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


def fullest(rooms: dict[str, int], limit: int) -> list[tuple[str, int]]:
    """(name, sessions) of the fullest of these rooms, those that are as full by name."""
    return heapq.nsmallest(limit, rooms.items(), key=lambda item: (-item[1], item[0]))
