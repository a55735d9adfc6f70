"""Verification of the client of an HTTP request, in any process: the same as for a session."""

import asyncio
import time
from concurrent.futures import CancelledError
from dataclasses import replace

from accounts.auth_body import AuthBody
from accounts.identity import Facts
from imgo_site.batching import BatchLoader
from imgo_site.conf import conf
from imgo_site.database_clock import DatabaseClock, Reading, read_database_time
from imgo_site.database_threads import cluster_threads
from imgo_site.errors import Unavailable
from imgo_site.process_parts import process
from push.bus.publish import Publisher
from push.connect.handshake import identify
from push.hooks.client import HookClient
from push.status.instance import Instance

CLOCK_AGE_MAX = 10.0  # seconds until the database's time is read again
MARGIN = 1.0  # seconds for the verification beyond HANDSHAKE_TIMEOUT


class _Tools:
    """What verifications need and a process has once: a clock, and the hooks of the backend.

    Their connections end with the process.
    """

    def __init__(self) -> None:
        self.hooks = HookClient()
        self._clock = DatabaseClock()
        self._renewed = float("-inf")  # monotonic seconds
        # One query for all who wait for the time.
        self._readings: BatchLoader[str, Reading] = BatchLoader(_read_time, cluster_threads)

    async def clock(self) -> DatabaseClock:
        """Return the clock, with a reading that is recent. Raises what the database raises."""
        if time.monotonic() - self._renewed > CLOCK_AGE_MAX:
            reading = await self._readings.get("")
            assert reading is not None
            self._clock.take(reading)
            self._renewed = time.monotonic()
        return self._clock


def _read_time(names: list[str]) -> dict[str, Reading]:
    return dict.fromkeys(names, read_database_time())


def key_of_client(body: AuthBody, facts: Facts, instance: Instance) -> str:
    """Return the key of a client. Do not call this from the event loop's own thread.

    Raises `NotAuthenticated`, `TooManyAttempts`, `BadRequest`; `Unavailable` if a service does not
    answer in time; and what the database raises.
    """
    loop = process.get(Publisher).loop()
    future = asyncio.run_coroutine_threadsafe(_key_of(body, facts, instance), loop)
    try:
        return future.result(conf.HANDSHAKE_TIMEOUT + MARGIN)
    except (TimeoutError, CancelledError):
        future.cancel()
        raise Unavailable("The token could not be verified in time.") from None


async def _key_of(body: AuthBody, facts: Facts, instance: Instance) -> str:
    tools = process.get(_Tools)
    facts = replace(facts, clock=await tools.clock())
    identity = await identify(body, facts, instance.guard, tools.hooks, lambda: False)
    return identity.key
