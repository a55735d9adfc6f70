"""Slows down who guesses tokens, by address, without locking out who shares the address.

Behind a proxy or a company's router many clients have one address. So nobody is refused for what
another did: when an address has failed too often in a minute, whoever comes from it waits a moment
before the token is looked at, and only when very many wait are further ones told to come later.
"""

import asyncio
import time

from imgo_site.conf import conf
from imgo_site.errors import TooManyAttempts

WINDOW = 60.0  # seconds that failures count
DELAY = 1.0  # seconds that an attempt waits then
WAITING_MAX = 50  # attempts of one address that may wait
ADDRESSES_MAX = 10_000  # addresses remembered


class Guard:
    """Failures by address."""

    def __init__(self) -> None:
        self._failures: dict[str, list[float]] = {}  # [begin of the window, failures, waiting]

    async def admit(self, address: str) -> None:
        """Return at once or after a moment. Raises `TooManyAttempts`."""
        entry = self._failures.get(address)
        if entry is None or not conf.AUTH_FAILURES:
            return
        if time.monotonic() - entry[0] > WINDOW:
            del self._failures[address]
        elif entry[1] >= conf.AUTH_FAILURES:
            if entry[2] >= WAITING_MAX:
                raise TooManyAttempts("Too many attempts failed; come back in a minute.")
            entry[2] += 1
            try:
                await asyncio.sleep(DELAY)
            finally:
                entry[2] -= 1

    def failed(self, address: str) -> None:
        """An attempt from this address was refused."""
        entry = self._failures.get(address)
        if entry is None:
            if len(self._failures) >= ADDRESSES_MAX:
                del self._failures[next(iter(self._failures))]  # the oldest
            entry = self._failures[address] = [time.monotonic(), 0, 0]
        entry[1] += 1


guard = Guard()
