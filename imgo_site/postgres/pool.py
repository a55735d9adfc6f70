"""A connection pool whose callers do not all wait for a server that is gone."""

import threading
from typing import Any

from psycopg_pool import ConnectionPool, PoolTimeout

IMPATIENCE = 0.05  # seconds that others wait while one finds out


class Pool(ConnectionPool[Any]):
    """A pool in which, after one wait in vain, only one caller at a time waits for long.

    Otherwise each request holds one of the server's threads for the whole `timeout`, and those
    that come behind them are answered as late as the outage ends.
    """

    def __init__(self, **options: Any) -> None:
        self._is_failing = False
        self._finding_out = threading.Lock()
        super().__init__(**options)

    def getconn(self, timeout: float | None = None) -> Any:
        """Return a connection. Raises `PoolTimeout`, soon if another caller waits already."""
        if not self._is_failing:
            return self._get(timeout)
        if not self._finding_out.acquire(blocking=False):
            return super().getconn(IMPATIENCE)
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
