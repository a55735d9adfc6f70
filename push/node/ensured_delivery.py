"""Messages that wait for room in a busy group instead of being dropped.

They wait each in its group's own queue, with whatever comes behind them for the same group, so
that the order stays and no other group waits along.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping

from imgo_site.conf import conf
from push.bus.background_tasks import Background
from push.node.coalescer import Coalescer
from push.session.session import Outgoing

ENSURED_MAX = 10_000  # messages that wait in one node, for all groups together
FAIRNESS = 100  # messages handed over before the event loop gets a turn


class EnsuredDelivery:
    """The queues of one hub. `deliver(group, message)` hands a message to the group's coalescer."""

    def __init__(
        self,
        coalescers: Mapping[str, Coalescer],
        background: Background,
        deliver: Callable[[str, Outgoing], None],
        dropped: Callable[[], None],
    ) -> None:
        self._coalescers = coalescers
        self._background = background
        self._deliver = deliver
        self._dropped = dropped
        self._queues: dict[str, deque[Outgoing]] = {}
        self._count = 0

    def keep(self, group: str, message: Outgoing) -> bool:
        """Take a message that has to wait; return whether it does.

        Beyond `ENSURED_MAX` messages, one that comes is dropped.
        """
        queue = self._queues.get(group)
        if queue is None:
            if not (message.ensure and self._is_full(group)):
                return False
            queue = self._queues[group] = deque()
            self._background.run(self._feed(group, queue))
        if self._count >= ENSURED_MAX:
            self._dropped()
        else:
            queue.append(message)
            self._count += 1
        return True

    def _is_full(self, group: str) -> bool:
        coalescer = self._coalescers.get(group)
        return coalescer is not None and coalescer.is_full

    async def _feed(self, group: str, queue: deque[Outgoing]) -> None:
        given = 0
        try:
            while queue:
                if self._is_full(group):
                    # Rare, and over in milliseconds: not worth an event of its own.
                    await asyncio.sleep(conf.BATCH_WINDOW)
                    continue
                self._count -= 1
                self._deliver(group, queue.popleft())
                given += 1
                if given % FAIRNESS == 0:
                    await asyncio.sleep(0)
        finally:
            self._count -= len(queue)
            del self._queues[group]
