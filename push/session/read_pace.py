"""How fast the frames of one client are read.

Frames of every kind count against `MAX_FRAMES_PER_SECOND`, WebSocket's own and unfinished
fragments too. Acknowledgements have a budget of their own, in ids, so that a client may send one
for each message. Over a budget the connection is not read until a later second: nothing is lost,
and the client feels it as back-pressure.
"""

import asyncio
from collections.abc import Iterable

from imgo_site.conf import conf
from push.wire import Frame, Op

ACKED_IDS_PER_SECOND = 2_000  # of one session


class Pace:
    """What one client has sent that the seconds up to now do not pay for yet."""

    __slots__ = ("_frames", "_ids")

    def __init__(self) -> None:
        self._frames = 0
        self._ids = 0

    def spend(self, frames: int, ids: int = 0) -> None:
        """Count frames, and ids in acknowledgements."""
        self._frames += frames
        self._ids += ids

    @property
    def is_over(self) -> bool:
        """Whether nothing more should be read now."""
        return self._frames > conf.MAX_FRAMES_PER_SECOND or self._ids > ACKED_IDS_PER_SECOND

    @property
    def is_idle(self) -> bool:
        """Whether all is paid for."""
        return not (self._frames or self._ids)

    def renew(self, seconds: int = 1) -> None:
        """Pay with the allowance of some seconds."""
        self._frames = max(0, self._frames - seconds * conf.MAX_FRAMES_PER_SECOND)
        self._ids = max(0, self._ids - seconds * ACKED_IDS_PER_SECOND)


class TimedPace(Pace):
    """A pace that looks at the clock itself, for a consumer that reads in its own task."""

    __slots__ = ("_loop", "_paid_until")

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._paid_until = self._loop.time()

    def spend(self, frames: int, ids: int = 0) -> None:
        """Pay for the seconds that have passed, and count."""
        seconds = int(self._loop.time() - self._paid_until)
        if seconds:
            self.renew(seconds)
            self._paid_until += seconds
        super().spend(frames, ids)

    async def wait(self) -> None:
        """Return when something may be read."""
        while self.is_over:
            self._paid_until += 1
            await asyncio.sleep(self._paid_until - self._loop.time())
            self.renew()


def weigh(frames: Iterable[Frame]) -> tuple[int, int]:
    """Return how many of these are no acknowledgements, and how many ids those have at most."""
    count = ids = 0
    for frame in frames:
        if frame.op == Op.ACK:
            ids += 1 + frame.body.count(b",")
        else:
            count += 1
    return count, ids
