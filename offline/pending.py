"""The node's two ways to the pending messages: the batched loader and the batched acknowledger."""

import asyncio
import logging
from collections import deque

from django.db import Error as DatabaseError

from imgo_site.batching import BatchLoader, database_threads
from imgo_site.conf import conf
from offline.models import Pending, PendingMessage

logger = logging.getLogger(__name__)

FLUSH_SIZE = 2_000  # acknowledgements in one transaction
RETRY_INTERVAL = 1.0  # seconds between attempts while the database is away
BACKLOG_MAX = 200_000  # acknowledgements kept while the database is away


def _fetch(wanted: list[tuple[str, int]]) -> dict[tuple[str, int], list[PendingMessage]]:
    return Pending.objects.page(wanted, conf.REPLAY_PAGE)


# get((key, after)) → the next page of what is pending for the key, in order of id.
pending_pages: BatchLoader[tuple[str, int], list[PendingMessage]] = BatchLoader(_fetch)


def _fetch_owed(pairs: list[tuple[int, str]]) -> dict[tuple[int, str], bool]:
    return dict.fromkeys(Pending.objects.among(pairs), True)


# get((message id, key)) → True while the message is pending for the key, else None.
owed: BatchLoader[tuple[int, str], bool] = BatchLoader(_fetch_owed)


class Acknowledger:
    """Takes delivered (message id, key) pairs and deletes their pending rows in batches.

    While the database is away the pairs wait, up to `BACKLOG_MAX`; beyond that the oldest are
    forgotten, which costs a second delivery and never a message.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, str]] = deque(maxlen=BACKLOG_MAX)
        self._known: set[tuple[int, str]] = set()
        self._wakeup = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write; needs a running loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def add(self, message_id: int, key: str) -> None:
        """A session of `key` has the message."""
        pair = (message_id, key)
        if pair not in self._known:
            if len(self._waiting) == BACKLOG_MAX:
                self._known.discard(self._waiting[0])
            self._waiting.append(pair)
            self._known.add(pair)
            self._wakeup.set()

    def has(self, message_id: int, key: str) -> bool:
        """Whether this delivery is known here though its row may still be in the database."""
        return (message_id, key) in self._known

    async def stop(self) -> None:
        """Write what is waiting and end. What cannot be written now will be delivered again."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        while self._waiting:
            try:
                await self._flush()
            except DatabaseError as error:
                logger.warning(
                    "%d acknowledgements were not written: %s", len(self._waiting), error
                )
                return

    async def _run(self) -> None:
        while True:
            await self._wakeup.wait()
            try:
                # What comes while this is written is the next batch: busier makes them larger.
                await asyncio.shield(self._flush())
            except DatabaseError as error:
                logger.warning("acknowledgements wait, the database failed: %s", error)
                await asyncio.sleep(RETRY_INTERVAL)

    async def _flush(self) -> None:
        batch = [self._waiting[i] for i in range(min(FLUSH_SIZE, len(self._waiting)))]
        await database_threads.run(Pending.objects.acknowledge, batch)
        for pair in batch:
            # The backlog may have dropped some of them from the left meanwhile.
            if self._waiting and self._waiting[0] == pair:
                self._waiting.popleft()
            self._known.discard(pair)
        if not self._waiting:
            self._wakeup.clear()
