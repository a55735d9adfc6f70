"""Rooms that the open sessions of a node join and leave."""

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping

from accounts.auth_body import RoomRequest
from imgo_site.errors import Unavailable
from push.bus.group_names import room_group
from push.node import stream_joins
from push.node.hub import Hub
from push.node.stream_joins import StreamJoin
from push.online.room_visits import RoomVisits
from push.presence.node_presence import NodePresence
from push.registry.base import Entry, Registry
from push.session.session import Session

logger = logging.getLogger(__name__)


class RoomMembership:
    """The rooms of a node's sessions, in the hub, the registry and the rooms' presence.

    `entries`: those of the node's sessions, by session id; the node changes them.
    `room_visits`: None if no room has events.
    """

    def __init__(
        self,
        hub: Hub,
        registry: Registry,
        presence: NodePresence,
        entries: Mapping[str, Entry],
        room_visits: RoomVisits | None,
    ) -> None:
        self._hub = hub
        self.registry = registry
        self._presence = presence
        self._entries = entries
        self.room_visits = room_visits

    def record_visits(self, session: Session, rooms: Collection[str]) -> None:
        """Record that a session is in these rooms, for their events, if it was not dismissed."""
        if self.room_visits is not None and session.id in self._entries:
            self.room_visits.entered(session.id, rooms)

    def dismissed(self, session: Session) -> None:
        """Remove a dismissed session from its rooms' presence and events."""
        self._presence.leave(session, session.rooms)
        if self.room_visits is not None:
            self.room_visits.ended(session.id)

    async def join(self, session: Session, room: str) -> None:
        """Add a session to a room; do nothing for a session that was dismissed.

        The client may disconnect at each `await`. `dismiss` then removes the session from the
        rooms that it is in at that moment.

        Raises `Unavailable`; the session is then not in the room.
        """

        async def enter(entry: Entry) -> None:
            await self._hub.join(session, room_group(room))
            await self._register(session, entry, room)

        await self._enter(session, room, enter)

    async def join_stream(
        self,
        session: Session,
        room: str,
        request: RoomRequest,
        send_outcome: Callable[[StreamJoin], None],
    ) -> None:
        """Add a session to a room with history, after it was sent what it asks for.

        `send_outcome`: called once, before any message is sent.

        Raises `Unavailable`, and what the database raises; the session is then not in the room.
        """

        async def enter(entry: Entry) -> None:
            async with stream_joins.joining(self._hub, session, {room: request}) as joins:
                await self._register(session, entry, room)
                send_outcome(joins[room])
                await stream_joins.finish(joins.values(), session.link.drained)

        await self._enter(session, room, enter)

    async def _enter(
        self, session: Session, room: str, enter: Callable[[Entry], Awaitable[None]]
    ) -> None:
        """Add a session to a room by `enter`; remove it if that raises or is cancelled.

        `enter`: not called for a session that was dismissed.
        """
        entry = self._entries.get(session.id)
        if entry is None:
            return
        session.rooms.add(room)
        self._hub.event_ids.joins(session, room)
        try:
            await enter(entry)
        except BaseException:
            await self.leave(session, room)
            raise
        if session.id not in self._entries:
            # The registry may have handled `dismiss` before `_register`.
            await self.registry.leave(entry, room)
        self.record_visits(session, [room])

    async def _register(self, session: Session, entry: Entry, room: str) -> None:
        """Write a room of a session to the registry and to presence, if it was not dismissed."""
        if session.id in self._entries:
            await self.registry.join(entry, [room])
            await self._presence.enter(session, [room])

    async def leave(self, session: Session, room: str) -> None:
        """Remove a session from a room.

        If the registry is unavailable, the session stays in its list of the room for a while.
        """
        session.rooms.discard(room)
        self._hub.leave(session, room_group(room))
        session.drop_held(room)
        self._presence.leave(session, [room])
        self._hub.event_ids.left(session, room)
        if self.room_visits is not None:
            self.room_visits.left(session.id, room)
        entry = self._entries.get(session.id)
        if entry is not None:
            try:
                await self.registry.leave(entry, room)
            except Unavailable as error:
                logger.warning("could not remove a session from a room's list: %s", error)
