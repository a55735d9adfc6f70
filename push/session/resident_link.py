"""The resident link, for a session that stays in its consumer and writes through the ASGI server.

It works with any ASGI server. The link counts and bounds the waiting bytes, one task a session
sends them, and a receipt is given when `send` returns. A return of `send` guarantees no more than
the server does. Stock Daphne and uvicorn buffer any number of bytes for a client that does not
read.
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
    """Link with a bounded queue, which the task `run` empties through `send`.

    A client is a slow reader above `limit` waiting bytes, or if one `send` takes longer than
    `patience` seconds. Then the queue is dropped, and the session is closed with a code that
    lets the client reconnect. Dropped messages get no receipt, so pending messages stay pending.
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
    joins_packets = False  # the ASGI server sends each write as one message

    @staticmethod
    def wrap(payload: bytes, is_text: bool) -> bytes:  # noqa: ARG004
        """Return the payload unchanged: the ASGI server frames it."""
        return payload

    def write(self, data: bytes, receipt: int = 0) -> None:
        """Queue `data`, or close the link if that would exceed the limit."""
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
        """Drop the queue and close as a slow reader, with a code that lets the client reconnect."""
        self._queue.clear()
        if self.session is not None:
            self.session.is_closed = True
            self.session.close_code = CloseCode.SLOW_READER
        self.close(CloseCode.SLOW_READER, CloseCode.SLOW_READER.reason)

    def write_rest(self, data: bytes, sent: int, receipt: int) -> None:
        """Raise NotImplementedError: this link has no socket that a session could write to."""
        raise NotImplementedError

    def enable_direct_send(self) -> None:
        """Do nothing: an ASGI server gives no access to the socket."""

    def close(self, code: int, reason: str) -> None:
        """Close after the queued writes; only the first call counts."""
        if self._closing is None:
            count_close(code)
            self._closing = (code, reason)
            self._wakeup.set()

    async def drained(self) -> None:
        """Wait until the queue is empty or the link is closed."""
        await self._idle.wait()

    async def run(self) -> None:
        """Send queued writes until the link is closed. Cancel this if the client disconnects."""
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
