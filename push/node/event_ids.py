"""Ids of events for sessions with several streams, each in a block of its own.

All sessions of a room get the same bytes for an event. So the event cannot carry the position of
one session in several streams. Such a session gets a separate block that has only an id. The block
dispatches no event, and the client stores its id. The node writes it after the events that it
covers, at most once in `INTERVAL`. A client that reconnects in between gets the messages of that
time again.

Such blocks also cover messages to the key.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from imgo_site.room_policies import policy_of
from push.bus.background_tasks import Background
from push.bus.group_names import room_group
from push.node.coalescer import Coalescer
from push.node.room_stream import written_for_sure
from push.node.streams import Streams
from push.session.event_ids import EventIds, Position
from push.session.session import Session

INTERVAL = 0.1  # seconds
YIELD_AFTER = 250  # blocks written before the event loop gets a turn


class Hub(Protocol):
    """The parts of a hub that the ids need."""

    groups: dict[str, set[Session]]
    coalescers: dict[str, Coalescer]
    background: Background
    streams: Streams
    now: Callable[[], float]


class EventIdWriter:
    """Writer of the blocks with ids, of one node."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        # Sessions that need a block when a message of their room was written, by its group.
        self._by_group: dict[str, set[Session]] = {}
        self._due: set[Session] = set()
        self._is_writing = False

    def begin(
        self, session: Session, places: Mapping[str, Position], resumed: float | None = None
    ) -> bytes:
        """Give a session its ids, before it is sent anything; return the block with the first.

        `places`: its positions in the streams of its rooms. `resumed`: the time of the id with
        which the client reconnected, Unix time, seconds. The first id has it too: the messages
        to the key since then are still to be sent.
        """
        ids = session.event_ids = EventIds()
        ids.rooms.update(places)
        ids.is_inline = len(places) == 1
        session.renew_packet_kind()
        if not ids.is_inline:
            self._watch(session, ids.rooms)
        now = self._hub.now()
        return _block(ids, now if resumed is None else min(resumed, now))

    def end(self, session: Session) -> None:
        """Forget a session that was removed."""
        self._due.discard(session)
        if session.event_ids is not None:
            for room in session.event_ids.rooms:
                self._unwatch(session, room)

    # What changes a session's position

    def wrote(self, group: str) -> None:
        """Write blocks soon: a message of a stream was written to this group."""
        if sessions := self._by_group.get(group):
            self._mark(sessions)

    def moved(self, session: Session) -> None:
        """Write a block soon: the session's position changed, but by no message of a stream."""
        if session.event_ids is not None:
            self._mark((session,))

    def joins(self, session: Session, room: str) -> None:
        """Record that a session joins a room later, whose stream is not resumed.

        Its events must not have the ids of that stream.
        """
        ids = session.event_ids
        if ids is not None and ids.is_inline and policy_of(room).history:
            ids.is_inline = False
            session.renew_packet_kind()
            self._watch(session, ids.rooms)

    def left(self, session: Session, room: str) -> None:
        """Forget the position in a room that a session has left."""
        ids = session.event_ids
        if ids is not None and room in ids.rooms:
            del ids.rooms[room]
            self._unwatch(session, room)
            self._mark((session,))

    def _watch(self, session: Session, rooms: Collection[str]) -> None:
        for room in rooms:
            self._by_group.setdefault(room_group(room), set()).add(session)

    def _unwatch(self, session: Session, room: str) -> None:
        group = room_group(room)
        sessions = self._by_group.get(group)
        if sessions is not None:
            sessions.discard(session)
            if not sessions:
                del self._by_group[group]

    # The blocks

    def _mark(self, sessions: Collection[Session]) -> None:
        self._due.update(sessions)
        if not self._is_writing:
            self._is_writing = True
            self._hub.background.run(self._write_due())

    async def _write_due(self) -> None:
        try:
            while self._due:
                await asyncio.sleep(INTERVAL)
                due, self._due = self._due, set()
                for count, session in enumerate(due, 1):
                    self._write(session)
                    if count % YIELD_AFTER == 0:
                        await asyncio.sleep(0)
        finally:
            self._is_writing = False

    def _write(self, session: Session) -> None:
        if session.is_closed or session.event_ids is None:
            return
        if session.is_held:  # a held message may be one that the block would cover
            self._due.add(session)
            return
        self._advance(session, session.event_ids)
        session.link.write(_block(session.event_ids, self._hub.now()))

    def _advance(self, session: Session, ids: EventIds) -> None:
        """Bring the session's positions up to what its rooms' sessions were written."""
        for room, last in ids.rooms.items():
            group = room_group(room)
            stream = self._hub.streams.of(group)
            if stream is None or session not in self._hub.groups.get(group, ()):
                continue
            offset = written_for_sure(self._hub, stream)
            if stream.epoch != last.epoch or offset > last.offset:
                ids.rooms[room] = Position(stream.epoch, offset)


def _block(ids: EventIds, at: float) -> bytes:
    """Return the block with the id of a time."""
    return b"id: %b\n\n" % ids.text(at)
