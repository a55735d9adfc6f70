"""The database's time in a node: for what must not depend on the clock of the node's host.

All processes share the database, and their hosts' clocks may be hours apart. A node keeps the
offset of the database's time to CLOCK_BOOTTIME, which nobody sets and which runs on while the host
is suspended. Between two readings the time costs no query.
"""

import time
from dataclasses import dataclass

from django.db import connection

from imgo_site.database_threads import cluster_threads
from imgo_site.errors import Unavailable

BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # Linux has it
ERROR_MAX = 0.5  # seconds that a reading may be wrong, while there is a better one
STALE_AFTER = 60.0  # seconds until any reading is better than the last one
STATEMENTS = {
    "postgresql": "SELECT extract(epoch FROM clock_timestamp())",
    "sqlite": "SELECT (julianday('now') - 2440587.5) * 86400.0",  # days from the Julian epoch
}


@dataclass(frozen=True, slots=True)
class Reading:
    """The database's time `unix`, which was true between `begin` and `end` of `boot_time`."""

    unix: float
    begin: float
    end: float


def boot_time() -> float:
    """Return seconds since the host was started."""
    return time.clock_gettime(BOOT)


def read_database_time() -> Reading:
    """Ask the database for its time: one query."""
    begin = boot_time()
    with connection.cursor() as cursor:
        cursor.execute(STATEMENTS[connection.vendor])
        (unix,) = cursor.fetchone()
    return Reading(float(unix), begin, boot_time())


class DatabaseClock:
    """The database's time by the last reading. A node owns one."""

    __slots__ = ("_error", "_offset", "_read_at")

    def __init__(self) -> None:
        self._offset: float | None = None  # seconds to add to `boot_time`
        self._error = 0.0  # seconds that the offset may be wrong
        self._read_at = 0.0  # of `boot_time`

    async def renew(self) -> None:
        """Take a new reading. Raises what the database raises; the last reading stays."""
        self.take(await cluster_threads.run(read_database_time))

    def take(self, reading: Reading) -> None:
        """Take a reading that somebody has made, unless it is bad and there is a better one."""
        error = (reading.end - reading.begin) / 2
        is_fresh = self._offset is not None and reading.end - self._read_at < STALE_AFTER
        if is_fresh and error > max(ERROR_MAX, self._error):
            return
        self._offset = reading.unix - (reading.begin + reading.end) / 2
        self._error, self._read_at = error, reading.end

    def now(self) -> float:
        """Return the database's Unix time in seconds. Raises `Unavailable` before a reading."""
        if self._offset is None:
            raise Unavailable("The database's time is not known yet; come back in a moment.")
        return boot_time() + self._offset
