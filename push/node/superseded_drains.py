"""Recognizes envelopes of a drain that a later drain of the same partition has superseded.

If Redis does not answer, a publisher gives up, and the partition is drained again, maybe by another
process. The envelopes of the first drain may still be in a socket. Redis then publishes them late,
behind envelopes of the second drain, and a session would receive messages out of order.

A node can drop such late envelopes without losing a message:

1. Only one process drains a partition at a time. Each drain has the id of its transaction as its
   generation, so a later drain has a higher generation.
2. If the earlier drain had been committed, all its envelopes would have arrived before those of a
   later drain. So a late envelope is from a drain that was not committed.
3. The messages of a drain that was not committed stay in the outbox. A later drain sends them
   again, in their order.
"""

import time

# Seconds. Not longer, because transaction ids of a restored database may begin lower again.
MEMORY = 60.0
PARTITIONS_MAX = 10_000


class Drains:
    """The newest drain of each partition of which one node has received an envelope."""

    def __init__(self) -> None:
        self._newest: dict[int, tuple[int, float]] = {}

    def is_superseded(self, partition: int, generation: int) -> bool:
        """Record an envelope's drain; return whether a later one was recorded within `MEMORY`.

        `generation`: the id of the drain's transaction.
        """
        newest, at = self._newest.get(partition, (0, 0.0))
        now = time.monotonic()
        if generation < newest and now - at < MEMORY:
            return True
        if partition in self._newest or len(self._newest) < PARTITIONS_MAX:
            self._newest[partition] = (generation, now)
        return False
