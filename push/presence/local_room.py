"""A room with presence as one node has it: the keys of its sessions, and a copy of all members."""

import asyncio
from typing import Any

from push.presence.roster import Roster
from push.session.session import Session
from push.wire import compact_json


class LocalMember:
    """A key in the room on this node. It stays for the grace after its last session has left.

    `sessions`: session → when it joined, milliseconds.
    `at`: when the newest of them joined. `info`: that session's, JSON text. Both stay for the grace
    after it has left.
    `left_at`: when the last session left, monotonic seconds. `is_written`: the store has it.
    """

    __slots__ = ("at", "info", "is_written", "left_at", "sessions")

    def __init__(self) -> None:
        self.sessions: dict[Session, int] = {}
        self.at = 0
        self.info = ""
        self.left_at = 0.0
        self.is_written = False

    def add(self, session: Session, at: int) -> None:
        """Add a session, or its new identity, as the newest. `at`: milliseconds."""
        self.at = max(self.at, at)
        self.sessions[session] = self.at
        self.info = info_json(session.identity.info)

    def fall_back(self) -> bool:
        """Show the info of the newest session that is left; return whether anything changed."""
        newest = max(self.sessions, key=self.sessions.__getitem__)
        before = self.at, self.info
        self.at, self.info = self.sessions[newest], info_json(newest.identity.info)
        return before != (self.at, self.info)


class LocalRoom:
    """One room.

    `watchers`: sessions that get diffs. `deferred`: keys that have left here, and that the store
    keeps until it has settled. `edits`: number of edits that were sent.
    `must_read`: a reading must begin after this. `must_reset`: then watchers get all members.
    `wrote_at`, `listed_at`: when the last frame, and the last one with all members, was written:
    monotonic seconds. `timer`: of the next frame.
    """

    def __init__(self, room: str, limit: int) -> None:
        self.room = room
        self.roster = Roster(room, limit)
        self.members: dict[str, LocalMember] = {}
        self.watchers: set[Session] = set()
        self.deferred: set[str] = set()
        self.edits = 0
        self.must_read = self.must_reset = False
        self.reading: asyncio.Task[None] | None = None  # of a snapshot
        self.wrote_at = self.listed_at = float("-inf")
        self.timer: asyncio.TimerHandle | None = None
        self.gap_timer: asyncio.TimerHandle | None = None
        self.is_writing = False
        self._waker: asyncio.Future[None] | None = None
        self._snapshot = (("", False), b"")  # version told and whether settling; the reply to op 26

    async def until_woken(self) -> None:
        """Wait until the copy has changed, or the sessions were told of a change."""
        if self._waker is None:
            self._waker = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._waker])

    def wake(self) -> None:
        """Wake those that wait in `until_woken`."""
        waker, self._waker = self._waker, None
        if waker is not None:
            waker.set_result(None)

    def snapshot(self, *, is_settling: bool) -> bytes:
        """Return the reply to op 26. All sessions that ask for the same version share it."""
        key = (self.roster.sent_version, is_settling)
        if self._snapshot[0] != key or not key[0]:
            self._snapshot = (key, self.roster.snapshot(is_settling=is_settling))
        return self._snapshot[1]

    def close(self) -> None:
        """Stop the timers and the task."""
        for timer in (self.timer, self.gap_timer):
            if timer is not None:
                timer.cancel()
        if self.reading is not None:
            self.reading.cancel()
        self.wake()


def info_json(info: Any) -> str:
    """Return an identity's info as JSON text; "" for none."""
    return compact_json(info).decode() if info else ""
