"""The tests. They wait for conditions with the two helpers below, never for time to pass."""

import asyncio
import inspect
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")

CHAOS_SEED = "CHAOS_SEED"  # the variable with the seed of the loads under faults
PATIENCE = 30.0  # seconds until a condition that did not come true is a failure
POLL_INTERVAL = 0.01  # seconds between two checks of a condition
# For HTTP clients of servers without TLS: httpx reads all CA certificates for each client
# otherwise, which takes 50 ms of the processor.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def wait_until(
    check: Callable[[], T], timeout: float = PATIENCE, every: float = POLL_INTERVAL
) -> T:
    """Return the first true answer of `check`, which is called every `every` seconds.

    Raises AssertionError if there is none within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while not (answer := check()):
        if time.monotonic() > deadline:
            raise AssertionError(f"still {answer!r} after {timeout:g} s: {check}")
        time.sleep(every)
    return answer


async def eventually(check: Callable[[], T | Awaitable[T]], timeout: float = PATIENCE) -> T:
    """The same for coroutines: other tasks run on, and `check` may be one."""
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
    """Call `function`, which may use the database, on another thread."""
    return await asyncio.to_thread(call_and_close, function, *args, **kwargs)


def call_and_close(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call `function` and close the database connection that it made on this thread."""
    from django.db import connections  # not before Django's settings may be read

    try:
        return function(*args, **kwargs)
    finally:
        connections.close_all()
