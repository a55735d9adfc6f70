"""Rate limiter for failed logins, by address, that does not lock out who shares the address.

Behind a proxy or a company's router many clients have one address. So no client is refused for
what another did: when an address has failed too often in a minute, each further attempt waits a
moment before its token is verified. Only if very many wait are others told to come back later.

An IPv6 address counts as its /64: one customer has at least that many addresses (RFC 6177).
"""

import asyncio
import threading
import time
from dataclasses import dataclass
from ipaddress import IPv6Address

from imgo_site.conf import conf
from imgo_site.errors import TooManyAttempts

WINDOW = 60.0  # seconds that failures count
DELAY = 1.0  # seconds that an attempt waits then
WAITING_MAX = 50  # attempts of one address that may wait
ADDRESSES_MAX = 10_000  # addresses remembered


@dataclass(slots=True)
class _Failures:
    """What is known of an address. Times are monotonic seconds."""

    begin: float  # of the window
    count: int = 0
    waiting: int = 0  # attempts
    next: float = 0.0  # when another attempt that cannot wait may be made


class Guard:
    """Failures by address. Its methods may be called by any thread."""

    def __init__(self) -> None:
        self._failures: dict[str, _Failures] = {}
        self._lock = threading.Lock()

    async def admit(self, address: str) -> None:
        """Return at once, or after a moment. Raises `TooManyAttempts`."""
        entry = self._limited(address)
        if entry is None:
            return
        if entry.waiting >= WAITING_MAX:
            raise TooManyAttempts("Too many attempts failed; come back in a minute.")
        entry.waiting += 1
        try:
            await asyncio.sleep(DELAY)
        finally:
            entry.waiting -= 1

    def admit_at_once(self, address: str) -> None:
        """Return at once: for callers whose thread must not wait.

        Raises `TooManyAttempts` if the address has failed too often and another attempt was
        admitted less than `DELAY` seconds ago.
        """
        entry = self._limited(address)
        if entry is None:
            return
        with self._lock:
            now = time.monotonic()
            if now < entry.next:
                raise TooManyAttempts("Too many attempts failed; try again in a second.")
            entry.next = now + DELAY

    def failed(self, address: str) -> None:
        """Count an attempt from this address that was refused."""
        name = _network_of(address)
        with self._lock:
            entry = self._failures.get(name)
            if entry is None:
                if len(self._failures) >= ADDRESSES_MAX:
                    del self._failures[next(iter(self._failures))]  # the oldest
                entry = self._failures[name] = _Failures(time.monotonic())
            entry.count += 1

    def _limited(self, address: str) -> _Failures | None:
        """Return what is known of an address that has failed too often, else None."""
        if not self._failures or not conf.AUTH_FAILURES:
            return None
        name = _network_of(address)
        with self._lock:
            entry = self._failures.get(name)
            if entry is None:
                return None
            if time.monotonic() - entry.begin > WINDOW:
                del self._failures[name]
                return None
        return entry if entry.count >= conf.AUTH_FAILURES else None


def _network_of(address: str) -> str:
    """Return an IPv6 address's /64 as text, and any other address as it is."""
    if ":" not in address:
        return address
    try:
        found = IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return found.packed[:8].hex()


guard = Guard()
