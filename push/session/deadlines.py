"""Deadlines of equal length, which share one timer of the event loop."""

import asyncio
from collections.abc import Callable


class Deadlines:
    """Deadlines that all end `seconds` after they began.

    In a storm of connects thousands begin, and nearly all are cancelled. The event loop's timers
    are a sorted heap, in which a cancelled timer stays for a while. These are in order anyway.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds
        self._expiries: dict[Callable[[], None], float] = {}  # loop time; the earliest first
        self._has_timer = False

    def begin(self, expire: Callable[[], None]) -> None:
        """Call `expire` when the deadline has passed, unless `cancel(expire)` was called."""
        when = self._expiries[expire] = self._loop.time() + self._seconds
        if not self._has_timer:
            self._has_timer = True
            self._loop.call_at(when, self._run)

    def cancel(self, expire: Callable[[], None]) -> None:
        """Do not call `expire` any more."""
        self._expiries.pop(expire, None)

    def _run(self) -> None:
        """Call what is due, then wait for the next one."""
        self._has_timer = False
        now = self._loop.time()
        while self._expiries:
            expire, when = next(iter(self._expiries.items()))
            if when > now:
                self._has_timer = True
                self._loop.call_at(when, self._run)
                return
            del self._expiries[expire]
            self._loop.call_soon(expire)  # an error must not keep the others from their turn
