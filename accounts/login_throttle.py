"""Rate limiter for failed logins, by address, that does not lock out clients with the same address.

Behind a proxy or a company's router many clients have one address. So failures of one client must
not refuse the others. After too many failures in a minute, each further attempt from the address
waits a moment before its token is verified. Further attempts are refused only if very many wait.

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
DELAY = 1.0  # seconds that an attempt from a limited address waits
WAITING_MAX = 50  # attempts of one address that may wait at a time
ADDRESSES_MAX = 10_000  # addresses with failures that are kept


@dataclass(slots=True)
class _Failures:
    """Failures of one address. Times are monotonic seconds."""

    begin: float  # of the window
    count: int = 0
    waiting: int = 0  # attempts
    next: float = 0.0  # when the next attempt that cannot wait is admitted


class LoginThrottle:
    """Rate limiter for failed logins at one instance. Any thread may call its methods."""

    def __init__(self) -> None:
        self._failures: dict[str, _Failures] = {}
        self._lock = threading.Lock()

    async def admit(self, address: str) -> None:
        """Return at once; if the address has failed too often, after `DELAY` seconds.

        Raises `TooManyAttempts` if `WAITING_MAX` attempts of the address wait already.
        """
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
        """Return at once, for callers whose thread must not wait.

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
        """Count a refused attempt from this address."""
        name = _network_of(address)
        with self._lock:
            entry = self._failures.get(name)
            if entry is None:
                if len(self._failures) >= ADDRESSES_MAX:
                    del self._failures[next(iter(self._failures))]  # the oldest
                entry = self._failures[name] = _Failures(time.monotonic())
            entry.count += 1

    def _limited(self, address: str) -> _Failures | None:
        """Return the failures of an address that has failed too often, else None."""
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
        ip = IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return ip.packed[:8].hex()
