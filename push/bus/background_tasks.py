"""Tasks that no caller awaits: a reference is kept until they end, and their errors are logged."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

logger = logging.getLogger(__name__)


class Background:
    """The tasks of one owner. `failed`: the log message for a task that raises."""

    def __init__(self, failed: str) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self._failed = failed

    def run(self, coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run a coroutine as a task. Needs a running loop."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.add(task)  # the loop holds only a weak reference to a task
        task.add_done_callback(self._done)
        return task

    def _done(self, task: "asyncio.Task[None]") -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error(self._failed, exc_info=error)


def is_cancelled() -> bool:
    """Return whether this task was cancelled, even if an awaited call swallowed the cancellation.

    Python 3.11's `asyncio.wait_for` swallows it if its awaitable is done in the same turn of the
    loop: it returns the result. redis-py uses `wait_for` when it sends a command.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
