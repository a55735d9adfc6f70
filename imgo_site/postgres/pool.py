"""Connection pool that notices soon when the server is available again.

While the server is unavailable, only one caller at a time waits for long.
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
    """Pool in which only one caller at a time waits for long after a wait that failed.

    Otherwise each request would occupy one of the server's threads for the whole `timeout`, and all
    later requests would be answered only at the end of the outage.
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
            connection = super().getconn(timeout)
        except PoolTimeout:
            self._is_failing = True
            raise
        self._is_failing = False
        return connection
