"""Deadline of a handshake: from the accepted connection until its session is released.

Waits for our own services count, a client's reading does not: that has `SLOW_READER_TIMEOUT`.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self


class Expired(Exception):
    """The deadline has passed; the client was told so already."""


class HandshakeDeadline:
    """Context manager that ends its body after `seconds` with `Expired`.

    At that moment `expire()` is called first, synchronously, to close the connection: what the
    body awaits may ignore its cancellation, or take long to clean up, and the client must not
    wait for that.
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
            asked = self._task.uncancel()
            # More than our own cancellation: somebody else wants the task to end.
            if kind is None or (kind is asyncio.CancelledError and not asked):
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
