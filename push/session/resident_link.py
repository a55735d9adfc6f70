"""The resident link: a session that stays in its consumer and writes through the ASGI server.

Correct under any ASGI server: what is waiting is counted and bounded here, one task a session
sends it, and a receipt is given when `send` returns. What that means is the server's affair: stock
Daphne and uvicorn keep any number of bytes for a client that does not read.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from push.metrics.definitions import count_close
from push.session.session import Session
from push.wire import CloseCode

Sender = Callable[[bytes], Awaitable[None]]
Closer = Callable[[int, str], Awaitable[None]]


class ResidentLink:
    """Writes go to a bounded queue that `run` empties through `send`.

    Over `limit` waiting bytes, or `patience` seconds for one of them, the reader is too slow:
    what waits is dropped, the session is closed with a code that tells the client to come back,
    and since no receipt was given for what was dropped, pending messages stay pending.
    """

    __slots__ = (
        "_close",
        "_closing",
        "_deadline",
        "_idle",
        "_limit",
        "_patience",
        "_queue",
        "_send",
        "_wakeup",
        "session",
        "waiting",
    )

    def __init__(self, send: Sender, close: Closer, limit: int, patience: float) -> None:
        self._send = send
        self._close = close
        self._limit = limit
        self._patience = patience
        self._deadline: asyncio.Timeout | None = None  # of the send under way
        self._queue: deque[tuple[bytes, int]] = deque()
        self._wakeup = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing: tuple[int, str] | None = None
        self.waiting = 0
        self.session: Session | None = None

    wraps = False

    @staticmethod
    def wrap(payload: bytes, is_text: bool) -> bytes:  # noqa: ARG004
        """The ASGI server frames it."""
        return payload

    def write(self, data: bytes, receipt: int = 0) -> None:
        """Queue `data`; closes the link instead when too much is waiting already."""
        if self._closing is not None:
            return
        if self.waiting and self.waiting + len(data) > self._limit:
            self.give_up()
            if self._deadline is not None:
                self._deadline.reschedule(asyncio.get_running_loop().time())
            return
        self.waiting += len(data)
        self._queue.append((data, receipt))
        self._idle.clear()
        self._wakeup.set()

    def give_up(self) -> None:
        """The reader is too slow: drop what waits, and close with a code that says to come back."""
        self._queue.clear()
        if self.session is not None:
            self.session.is_closed = True
            self.session.close_code = CloseCode.SLOW_READER
        self.close(CloseCode.SLOW_READER, CloseCode.SLOW_READER.reason)

    def write_rest(self, data: bytes, sent: int, receipt: int) -> None:
        """Never called: there is no short way."""
        raise NotImplementedError

    def open_short_way(self) -> None:
        """There is none through an ASGI server."""

    def close(self, code: int, reason: str) -> None:
        """Close after what is queued; only the first call counts."""
        if self._closing is None:
            count_close(code)
            self._closing = (code, reason)
            self._wakeup.set()

    async def drained(self) -> None:
        """Return when the queue is empty or the link closed."""
        await self._idle.wait()

    async def run(self) -> None:
        """Send what is queued until the link is closed. Cancel it when the client has gone."""
        try:
            while True:
                while self._queue:
                    await self._send_one(*self._queue.popleft())
                self._idle.set()
                if self._closing is not None:
                    await self._close(*self._closing)
                    return
                self._wakeup.clear()
                await self._wakeup.wait()
        finally:
            self._closing = self._closing or (CloseCode.GOING_AWAY, "")
            self._queue.clear()
            self._idle.set()

    async def _send_one(self, data: bytes, receipt: int) -> None:
        try:
            async with asyncio.timeout(self._patience) as self._deadline:
                await self._send(data)
        except TimeoutError:
            self.give_up()
            return
        finally:
            self._deadline = None
        self.waiting -= len(data)
        if receipt and self.session is not None:
            self.session.sent(receipt)
