"""Deadline of a handshake: from the accepted connection until its session is released.

Waits for imgo's own services count. The time in which the client reads does not count: it is
limited by `SLOW_READER_TIMEOUT`.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self


class Expired(Exception):
    """The deadline has passed, and the connection has been closed."""


class HandshakeDeadline:
    """Context manager that cancels its body after `seconds`, and then raises `Expired`.

    `expire()`: closes the connection. It is called before the cancellation, synchronously. The body
    may ignore its cancellation or be slow to clean up, and the client must not wait for that.
    """

    __slots__ = ("_expire", "_handle", "_loop", "_task", "has_expired")

    def __init__(self, seconds: float, expire: Callable[[], None]) -> None:
        self._expire = expire
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self.has_expired = False
        self._handle = self._loop.call_later(seconds, self._end)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._handle.cancel()
        if self.has_expired and self._task is not None:
            other_cancels = self._task.uncancel()
            # If there are others than this deadline's, the task must end.
            if kind is None or (kind is asyncio.CancelledError and not other_cancels):
                raise Expired from None

    def _end(self) -> None:
        self.has_expired = True
        self._expire()
        if self._task is not None:
            self._task.cancel()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Stop the clock while the client reads what was written to it."""
        left = self._handle.when() - self._loop.time()
        self._handle.cancel()
        try:
            yield
        finally:
            if not self.has_expired:
                self._handle = self._loop.call_later(left, self._end)
