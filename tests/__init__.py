"""The tests, and their helpers. Tests wait for conditions, never for a fixed time."""

import asyncio
import inspect
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")

CHAOS_SEED = "CHAOS_SEED"  # environment variable with the seed of the loads under faults
PATIENCE = 30.0  # seconds until a condition that is still false is a failure
POLL_INTERVAL = 0.01  # seconds between two checks of a condition
# For HTTP clients of servers without TLS. Otherwise httpx reads all CA certificates for each
# client, which takes 50 ms of CPU time.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def wait_until(
    check: Callable[[], T], timeout: float = PATIENCE, every: float = POLL_INTERVAL
) -> T:
    """Call `check` every `every` seconds; return its first true result.

    Raises AssertionError if there is none within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while not (answer := check()):
        if time.monotonic() > deadline:
            raise AssertionError(f"still {answer!r} after {timeout:g} s: {check}")
        time.sleep(every)
    return answer


async def eventually(check: Callable[[], T | Awaitable[T]], timeout: float = PATIENCE) -> T:
    """Do what `wait_until` does while other tasks continue; `check` may be a coroutine function."""
    deadline = time.monotonic() + timeout
    while True:
        answer = check()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"still {answer!r} after {timeout:g} s: {check}")
        await asyncio.sleep(POLL_INTERVAL)


async def in_thread(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call `function` on another thread; return its result. It may use the database."""
    return await asyncio.to_thread(call_and_close, function, *args, **kwargs)


def call_and_close(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call `function`, then close the database connections that it opened on this thread."""
    from django.db import connections  # importing it earlier would read Django's settings too soon

    try:
        return function(*args, **kwargs)
    finally:
        connections.close_all()
