"""The database's time in a node, for uses that must not depend on the clock of the node's host.

All processes share the database, and their hosts' clocks may be hours apart. A node keeps the
offset of the database's time to CLOCK_BOOTTIME. That clock cannot be set, and it continues while
the host is suspended. Between two readings the time costs no query.
"""

import time
from dataclasses import dataclass

from django.db import connection

from imgo_site.database_threads import cluster_threads
from imgo_site.errors import Unavailable

BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # the first exists only on Linux
ERROR_MAX = 0.5  # seconds; a reading with a larger error replaces no recent, better one
STALE_AFTER = 60.0  # seconds after which any new reading replaces the last one
STATEMENTS = {
    "postgresql": "SELECT extract(epoch FROM clock_timestamp())",
    "sqlite": "SELECT (julianday('now') - 2440587.5) * 86400.0",  # days from the Julian epoch
}


@dataclass(frozen=True, slots=True)
class Reading:
    """A reading of the database's time, taken between `begin` and `end` of `boot_time`.

    `unix`: the database's Unix time, seconds.
    """

    unix: float
    begin: float
    end: float


def boot_time() -> float:
    """Return the seconds since the host was started."""
    return time.clock_gettime(BOOT_CLOCK)


def read_database_time() -> Reading:
    """Query the database's time."""
    connection.ensure_connection()  # connecting may take long, and would add to the error
    begin = boot_time()
    with connection.cursor() as cursor:
        cursor.execute(STATEMENTS[connection.vendor])
        (unix,) = cursor.fetchone()
    return Reading(float(unix), begin, boot_time())


class DatabaseClock:
    """Clock that shows the database's time, from the last reading. A node owns one."""

    __slots__ = ("_error", "_offset", "_read_at")

    def __init__(self) -> None:
        self._offset: float | None = None  # seconds to add to `boot_time`
        self._error = 0.0  # seconds that the offset may be wrong
        self._read_at = 0.0  # `boot_time` of the last reading

    async def renew(self) -> None:
        """Take a new reading. Raises `DatabaseError`; the last reading stays valid then."""
        self.take(await cluster_threads.run(read_database_time))

    def take(self, reading: Reading) -> None:
        """Use a reading, unless its error is large and a recent reading is better."""
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
