"""Counts of the sessions that messages to rooms and to everyone were written to.

A node counts as it writes, and stores the counts in batches: the record of such a push says how
many sessions of how many nodes got it.
"""

from imgo_site.database_threads import cluster_threads
from offline import reach
from push.metrics import definitions as metrics

MESSAGES_MAX = 50_000  # whose counts wait to be stored
FLUSH_EVERY = 1.0  # seconds


class ReachCounts:
    """The counts of one node that are not stored yet.

    While the database is unavailable those of up to `MESSAGES_MAX` messages wait. Beyond that new
    ones are dropped, counted in `imgo_reach_lost_total`.
    """

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    def add(self, message_id: int, sessions: int) -> None:
        """Note that a message was written to so many sessions; a message without id is ignored."""
        if message_id and sessions:
            if len(self._counts) < MESSAGES_MAX:
                self._counts[message_id] = sessions
            else:
                metrics.REACH_LOST.inc()

    async def flush(self) -> None:
        """Store what waits. Raises what the database raises; it is not tried again.

        A statement whose answer was lost may have been carried out. Repeated, it would count the
        same sessions twice.
        """
        counts, self._counts = self._counts, {}
        try:
            if counts:
                await cluster_threads.run_once(reach.add_counts, list(counts.items()))
        except BaseException:
            metrics.REACH_LOST.inc(len(counts))
            raise
