"""Diffs of presence (op 28), written to the sessions of a room that have requested them.

The first change is sent after `SOON`. After that, a room gets at most one frame in `INTERVAL`, with
all changes since the last frame. A frame is encoded once for each kind of session. In a large room
the interval grows with the number of sessions, so that a storm of members stays within `COUNTS`
frames a second.
"""

import asyncio
from collections.abc import Callable, Sequence

from push.bus.background_tasks import Background
from push.metrics import definitions as metrics
from push.presence.local_room import LocalRoom
from push.session.outgoing import Notice, OutgoingMessage
from push.session.session import Session
from push.wire import Op

SOON = 0.05  # seconds until a first change is told: changes of the same moment share a frame
INTERVAL = 1.0  # seconds between two frames to one room
COUNTS = 1_000  # frames a second with only the count to one room; in a larger room each waits
LIST_INTERVAL = 10.0  # seconds until a room that moves around the limit gets its list again
YIELD_AFTER = 250  # sessions written to before the event loop gets a turn

Write = Callable[[Sequence[Session], OutgoingMessage], None]


class DiffWriter:
    """Writer of one node. `write`: writes a frame to sessions."""

    def __init__(self, write: Write, background: Background) -> None:
        self._write_to = write
        self._background = background

    def schedule(self, local: LocalRoom) -> None:
        """Send the changes of a room to its sessions at the next time when a frame is due."""
        if not local.watchers:
            local.roster.mark_told()
            local.wake()
        elif local.roster.is_due and local.timer is None:
            loop = asyncio.get_running_loop()
            at = max(loop.time() + SOON, local.wrote_at + interval_of(local))
            local.timer = loop.call_at(at, self._begin, local)

    def _begin(self, local: LocalRoom) -> None:
        local.timer = None
        if not local.is_writing:  # else the end of that schedules the next
            local.is_writing = True
            self._background.run(self._write(local))

    async def _write(self, local: LocalRoom) -> None:
        try:
            sessions = tuple(local.watchers)
            now = asyncio.get_running_loop().time()
            may_list = now - local.listed_at >= LIST_INTERVAL
            had_list = not local.roster.is_sent_short
            body = local.roster.frame(may_list=may_list)
            local.wrote_at = now
            if not had_list and not local.roster.is_sent_short:
                local.listed_at = now
            local.wake()
            if body is not None:
                message = Notice(Op.PRESENCE_DIFF, body, local.room)
                metrics.PRESENCE_DIFFS.inc(len(sessions))
                for start in range(0, len(sessions), YIELD_AFTER):
                    self._write_to(sessions[start : start + YIELD_AFTER], message)
                    await asyncio.sleep(0)
        finally:
            local.is_writing = False
        self.schedule(local)


def interval_of(local: LocalRoom) -> float:
    """Return the seconds between two frames to a room; a room without a list may wait longer."""
    if local.roster.is_short and local.roster.is_sent_short:
        return max(INTERVAL, len(local.watchers) / COUNTS)
    return INTERVAL
