"""Coroutines with a limit, and side by side: none of them is left behind, however it ends.

What `asyncio.timeout` and `TaskGroup` are for, which Python 3.10 does not have; `wait_for` may
swallow a cancel there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from imgo_client.errors import ImgoError, NoAnswer

T = TypeVar("T")


async def within(seconds: float, coroutine: Coroutine[Any, Any, T]) -> T:
    """Its result; raises what it raises, `NoAnswer` when it takes longer, or `ImgoError` when it
    is cancelled from inside.

    If this is cancelled the result may be lost: a coroutine that opens something keeps it where
    it can be closed.
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
    """Run them side by side until one ends, and end the others; raises what that one raised."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        first = next(task for task in tasks if task.done())
    finally:
        await _end(*tasks)
    first.result()


async def _end(*tasks: asyncio.Future[Any]) -> None:
    """Cancel those that run, and wait for them; all that they raise counts as seen."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
