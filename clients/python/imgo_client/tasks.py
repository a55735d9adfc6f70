"""Coroutines with a timeout, and coroutines side by side. No task remains after an end.

They replace `asyncio.timeout` and `TaskGroup`, which Python 3.10 lacks. Its `wait_for` may swallow
a cancel.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from imgo_client.errors import ImgoError, NoAnswer

T = TypeVar("T")


async def within(seconds: float, coroutine: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine within `seconds`.

    Raises what the coroutine raises, `NoAnswer` after the timeout, and `ImgoError` if the coroutine
    was cancelled from inside. If this call is cancelled, the result may be lost. So a coroutine
    that opens something must store it where it can be closed.
    """
    task = asyncio.ensure_future(coroutine)
    try:
        await asyncio.wait([task], timeout=seconds)
        if task.cancelled():  # from inside: whoever waits for this was not
            raise ImgoError("it was cancelled")
        if task.done():
            return task.result()
    finally:
        await _end(task)
    raise NoAnswer(f"no answer within {seconds:g} s")


async def until_first(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Run coroutines side by side until one ends; end the others. Raises what that one raised."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        first = next(task for task in tasks if task.done())
    finally:
        await _end(*tasks)
    first.result()


async def _end(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks and wait for them. Their exceptions are ignored."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
