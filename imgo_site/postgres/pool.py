"""A connection pool that is quick to find a server that is back.

Its callers do not all wait for one that is gone.
"""

import threading
from typing import Any

from psycopg_pool import ConnectionPool, PoolTimeout
from psycopg_pool.base import AttemptWithBackoff

SHORT_WAIT = 0.05  # seconds that others wait while one finds out
RETRY_MAX = 1.0  # seconds between two attempts to connect


class Attempt(AttemptWithBackoff):
    """Attempts to connect at a steady pace: psycopg's own comes to pauses of minutes."""

    INITIAL_DELAY = RETRY_MAX / 4

    def update_delay(self, now: float) -> None:
        """Set the pause before the next attempt, in seconds."""
        super().update_delay(now)
        self.delay = min(self.delay, RETRY_MAX)


class Pool(ConnectionPool[Any]):
    """A pool in which, after one wait in vain, only one caller at a time waits for long.

    Otherwise each request holds one of the server's threads for the whole `timeout`, and those
    that come behind them are answered as late as the outage ends.
    """

    def __init__(self, **options: Any) -> None:
        self._is_failing = False
        self._finding_out = threading.Lock()
        super().__init__(**options)

    def _add_connection(self, attempt: AttemptWithBackoff | None, growing: bool = False) -> None:
        super()._add_connection(attempt or Attempt(timeout=self.reconnect_timeout), growing)

    def getconn(self, timeout: float | None = None) -> Any:
        """Return a connection. Raises `PoolTimeout`, soon if another caller waits already."""
        if not self._is_failing:
            return self._get(timeout)
        if not self._finding_out.acquire(blocking=False):
            return super().getconn(SHORT_WAIT)
        try:
            return self._get(timeout)
        finally:
            self._finding_out.release()

    def _get(self, timeout: float | None) -> Any:
        try:
            found = super().getconn(timeout)
        except PoolTimeout:
            self._is_failing = True
            raise
        self._is_failing = False
        return found
