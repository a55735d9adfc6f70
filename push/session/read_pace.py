"""Rate limiter for the frames of one client.

Frames of every kind count against `MAX_FRAMES_PER_SECOND`, including WebSocket control frames and
unfinished fragments. Acknowledgements have a budget of their own, in ids, so that a client may
send one for each message. Over a budget the connection is not read until a later second. Nothing
is lost; the client gets back-pressure.
"""

import asyncio
from collections.abc import Iterable

from imgo_site.conf import conf
from push.wire import Frame, Op

ACKED_IDS_PER_SECOND = 2_000  # for each session


class Pace:
    """Frames and ids of one client that the budget of the past seconds does not cover yet."""

    __slots__ = ("_frames", "_ids")

    def __init__(self) -> None:
        self._frames = 0
        self._ids = 0

    def spend(self, frames: int, ids: int = 0) -> None:
        """Count frames, and the ids in acknowledgements."""
        self._frames += frames
        self._ids += ids

    @property
    def is_over(self) -> bool:
        """Return whether reading must pause."""
        return self._frames > conf.MAX_FRAMES_PER_SECOND or self._ids > ACKED_IDS_PER_SECOND

    @property
    def is_idle(self) -> bool:
        """Return whether the budget covers everything that was counted."""
        return not (self._frames or self._ids)

    def renew(self, seconds: int = 1) -> None:
        """Subtract the budget of some seconds."""
        self._frames = max(0, self._frames - seconds * conf.MAX_FRAMES_PER_SECOND)
        self._ids = max(0, self._ids - seconds * ACKED_IDS_PER_SECOND)


class TimedPace(Pace):
    """A pace that renews itself by the clock, for a consumer that reads in its own task."""

    __slots__ = ("_loop", "_paid_until")

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._paid_until = self._loop.time()

    def spend(self, frames: int, ids: int = 0) -> None:
        """Subtract the budget of the seconds that have passed, then count."""
        seconds = int(self._loop.time() - self._paid_until)
        if seconds:
            self.renew(seconds)
            self._paid_until += seconds
        super().spend(frames, ids)

    async def wait(self) -> None:
        """Wait until reading may continue."""
        while self.is_over:
            self._paid_until += 1
            await asyncio.sleep(self._paid_until - self._loop.time())
            self.renew()


def weigh(frames: Iterable[Frame]) -> tuple[int, int]:
    """Return (frames other than acknowledgements, upper bound of ids in acknowledgements)."""
    count = ids = 0
    for frame in frames:
        if frame.op == Op.ACK:
            ids += 1 + frame.body.count(b",")
        else:
            count += 1
    return count, ids
