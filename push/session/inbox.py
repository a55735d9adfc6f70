"""Queue of a connection's events for its consumer."""

import asyncio
from collections import deque
from typing import Any


class Inbox:
    """Queue of the events that a consumer has not received yet, for one reader.

    An `asyncio.Queue` costs several times as much to create and to use.
    """

    __slots__ = ("_queue", "_waiter")

    def __init__(self) -> None:
        self._queue: deque[dict[str, Any]] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def qsize(self) -> int:
        """Return the number of events."""
        return len(self._queue)

    def put_nowait(self, event: dict[str, Any]) -> None:
        """Add an event."""
        self._queue.append(event)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def get_nowait(self) -> dict[str, Any]:
        """Remove and return the first event. Raises IndexError if there is none."""
        return self._queue.popleft()

    async def get(self) -> dict[str, Any]:
        """Wait for an event, remove and return it. Only one reader may wait at a time."""
        is_free = self._waiter is None or self._waiter.done()
        assert is_free, "Inbox.get cannot be called concurrently"
        while not self._queue:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._queue.popleft()
