"""Nodes that consist of their presence only, and sessions on them."""

import asyncio
import itertools
import json
from typing import Any

from accounts.identity import Identity
from push.bus.background_tasks import Background
from push.node.coalescer import write_to_all
from push.presence.base import PresenceStore
from push.presence.node_presence import NodePresence
from push.session.outgoing import Kind
from push.session.session import Session, Written
from push.wire import Op
from tests.push.presence.client import Picture
from tests.push.sessions import KeptKeeper, KeptLink, frames

ROOM = "chat-1"
SECONDS = itertools.count(1)


class Holder:
    """The sessions of a node."""

    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self.background = Background("a test")
        self.now = lambda: float(next(SECONDS))  # two sessions never join at the same time


class PresenceNode:
    """A node without anything else. It has no rounds by itself.

    `numbers`: rows of the nodes that the database knows as live.
    """

    def __init__(self, name: str, number: int, store: PresenceStore, numbers: set[int]) -> None:
        self.name = name
        self.number = number
        self.holder = Holder()
        written = Written()

        async def live() -> set[int]:
            return numbers

        self.numbers = numbers
        self.presence = NodePresence(
            self.holder,
            name,
            store,
            lambda sessions, notice: write_to_all(sessions, notice, written),
            live,
        )
        self._count = 0

    async def start(self) -> None:
        self.numbers.add(self.number)
        await self.presence.start(self.number)

    async def join(
        self,
        key: str,
        room: str = ROOM,
        info: dict[str, Any] | None = None,
        *,
        watches: bool = True,
        kind: Kind = Kind.TEXT,
    ) -> Session:
        """A session that has joined the room."""
        self._count += 1
        identity = Identity(key, info=info)
        link = KeptLink()
        session = Session(f"{self.name}-{self._count}", identity, kind, link, KeptKeeper([]))
        link.session = session
        self.holder.sessions[session.id] = session
        session.rooms.add(room)
        await self.presence.enter(session, [room])
        if watches:
            self.presence.watch(session, room)
        return session

    def leave(self, session: Session) -> None:
        """End a session."""
        self.holder.sessions.pop(session.id, None)
        self.presence.leave(session, session.rooms)

    async def picture(self, room: str = ROOM) -> dict[str, Any]:
        """The reply to op 26."""
        return json.loads(await self.presence.snapshot(room))

    async def keys(self, room: str = ROOM) -> list[str]:
        return sorted(row["key"] for row in (await self.picture(room))["members"])

    def kill(self) -> None:
        """End the node as kill -9 does: it says nothing to anybody."""
        presence = self.presence
        presence.is_on = False
        for task in presence.background.tasks:
            task.cancel()
        if presence._grace_timer is not None:
            presence._grace_timer.cancel()
        for local in presence.rooms.values():
            local.close()


def diffs(session: Session) -> list[dict[str, Any]]:
    """The bodies of op 28 that a session was written."""
    return [json.loads(f.body) for f in frames(session) if f.op == Op.PRESENCE_DIFF]


class Watcher:
    """A session with its picture of the room."""

    def __init__(self, node: PresenceNode, session: Session) -> None:
        self.node = node
        self.session = session
        self.picture = Picture()
        self._read = 0

    @classmethod
    async def join(cls, node: PresenceNode, key: str, room: str = ROOM) -> "Watcher":
        """Join a room and ask who is in it."""
        found = cls(node, await node.join(key, room))
        body = await node.presence.snapshot(room)
        found._read = len(diffs(found.session))  # those before the snapshot
        found.picture.snapshot(body)
        return found

    def catch_up(self) -> Picture:
        """Take the diffs that were written since."""
        bodies = diffs(self.session)
        for value in bodies[self._read :]:
            self.picture.diff(json.dumps(value).encode())
        self._read = len(bodies)
        return self.picture


async def rounds(*nodes: PresenceNode) -> None:
    """One round of each node."""
    await asyncio.gather(*(node.presence.round() for node in nodes))
