"""The one way in which these tests wait for something that does not announce itself."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

INTERVAL = 0.02  # seconds between two looks
TIMEOUT = 10.0  # seconds; for what should take less than one


def wait_until(check: Callable[[], T], timeout: float = TIMEOUT) -> T:
    """The first true answer of `check`; an AssertionError when there is none in time."""
    deadline = time.monotonic() + timeout
    while not (answer := check()):
        if time.monotonic() > deadline:
            raise AssertionError(f"still {answer!r} after {timeout:g} s")
        time.sleep(INTERVAL)
    return answer


async def eventually(check: Callable[[], T | Awaitable[T]], timeout: float = TIMEOUT) -> T:
    """The same for coroutines: other tasks run on, and `check` may be one."""
    deadline = time.monotonic() + timeout
    while True:
        answer = check()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"still {answer!r} after {timeout:g} s")
        await asyncio.sleep(INTERVAL)
