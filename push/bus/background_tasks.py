"""Tasks that nobody awaits: kept until they end, and what they raise is logged; and their end."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

logger = logging.getLogger(__name__)


class Background:
    """The tasks of one owner. `failed` is what the log says when one of them raises."""

    def __init__(self, failed: str) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self._failed = failed

    def run(self, coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run a coroutine; needs a running loop."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.add(task)  # the loop itself keeps no task from the garbage collector
        task.add_done_callback(self._done)
        return task

    def _done(self, task: "asyncio.Task[None]") -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error(self._failed, exc_info=error)


def is_cancelled() -> bool:
    """Whether this task was cancelled, even if something that it awaited has kept that to itself.

    Python 3.11's `asyncio.wait_for` does, and with it redis-py when it sends a command: a
    cancellation in the very turn in which the awaited is done is answered with its result.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
