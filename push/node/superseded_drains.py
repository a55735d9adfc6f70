"""Which drain of a partition an envelope comes from, and whether a later one has superseded it.

When Redis does not answer, a publisher gives up and the partition is drained again, maybe by
another process. What the first one had written may still lie in a socket, and Redis carries it
out later, behind what was sent since. Only one process drains a partition at a time, and its
transaction's id is higher than that of all before. So once a node has heard a later drain, an
envelope of an earlier one is such a copy: the earlier drain was not committed, or all it sent
would have come first, and so its messages are sent again by a later one, in their order.
"""

import time

MEMORY = 60.0  # seconds; ids begin lower again on a database that was restored from an older one
PARTITIONS_MAX = 10_000


class Drains:
    """The newest drain of each partition that one node has heard."""

    def __init__(self) -> None:
        self._newest: dict[int, tuple[int, float]] = {}

    def is_superseded(self, partition: int, generation: int) -> bool:
        """Note an envelope's drain; return whether a later one was heard in the last minute."""
        newest, at = self._newest.get(partition, (0, 0.0))
        now = time.monotonic()
        if generation < newest and now - at < MEMORY:
            return True
        if partition in self._newest or len(self._newest) < PARTITIONS_MAX:
            self._newest[partition] = (generation, now)
        return False
