"""Paced writes, for clients that treat the bytes of one `read()` as one frame.

imgo's Java client does, and so do many clients modelled on it. If two frames arrive together,
such a client loses the second, or both. So its session writes the next frame only after two
conditions: its kernel has acknowledged the previous write, and `TCP_FRAME_GAP` seconds have
passed. The acknowledgement usually follows the client's own `read()`: Linux sends it then, or
40 ms later.

One timer serves all sessions of a node that have queued writes. A session without queued writes
has no timer; a session that is not paced uses nothing of this module.
"""

import asyncio
import fcntl
import struct
import termios
from collections import deque
from typing import Protocol

from imgo_site.conf import conf
from push.session.session import Link, Session

TURN_MAX = 250  # links served before the event loop does something else
CLOSE_TIMEOUT = 2.0  # seconds that a close waits for earlier writes


class Paceable(Link, Protocol):
    """A link whose writes can be paced: `TcpLink`."""

    @property
    def is_open(self) -> bool:
        """Return whether the link accepts writes."""

    def fileno(self) -> int:
        """Return the descriptor of the socket; -1 if it is closed."""

    def give_up(self) -> None:
        """Close the link because its client reads too slowly."""


def unacknowledged(descriptor: int) -> int:
    """Return the number of bytes that the peer's kernel has not acknowledged; 0 if unknown."""
    if descriptor == -1:
        return 0
    try:
        # On Linux SIOCOUTQ (tcp(7)) has the same number as TIOCOUTQ.
        packed = fcntl.ioctl(descriptor, termios.TIOCOUTQ, b"\0" * 4)
    except OSError:
        return 0
    return int(struct.unpack("=i", packed)[0])


class Pacer:
    """The timer of all paced links of a node.

    Every link waits for the same time, so links become due in the order of `schedule` calls.
    """

    def __init__(self) -> None:
        self._due: deque[tuple[float, PacedLink]] = deque()  # `loop.time()`, in order
        self._timer: asyncio.TimerHandle | None = None

    def schedule(self, link: "PacedLink") -> None:
        """Call `link.proceed()` once, after the gap."""
        loop = asyncio.get_running_loop()
        self._due.append((loop.time() + conf.TCP_FRAME_GAP, link))
        if self._timer is None:
            self._timer = loop.call_at(self._due[0][0], self._run)

    def _run(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        try:
            for _ in range(TURN_MAX):
                if not self._due or self._due[0][0] > now:
                    break
                self._due.popleft()[1].proceed()
        finally:  # a failure of one link must not stop the others
            self._timer = loop.call_at(self._due[0][0], self._run) if self._due else None


class PacedLink:
    """Link with paced writes, which it passes to an inner link.

    Without a queue a write goes to the inner link if its turn has come. Otherwise writes are
    queued, and the pacer calls `proceed` after each gap until the queue is empty.

    Queued bytes count against `SESSION_BYTES` and `SLOW_READER_TIMEOUT` as on any link. The inner
    link gives the receipts, when the kernel has accepted a message.
    """

    __slots__ = (
        "_close_by",
        "_closing",
        "_drained",
        "_inner",
        "_is_scheduled",
        "_last",
        "_pacer",
        "_progress_at",
        "_queue",
        "_queued",
        "_session",
    )

    def __init__(self, inner: Paceable, pacer: Pacer) -> None:
        self._inner = inner
        self._pacer = pacer
        self._queue: deque[tuple[bytes, int]] | None = None  # data and receipts
        self._queued = 0  # bytes
        # `loop.time()` of the last write. The reply to a handshake (op 1) may have just been one.
        self._last = asyncio.get_running_loop().time()
        self._progress_at = 0.0  # `loop.time()` of the queue's last progress
        self._is_scheduled = False
        self._closing: tuple[int, str] | None = None
        self._close_by = 0.0  # `loop.time()`
        self._drained: asyncio.Event | None = None
        self._session: Session | None = None

    wraps = False
    joins_packets = False  # its client expects one frame from each read

    @staticmethod
    def wrap(payload: bytes, is_text: bool) -> bytes:  # noqa: ARG004 - WebSocket needs to know
        """Return the payload unchanged: TCP needs no framing around frames."""
        return payload

    @property
    def waiting(self) -> int:
        """Return the number of bytes that the kernel has not accepted yet."""
        return self._queued + self._inner.waiting

    @property
    def session(self) -> Session | None:
        """Return the link's session, which the inner link needs for its receipts."""
        return self._session

    @session.setter
    def session(self, session: Session | None) -> None:
        self._session = self._inner.session = session

    def write(self, data: bytes, receipt: int = 0) -> None:
        """Write `data` now if its turn has come, else queue it."""
        if self._closing is not None or not self._inner.is_open:
            return
        now = asyncio.get_running_loop().time()
        if self._queue is None:
            if self._is_turn(now):
                self._last = now
                self._inner.write(data, receipt)
                return
            self._queue = deque()
            self._progress_at = now
        elif self.waiting + len(data) > conf.SESSION_BYTES:
            self._give_up()
            return
        self._queue.append((data, receipt))
        self._queued += len(data)
        self._schedule()

    def _is_turn(self, now: float) -> bool:
        if now - self._last < conf.TCP_FRAME_GAP or self._inner.waiting:
            return False
        return unacknowledged(self._inner.fileno()) == 0

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._pacer.schedule(self)

    def proceed(self) -> None:
        """Write the first queued frame, if its turn has come."""
        self._is_scheduled = False
        if not self._inner.is_open:
            self._drop()
        if not self._queue:
            return
        now = asyncio.get_running_loop().time()
        if self._closing is not None and now > self._close_by:
            # Only the DISCONNECT frame. Stored messages get no receipt, so they stay pending.
            self._inner.write(self._queue[-1][0])
            self._queue.clear()
        elif self._is_turn(now):
            data, receipt = self._queue.popleft()
            self._queued -= len(data)
            self._last = self._progress_at = now
            self._inner.write(data, receipt)
        elif now - self._progress_at > conf.SLOW_READER_TIMEOUT:
            self._give_up()
            return
        if self._queue:
            self._schedule()
            return
        self._drop()
        if self._closing is not None:
            self._inner.close(*self._closing)

    def _give_up(self) -> None:
        self._drop()
        self._inner.give_up()

    def _drop(self) -> None:
        """Drop the queue and wake the waiter of `drained`."""
        self._queue, self._queued = None, 0
        if self._drained is not None:
            self._drained.set()

    def write_rest(self, data: bytes, sent: int, receipt: int) -> None:
        """Raise NotImplementedError: a session of this link never writes to the socket itself."""
        raise NotImplementedError

    def enable_direct_send(self) -> None:
        """Do nothing: every write must be paced."""

    def close(self, code: int, reason: str) -> None:
        """Close after the queued writes, or after `CLOSE_TIMEOUT` seconds."""
        if self._closing is not None:
            return
        self._closing = (code, reason)
        self._close_by = asyncio.get_running_loop().time() + CLOSE_TIMEOUT
        if not self._queue:
            self._inner.close(code, reason)

    async def drained(self) -> None:
        """Wait until no bytes are waiting, or until the link is closed."""
        while self._queue and self._inner.is_open:
            self._drained = self._drained or asyncio.Event()
            await self._drained.wait()
            self._drained = None
        await self._inner.drained()
