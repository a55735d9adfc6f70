"""The tests. They wait for conditions with the two helpers below, never for time to pass."""

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

PATIENCE = 10.0  # seconds until a condition that did not come true is a failure
POLL_INTERVAL = 0.005  # seconds


def wait_until(condition: Callable[[], Any]) -> Any:
    """Return the first true value of `condition()`."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not true within {PATIENCE} s: {condition}"
        time.sleep(POLL_INTERVAL)
    return value


async def eventually(condition: Callable[[], Any]) -> Any:
    """Return the first true value of `condition()`, which may be a coroutine function."""
    deadline = time.monotonic() + PATIENCE
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"not true within {PATIENCE} s: {condition}"
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
