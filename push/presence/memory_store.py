"""Presence in the memory of a process, for the embedded mode and for tests."""

import asyncio
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from imgo_site.conf import conf
from push.presence.base import (
    DEAD,
    GONE,
    REAP_MAX,
    Beats,
    Change,
    Check,
    Edit,
    EditReply,
    Joined,
    PresencePage,
    Receiver,
    Renewal,
    Snapshot,
)


@dataclass
class _Member:
    """A key in a room. `info`: that of its newest session.

    `nodes`: node → when its newest session there joined, milliseconds, and its info.
    """

    info: str = ""
    nodes: dict[str, tuple[int, str]] = field(default_factory=dict)

    def hold(self, node_id: str, at: int, info: str) -> None:
        """Set the info that a node has of the key; of two of the same time this one counts."""
        others = {name: entry for name, entry in self.nodes.items() if name != node_id}
        self.nodes = {node_id: (at, info), **others}
        self.choose_info()

    def choose_info(self) -> None:
        """Show the info of the newest session that is left."""
        _, self.info = max(self.nodes.values(), key=itemgetter(0))


@dataclass
class _Room:
    """One room; `epoch` and `number` are its version."""

    epoch: str = field(default_factory=lambda: secrets.token_hex(4))
    number: int = 0
    members: dict[str, _Member] = field(default_factory=dict)


class MemoryPresenceTables:
    """Presence of all nodes of a process. Other threads only read."""

    def __init__(self) -> None:
        self.generation = secrets.token_hex(4)
        self.rooms: dict[str, _Room] = {}
        self.beats: dict[str, str] = {}
        # Node → what passes a change to it.
        self.receivers: dict[str, Callable[[Change], None]] = {}

    def held(self, node_id: str) -> list[str]:
        """Return the rooms in which a node holds keys."""
        return [
            name
            for name, room in self.rooms.items()
            if any(node_id in member.nodes for member in room.members.values())
        ]

    def release(self, room: _Room, key: str, node_id: str, joined: list[Joined]) -> bool:
        """Take a node off a key; return whether the key has left the room.

        `joined`: gets the key if it has another info now.
        """
        member = room.members.get(key)
        if member is None or member.nodes.pop(node_id, None) is None:
            return False
        if member.nodes:
            shown = member.info
            member.choose_info()
            if member.info != shown:
                joined.append(Joined(key, member.info, is_new=False))
            return False
        del room.members[key]
        return True

    def announce(
        self, name: str, before: int, joined: Sequence[Joined], left: Sequence[str]
    ) -> Change | None:
        """Raise the version of a room and send the change to its nodes."""
        room = self.rooms[name]
        change = None
        if joined or left:
            room.number += 1
            count = len(room.members)
            is_listed = min(before, count) <= conf.PRESENCE_MAX
            lists = (joined, left) if is_listed else ((), ())
            change = Change(name, room.epoch, room.number, count, is_listed, *lists)
            for receive in list(self.receivers.values()):
                receive(change)  # nodes without a key of the room ignore it
        if not room.members:
            del self.rooms[name]
        return change


class MemoryPresence:
    """Store of one node; all of a process share the tables. `node_id`: the node's."""

    def __init__(self, tables: MemoryPresenceTables, node_id: str) -> None:
        self._tables = tables
        self._id = node_id

    async def start(self, number: int, receiver: Receiver) -> None:  # noqa: ARG002
        """Begin to receive changes."""
        loop = asyncio.get_running_loop()

        def receive(change: Change) -> None:
            loop.call_soon_threadsafe(receiver.changed, change)

        self._tables.receivers[self._id] = receive

    async def stop(self) -> None:
        """Let the node's keys leave after the grace."""
        self._tables.receivers.pop(self._id, None)
        if self._id in self._tables.beats:
            self._tables.beats[self._id] = GONE

    async def renew(self) -> Renewal:
        """Beat: renew the node's lease."""
        is_held = self._tables.beats.get(self._id) not in (None, DEAD, GONE)
        self._tables.beats[self._id] = secrets.token_hex(4)
        return Renewal(is_held, self._tables.generation, False)

    async def confirm(self, generation: str) -> None:
        """Do nothing: memory loses nothing."""

    async def settle(self, generation: str, numbers: Iterable[int]) -> bool:  # noqa: ARG002
        """Return True: memory never settles."""
        return True

    async def edit(self, edits: Sequence[Edit]) -> list[EditReply | Exception]:
        """Carry out edits in order."""
        return [self._edit(edit) for edit in edits]

    def _edit(self, edit: Edit) -> EditReply:
        tables = self._tables
        if tables.beats.get(self._id) in (None, DEAD, GONE):
            return EditReply(is_refused=True)
        room = tables.rooms.setdefault(edit.room, _Room())
        before = len(room.members)
        joined: list[Joined] = []
        for key, at, info in edit.entered:
            is_new = key not in room.members
            member = room.members.setdefault(key, _Member())
            shown = member.info
            member.hold(self._id, at, info)
            if is_new or member.info != shown:
                joined.append(Joined(key, member.info, is_new))
        left = [key for key in edit.left if tables.release(room, key, self._id, joined)]
        return EditReply(change=tables.announce(edit.room, before, joined, left))

    async def snapshots(self, rooms: Sequence[str]) -> list[Snapshot]:
        """Return who is in these rooms."""
        return [self._snapshot(room) for room in rooms]

    def _snapshot(self, name: str) -> Snapshot:
        room = self._tables.rooms.get(name)
        if room is None:
            return Snapshot("", 0, 0, {})
        count = len(room.members)
        members = None
        if count <= conf.PRESENCE_MAX:
            members = {key: member.info for key, member in room.members.items()}
        return Snapshot(room.epoch, room.number, count, members)

    async def check(self, rooms: Sequence[str]) -> list[Check]:
        """Return what the tables have of these rooms."""
        checks = []
        for name in rooms:
            room = self._tables.rooms.get(name)
            held = len(await self.held_keys(name))
            checks.append(Check(held, room.epoch, room.number) if room else Check(0, "", 0))
        return checks

    async def held_keys(self, room: str) -> set[str]:
        """Return the keys that the node holds in a room."""
        table = self._tables.rooms.get(room)
        if table is None:
            return set()
        return {key for key, member in table.members.items() if self._id in member.nodes}

    async def held_rooms(self) -> set[str]:
        """Return the rooms in which the node holds keys."""
        return set(self._tables.held(self._id))

    async def beats(self) -> Beats:
        """Return the beats of all nodes."""
        return Beats(dict(self._tables.beats), False)

    async def condemn(self, node_id: str, beat: str) -> bool:
        """Declare a node dead, if `beat` is still its latest."""
        if self._tables.beats.get(node_id) != beat:
            return False
        self._tables.beats[node_id] = DEAD
        return True

    async def rooms_of(self, node_id: str) -> list[str]:
        """Return the rooms in which a node holds keys."""
        return sorted(self._tables.held(node_id))

    async def reap(self, room: str, node_id: str) -> int:
        """Remove up to `REAP_MAX` keys of a dead node from a room."""
        tables = self._tables
        if tables.beats.get(node_id) != DEAD:
            return -1
        table = tables.rooms.get(room)
        if table is None:
            return 0
        held = [key for key, member in table.members.items() if node_id in member.nodes]
        before = len(table.members)
        joined: list[Joined] = []
        left = [key for key in held[:REAP_MAX] if tables.release(table, key, node_id, joined)]
        tables.announce(room, before, joined, left)
        return max(0, len(held) - REAP_MAX)

    async def forget(self, node_id: str) -> None:
        """Forget a dead node that holds no key any more."""
        if self._tables.beats.get(node_id) == DEAD and not self._tables.held(node_id):
            del self._tables.beats[node_id]


class MemoryPresenceReader:
    """Reader of the tables of this process."""

    def __init__(self, tables: MemoryPresenceTables) -> None:
        self._tables = tables

    def close(self) -> None:
        """Do nothing: there are no connections."""

    def page(self, room: str, window: slice) -> PresencePage:
        """Return the members of a room in this window of all, sorted by key."""
        presence = self._tables.rooms.get(room)
        if presence is None:
            return PresencePage("", 0, False, [])
        infos = {key: member.info for key, member in presence.members.copy().items()}
        rows = sorted(infos.items())[window]
        return PresencePage(f"{presence.epoch}.{presence.number}", len(infos), False, rows)
