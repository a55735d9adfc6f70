"""Types of presence, and the interface of its store: which keys are in which rooms, on which nodes.

The unit is the key, not the session. The store holds a set of (room, key, node). A key is in a
room while any node holds it there. Each visible change raises the version of its room by one, and
the store itself sends the change to every node that holds a key of the room.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

DEAD, GONE = "dead", "gone"  # beats of nodes that are being reaped, and of nodes that were stopped
EDIT_MAX = 200  # keys of one edit; bounds the time of a script and the bytes of a change
REAP_MAX = 200  # keys that one call of `reap` removes


class Joined(NamedTuple):
    """A key that joined a room, or whose info changed there (`is_new` False).

    `info`: JSON text of an object.
    """

    key: str
    info: str
    is_new: bool


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a room, from version `number` - 1 to `number` of its epoch.

    `count`: keys in the room after it. `is_listed`: whether `joined` and `left` are complete. They
    are empty in rooms above `PRESENCE_MAX`.
    """

    room: str
    epoch: str
    number: int
    count: int
    is_listed: bool
    joined: Sequence[Joined] = ()
    left: Sequence[str] = ()


class Entered(NamedTuple):
    """A key that a node holds in a room.

    `at`: when its newest session joined, milliseconds by the database's clock. Of the infos of two
    nodes the later one counts. `info`: JSON text of an object.
    """

    key: str
    at: int
    info: str


class Edit(NamedTuple):
    """Keys of one room that a node holds from now on, and keys that it holds no more."""

    room: str
    entered: Sequence[Entered] = ()
    left: Sequence[str] = ()


class EditReply(NamedTuple):
    """Result of an edit.

    `is_refused`: the node has no lease, so nothing was done. `deferred`: keys that would have left
    the room and stay for now, because the store is settling.
    """

    is_refused: bool = False
    deferred: Sequence[str] = ()
    change: Change | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Who is in a room. `members`: key → info; None above `PRESENCE_MAX`.

    `epoch`: "" for a room without a key.
    """

    epoch: str
    number: int
    count: int
    members: Mapping[str, str] | None


class Check(NamedTuple):
    """What the store has of one room: the number of keys that the node holds, and the version.

    `is_whole`: whether the parts of the room agree. They may not if Redis has evicted some.
    """

    held: int
    epoch: str
    number: int
    is_whole: bool = True


class Renewal(NamedTuple):
    """Result of a renewal.

    `is_held`: the lease was still there. If not, the node must write all its keys again, as it must
    in a new generation.
    `generation`: changes if the store has lost everything.
    `is_settling`: some live node may not have written its keys in this generation yet.
    """

    is_held: bool
    generation: str
    is_settling: bool


class Beats(NamedTuple):
    """Node → its latest beat, for every node that holds keys. See `push/presence/reaper.py`."""

    by_node: Mapping[str, str]
    is_settling: bool


@dataclass(frozen=True, slots=True)
class PresencePage:
    """Some members of a room, (key, info) by key, and the number of all."""

    version: str
    count: int
    is_settling: bool
    members: Sequence[tuple[str, str]]

    def parsed(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield each member as (key, info as an object)."""
        for key, info in self.members:
            yield key, json.loads(info or "{}")


class Receiver(Protocol):
    """User of a store, on the event loop of its node."""

    def changed(self, change: Change) -> None:
        """Take a change of a room; ignore it if the node holds no key there."""

    def lost(self) -> None:
        """Write all keys again: the store has lost everything."""

    def settled(self) -> None:
        """Read all rooms again: the store has all keys again after a loss."""

    def regained(self) -> None:
        """Read all rooms again: changes may have been missed."""


class PresenceStore(Protocol):
    """Store of one node. Its methods raise `Unavailable` if the store is unavailable."""

    async def start(self, number: int, receiver: Receiver) -> None:
        """Begin to receive changes. `number`: the node's row in the database."""

    async def stop(self) -> None:
        """Let the node's keys leave after the grace, unless another node holds them by then."""

    async def renew(self) -> Renewal:
        """Beat: renew the node's lease."""

    async def confirm(self, generation: str) -> None:
        """Record that the node has written all its keys in this generation."""

    async def settle(self, generation: str, numbers: Iterable[int]) -> bool:
        """End settling if these nodes have confirmed the generation; return whether it ended."""

    async def edit(self, edits: Sequence[Edit]) -> list[EditReply | Exception]:
        """Carry out edits in order. Each has at most `EDIT_MAX` keys."""

    async def snapshots(self, rooms: Sequence[str]) -> list[Snapshot]:
        """Return who is in these rooms."""

    async def check(self, rooms: Sequence[str]) -> list[Check]:
        """Return what the store has of these rooms."""

    async def held_keys(self, room: str) -> set[str]:
        """Return the keys that the node holds in a room, as the store has them."""

    async def held_rooms(self) -> set[str]:
        """Return the rooms in which the node holds keys, as the store has them."""

    async def beats(self) -> Beats:
        """Return the beats of all nodes."""

    async def condemn(self, node_id: str, beat: str) -> bool:
        """Declare a node dead, if `beat` is still its latest; return whether it is dead."""

    async def rooms_of(self, node_id: str) -> list[str]:
        """Return the rooms in which a node holds keys."""

    async def reap(self, room: str, node_id: str) -> int:
        """Remove up to `REAP_MAX` keys of a dead node from a room; return how many are left.

        It returns -1 if the node is not dead any more, or if the store is settling.
        """

    async def forget(self, node_id: str) -> None:
        """Forget a dead node that holds no key any more."""


class PresenceReader(Protocol):
    """Reader for the API, the dashboard and commands, in any thread. Raises `Unavailable`."""

    def page(self, room: str, window: slice) -> PresencePage:
        """Return the members of a room in this window of all, sorted by key."""

    def close(self) -> None:
        """Close the connections; the next query opens new ones."""
