"""Presence of one node: which keys its sessions have in rooms, and its copies of those rooms.

A key joins a room with its first session here and leaves it `PRESENCE_GRACE` after its last one, so
a reload is no event. The store joins the nodes: it knows whether another node holds the key too.

The node gets all changes of its rooms and keeps a copy of each (`roster.py`). It answers op 26 from
the copy, and writes diffs of it (`diff_writer.py`). A copy that misses a change is read again, once
for all sessions.

While the store is *settling* after a loss, copies stay as they were, and no key leaves.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Protocol

from imgo_site.conf import conf
from imgo_site.errors import Unavailable
from imgo_site.room_policies import has_presence, policy_of
from push.bus.background_tasks import Background
from push.metrics import definitions as metrics
from push.presence.base import Change, Check, PresenceStore, Snapshot
from push.presence.diff_writer import DiffWriter, Write
from push.presence.local_room import LocalMember, LocalRoom
from push.presence.reaper import BeatWatch, Reaper
from push.presence.writer import PresenceWriter
from push.session.session import Session

logger = logging.getLogger(__name__)

BEATS_PER_LEASE = 6  # a busy node may miss several
CHECKS_PER_LEASE = 3
ROUND = 1.0  # seconds between two rounds, at most
GAP_PATIENCE = 0.5  # seconds that a missing change may take to arrive
TOLD_TIMEOUT = 5.0  # seconds that a reply to op 26 waits for what comes before it
CHECKED_TOGETHER = 500  # rooms
UNKNOWN = "Who is in the room is not known now; ask again."


class SessionHolder(Protocol):
    """The parts of a hub that presence uses."""

    sessions: dict[str, Session]
    background: Background
    now: Callable[[], float]


class NodePresence:
    """Presence of one node.

    `live_numbers`: returns the rows of the live nodes in the database.
    """

    def __init__(
        self,
        hub: SessionHolder,
        node_id: str,
        store: PresenceStore,
        write: Write,
        live_numbers: Callable[[], Awaitable[Iterable[int]]],
    ) -> None:
        self.store = store
        self.rooms: dict[str, LocalRoom] = {}
        self.background = hub.background
        self.is_on = False  # a policy has presence, and the store was started
        self.is_settling = False
        self.every = min(ROUND, conf.NODE_LEASE / BEATS_PER_LEASE)  # seconds between two rounds
        self._hub = hub
        self._live_numbers = live_numbers
        self._writer = PresenceWriter(self)
        self._diffs = DiffWriter(write, hub.background)
        watch = BeatWatch(node_id, conf.NODE_LEASE, conf.PRESENCE_GRACE, self.every)
        self._reaper = Reaper(store, watch)
        self._generation = ""
        self._unconfirmed = False  # not all keys were written in this generation yet
        # (when it is over: monotonic seconds, room, key) of keys without a session, in order.
        self._graces: deque[tuple[float, str, str]] = deque()
        self._grace_timer: asyncio.TimerHandle | None = None
        self._next_beat = self._next_check = 0.0  # monotonic seconds

    async def start(self, number: int) -> None:
        """Start if a policy has presence. `number`: the node's row. Raises `Unavailable`."""
        if has_presence():
            await self.store.start(number, self)
            self.is_on = True
            await self.round()

    async def stop(self) -> None:
        """Let the node's keys leave after the grace, unless they come back elsewhere."""
        if not self.is_on:
            return
        self.is_on = False
        if self._grace_timer is not None:
            self._grace_timer.cancel()
        await self._writer.stop()
        for local in self.rooms.values():
            local.close()
        metrics.PRESENCE_KEYS.dec(sum(len(local.members) for local in self.rooms.values()))
        self.rooms.clear()
        await self.store.stop()

    # Sessions

    async def enter(self, session: Session, rooms: Collection[str]) -> None:
        """Make a session's key present in those of these rooms that have presence.

        Do nothing for a session that has gone, or has left the room. Raises `Unavailable`.
        """
        if not self.is_on:
            return
        for room in [room for room in rooms if policy_of(room).presence]:
            if self._hub.sessions.get(session.id) is session and room in session.rooms:
                self._add(session, room)
        for room in rooms:
            if room in self.rooms:
                await self._writer.until_written(room, session.key)

    def _add(self, session: Session, room: str) -> None:
        local = self.rooms.get(room)
        if local is None:
            local = self.rooms[room] = LocalRoom(room, conf.PRESENCE_MAX)
        member = local.members.get(session.key)
        if member is None:
            member = local.members[session.key] = LocalMember()
            metrics.PRESENCE_KEYS.inc()
        member.add(session, int(self._hub.now() * 1000))
        self._writer.mark(room, [session.key])

    def renew_info(self, session: Session) -> None:
        """Show the info of a session's new identity."""
        for room in session.rooms:
            local = self.rooms.get(room)
            member = local.members.get(session.key) if local is not None else None
            if member is not None and session in member.sessions:
                self._add(session, room)
                self._writer.begin()

    def watch(self, session: Session, room: str) -> None:
        """Write diffs of a room to a session, if its policy has events."""
        local = self.rooms.get(room)
        if local is not None and room in session.rooms and policy_of(room).events:
            local.watchers.add(session)

    def leave(self, session: Session, rooms: Iterable[str]) -> None:
        """Record that a session has left these rooms; its key leaves them after the grace."""
        if self.is_on:
            for room in rooms:
                if (local := self.rooms.get(room)) is not None:
                    self._leave(session, local)

    def _leave(self, session: Session, local: LocalRoom) -> None:
        local.watchers.discard(session)
        if not local.watchers:
            self._diffs.schedule(local)
        member = local.members.get(session.key)
        if member is None or session not in member.sessions:
            return
        was_newest = member.sessions.pop(session) == member.at
        if was_newest or not member.sessions:
            loop = asyncio.get_running_loop()
            member.left_at = loop.time()
            over = member.left_at + conf.PRESENCE_GRACE
            self._graces.append((over, local.room, session.key))
            if self._grace_timer is None:
                self._grace_timer = loop.call_at(over, self._end_graces)

    def _end_graces(self) -> None:
        self._grace_timer = None
        loop = asyncio.get_running_loop()
        while self._graces and self._graces[0][0] <= loop.time():
            _, room, key = self._graces.popleft()
            self._end_grace(room, key, loop.time() - conf.PRESENCE_GRACE)
        if self._graces:
            self._grace_timer = loop.call_at(self._graces[0][0], self._end_graces)
        self._writer.begin()

    def _end_grace(self, room: str, key: str, latest: float) -> None:
        """Remove a key whose last session left by `latest`: monotonic seconds.

        A key whose newest session left gets the info of the newest that is left.
        """
        local = self.rooms.get(room)
        member = local.members.get(key) if local is not None else None
        if local is None or member is None or member.left_at > latest:
            return
        if not member.sessions:
            del local.members[key]
            metrics.PRESENCE_KEYS.dec()
        elif not member.fall_back():
            return
        self._writer.mark(room, [key])

    def drop_if_empty(self, room: str) -> None:
        """Forget a room in which the node holds no key."""
        local = self.rooms.get(room)
        if local is not None and not (local.members or local.deferred or self._writer.has(room)):
            local.close()
            del self.rooms[room]

    async def snapshot(self, room: str) -> bytes:
        """Return the reply to op 26 about a room that a session here is in.

        It comes behind the frame that tells what has changed, so that the next frame continues it.
        If a change is missing, it waits for that.

        Raises `Unavailable`.
        """
        local = self.rooms.get(room)
        if local is None:
            raise Unavailable(UNKNOWN)
        try:
            async with asyncio.timeout(TOLD_TIMEOUT):
                if not local.roster.epoch or local.roster.needs_members:
                    await asyncio.shield(self._read(local))
                while self._is_awaited(local):
                    await local.until_woken()
        except TimeoutError:
            raise Unavailable(UNKNOWN) from None
        if not local.roster.epoch or local.roster.needs_members:
            raise Unavailable(UNKNOWN)
        return local.snapshot(is_settling=self.is_settling)

    def _is_awaited(self, local: LocalRoom) -> bool:
        """Return whether a reply to op 26 must wait. While the store settles it need not."""
        if self.rooms.get(local.room) is not local:
            return False
        if not local.roster.is_complete and not self.is_settling:
            self._expect(local)
            return True
        self._diffs.schedule(local)
        return local.roster.is_behind and not (local.roster.is_short and local.roster.is_sent_short)

    # Changes, from the store

    def changed(self, change: Change) -> None:
        """Take a change of a room; ignore it if the node holds no key there."""
        local = self.rooms.get(change.room)
        if local is None:
            return
        if local.roster.apply(change):
            local.wake()
            self._diffs.schedule(local)
            if local.roster.needs_members and local.watchers:
                self._read(local)
        else:
            self._expect(local)

    def _expect(self, local: LocalRoom) -> None:
        """Read a room again if what is missing does not arrive soon."""
        if local.gap_timer is None and not self.is_settling:
            loop = asyncio.get_running_loop()
            local.gap_timer = loop.call_later(GAP_PATIENCE, self._mend, local)

    def _mend(self, local: LocalRoom) -> None:
        local.gap_timer = None
        if not local.roster.is_complete and not self.is_settling:
            metrics.PRESENCE_MENDS.inc()
            self._read(local)

    def _read(self, local: LocalRoom) -> "asyncio.Task[None]":
        """Read a room from the store, once for all callers that wait for the same reading."""
        local.must_read = True
        if local.reading is None:
            local.reading = self.background.run(self._read_now(local))
        return local.reading

    async def _read_now(self, local: LocalRoom) -> None:
        try:
            while local.must_read:
                local.must_read = False
                expected = local.roster.expected
                (snapshot,) = await self.store.snapshots([local.room])
                if snapshot.epoch:
                    self._adopt(local, snapshot)
                    local.roster.was_read(expected)
        except Unavailable as error:
            logger.warning("could not read who is in a room: %s", error.message)
        finally:
            local.reading = None
        local.wake()
        if self.rooms.get(local.room) is local:
            self._diffs.schedule(local)
            if not local.roster.is_complete:
                self._expect(local)

    @staticmethod
    def _adopt(local: LocalRoom, snapshot: Snapshot) -> None:
        if local.roster.adopt(snapshot) and local.must_reset and not local.must_read:
            local.must_reset = False
            local.roster.reset()

    def lost(self) -> None:
        """Write all keys again: the store has lost everything."""
        self.is_settling = True
        self._next_beat = 0.0
        self.background.run(self.round())

    def settled(self) -> None:
        """Read all rooms again: the store has all keys again after a loss.

        Every renewal calls this, too. A deferred key may have been reported only after the end.
        """
        was_settling, self.is_settling = self.is_settling, False
        for room, local in self.rooms.items():
            if local.deferred:
                self._writer.mark(room, local.deferred)
            if was_settling:
                local.must_reset = True
                self._read(local)
        if not self._writer.is_idle:
            self._writer.begin()

    def regained(self) -> None:
        """Compare all rooms with the store: changes may have been missed."""
        self._next_beat = self._next_check = 0.0
        self.background.run(self.round())

    # Rounds

    async def round(self) -> None:
        """Do what is due: renew the lease, compare with the store, reap dead nodes."""
        now = asyncio.get_running_loop().time()
        if not self.is_on:
            return
        try:
            if now >= self._next_beat:
                await self.renew()
                self._next_beat = now + conf.NODE_LEASE / BEATS_PER_LEASE
            if self._unconfirmed or not self._writer.is_idle:
                self._writer.begin()
            elif self.is_settling:
                await self._settle()
            if now >= self._next_check:
                self._next_check = now + conf.NODE_LEASE / CHECKS_PER_LEASE
                await self._check()
            await self._reaper.round(now)
        except Unavailable as error:
            logger.warning("presence of rooms: %s", error.message)

    async def renew(self) -> None:
        """Renew the lease; after a loss, write all keys again. Raises `Unavailable`."""
        renewal = await self.store.renew()
        if renewal.is_settling:
            self.is_settling = True
        else:
            self.settled()
        if renewal.is_held and renewal.generation == self._generation:
            return
        self._generation, self._unconfirmed = renewal.generation, True
        for room, local in self.rooms.items():
            self._writer.mark(room, local.members)
        self._writer.begin()

    async def written(self) -> None:
        """Confirm the generation, when all keys were written."""
        if self._unconfirmed:
            generation = self._generation
            await self.store.confirm(generation)
            self._unconfirmed = generation != self._generation
            if self.is_settling:
                await self._settle()
        for local in list(self.rooms.values()):
            if not local.roster.epoch and local.reading is None:
                self._read(local)

    async def _settle(self) -> None:
        numbers = list(await self._live_numbers())
        if await self.store.settle(self._generation, numbers):
            self.settled()

    async def _check(self) -> None:
        """Compare all rooms with the store, which may have lost some of them."""
        locals_ = list(self.rooms.values())
        for start in range(0, len(locals_), CHECKED_TOGETHER):
            part = locals_[start : start + CHECKED_TOGETHER]
            edits = [local.edits for local in part]
            checks = await self.store.check([local.room for local in part])
            for local, before, check in zip(part, edits, checks, strict=True):
                await self._compare(local, check, is_quiet=local.edits == before)
        for room in await self.store.held_rooms() - self.rooms.keys():
            if not self._writer.has(room):
                self._writer.mark(room, await self.store.held_keys(room))
        if not self._writer.is_idle:
            self._writer.begin()

    async def _compare(self, local: LocalRoom, check: Check, *, is_quiet: bool) -> None:
        """Compare one room. `is_quiet`: no key was written meanwhile."""
        room, own = local.room, local.members.keys() | local.deferred
        if is_quiet and not self._writer.has(room) and self.rooms.get(room) is local:
            if not check.is_whole:
                self._writer.mark(room, local.members)
            elif check.held != len(own):
                self._writer.mark(room, own ^ await self.store.held_keys(room))
        if (check.epoch, check.number) != (local.roster.epoch, local.roster.number):
            local.roster.expect(check.epoch, check.number)
            self._expect(local)
