"""Counts of the sessions that messages to rooms and to everyone were written to.

A node counts while it writes, and stores the counts in batches. The record of such a push shows how
many sessions of how many nodes got it.
"""

from imgo_site.database_threads import cluster_threads
from offline import reach
from push.metrics import definitions as metrics

MESSAGES_MAX = 50_000  # messages whose counts wait to be stored
FLUSH_EVERY = 1.0  # seconds


class ReachCounts:
    """Counts of one node that are not stored yet.

    While the database is unavailable, the counts of up to `MESSAGES_MAX` messages wait. Further
    counts are dropped and counted in `imgo_reach_lost_total`.
    """

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    def add(self, message_id: int, sessions: int) -> None:
        """Record the number of sessions that a message was written to; ignore one without an id."""
        if message_id and sessions:
            if len(self._counts) < MESSAGES_MAX:
                self._counts[message_id] = sessions
            else:
                metrics.REACH_LOST.inc()

    async def flush(self) -> None:
        """Store the waiting counts. Raises what the database raises.

        A failed statement is not retried. It may have been executed although its answer was lost,
        and a retry would count the same sessions twice.
        """
        counts, self._counts = self._counts, {}
        try:
            if counts:
                await cluster_threads.run_once(reach.add_counts, list(counts.items()))
        except BaseException:
            metrics.REACH_LOST.inc(len(counts))
            raise
