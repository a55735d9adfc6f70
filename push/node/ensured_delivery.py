"""Queues for messages that must not be dropped while their group is busy.

Each busy group has its own queue, so no other group is delayed. Later messages for the group join
its queue, which keeps the order.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping

from imgo_site.conf import conf
from push.bus.background_tasks import Background
from push.node.coalescer import Coalescer
from push.session.outgoing import OutgoingMessage

ENSURED_MAX = 10_000  # messages queued in one node, for all groups together
YIELD_AFTER = 100  # messages handed over before the event loop gets a turn


class EnsuredDelivery:
    """Queues of one hub, by group.

    `deliver(group, message)`: hands a message to the group's coalescer.
    `dropped()`: counts a dropped message.
    """

    def __init__(
        self,
        coalescers: Mapping[str, Coalescer],
        background: Background,
        deliver: Callable[[str, OutgoingMessage], None],
        dropped: Callable[[], None],
    ) -> None:
        self._coalescers = coalescers
        self._background = background
        self._deliver = deliver
        self._dropped = dropped
        self._queues: dict[str, deque[OutgoingMessage]] = {}
        self._count = 0

    def keep(self, group: str, message: OutgoingMessage) -> bool:
        """Queue a message if its group has a queue, or if it must be ensured and the group is full.

        Return False if the caller must deliver the message. With `ENSURED_MAX` messages queued,
        the message is dropped instead of queued, and the result is True.
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

    async def _feed(self, group: str, queue: deque[OutgoingMessage]) -> None:
        delivered = 0
        try:
            while queue:
                if self._is_full(group):
                    # Polling is enough: this is rare and lasts milliseconds.
                    await asyncio.sleep(conf.BATCH_WINDOW)
                    continue
                self._count -= 1
                self._deliver(group, queue.popleft())
                delivered += 1
                if delivered % YIELD_AFTER == 0:
                    await asyncio.sleep(0)
        finally:
            self._count -= len(queue)
            del self._queues[group]
