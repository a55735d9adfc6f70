"""Limit on the connections that have not authenticated.

A connection is *waiting* while its client owes bytes: the rest of a request, or an auth frame. At
the limit the connection that has waited longest is closed, so clients that never finish cannot
keep others out. A connection younger than `MIN_AGE` is never closed: its bytes may already be in
the kernel. If all are younger, listeners pause, and new connections wait in the kernel's backlog.
"""

import logging
import time
from typing import Protocol

from imgo_site import open_files
from imgo_site.conf import conf
from push.metrics import definitions as metrics

logger = logging.getLogger(__name__)

MIN_AGE = 1.0  # seconds that every client has before its connection may be evicted
SHARE = 4  # unauthenticated connections may use 1/SHARE of the files that sessions may use
LOG_EVERY = 10.0  # seconds


class Waiting(Protocol):
    """A connection whose client owes bytes."""

    def evict(self) -> None:
        """Close the connection at once."""


class UnauthenticatedConnections:
    """The connections of one node that have not authenticated, in order of age."""

    def __init__(self) -> None:
        self._waiting: dict[Waiting, float] = {}  # monotonic seconds; the oldest first
        self._served: set[object] = set()  # unauthenticated too; they wait for the server
        self._logged = 0.0

    def enter(self, connection: Waiting) -> None:
        """Count a connection whose client owes bytes from now on."""
        self._served.discard(connection)
        self._waiting[connection] = time.monotonic()

    def serve(self, connection: Waiting) -> None:
        """Record that a client has sent its bytes: the server is at work, so no eviction now."""
        if self._waiting.pop(connection, None) is not None:
            self._served.add(connection)

    def leave(self, connection: Waiting) -> None:
        """Stop counting a connection that is closed, or is a session now."""
        self._waiting.pop(connection, None)
        self._served.discard(connection)

    def __len__(self) -> int:
        """Return the number of unauthenticated connections."""
        return len(self._waiting) + len(self._served)

    def try_admit(self, sockets: int) -> bool:
        """Return whether one more connection may be accepted; evict the slowest if necessary.

        `sockets`: number of sockets that this process has open, sessions included.
        """
        room = open_files.limits()[0] - open_files.RESERVED
        if sockets >= room:
            self._log(f"{sockets} sockets are open, and the limit of open files allows {room}")
            return False
        if len(self) < min(conf.MAX_UNAUTHENTICATED, max(1, room // SHARE)):
            return True
        oldest = next(iter(self._waiting.items()), None)
        if oldest is None or time.monotonic() - oldest[1] < MIN_AGE:
            return False
        self.leave(oldest[0])
        metrics.EVICTED.inc()
        self._log(f"{len(self) + 1} have not authenticated (MAX_UNAUTHENTICATED)")
        oldest[0].evict()
        return True

    def _log(self, reason: str) -> None:
        now = time.monotonic()
        if now - self._logged > LOG_EVERY:
            self._logged = now
            logger.warning("connections cannot be accepted: %s", reason)
