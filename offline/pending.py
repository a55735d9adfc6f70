"""The node's ways to the database: batched loaders of what is pending, and the acknowledger."""

import asyncio
import logging
import time
from collections import deque

from django.db import Error as DatabaseError

from imgo_site.batching import BatchLoader, database_threads
from imgo_site.conf import conf
from offline.events import ACKNOWLEDGED, RECEIVED, SENT, Event, Receipt
from offline.pendings import HistoryPage, Page, Pending, PendingMessage

logger = logging.getLogger(__name__)

FLUSH_SIZE = 2_000  # receipts in one transaction
RETRY_INTERVAL = 1.0  # seconds between attempts while the database is away
BACKLOG_MAX = 200_000  # receipts kept while the database is away


def _fetch(wanted: list[Page]) -> dict[Page, list[PendingMessage]]:
    return Pending.objects.page(wanted, conf.REPLAY_PAGE)


def _fetch_history(wanted: list[HistoryPage]) -> dict[HistoryPage, list[PendingMessage]]:
    return Pending.objects.history(wanted, conf.REPLAY_PAGE)


# get((key, after)) → the next page of what is pending for the key, in order of id.
pending_pages: BatchLoader[Page, list[PendingMessage]] = BatchLoader(_fetch)
# get((key, after, since)) → the same, with what the key has had above `since`.
history_pages: BatchLoader[HistoryPage, list[PendingMessage]] = BatchLoader(_fetch_history)


def _fetch_owed(pairs: list[tuple[int, str]]) -> dict[tuple[int, str], bool]:
    return dict.fromkeys(Pending.objects.among(pairs), True)


# get((message id, key)) → True while the message is pending for the key, else None.
owed: BatchLoader[tuple[int, str], bool] = BatchLoader(_fetch_owed)


class Acknowledger:
    """Takes receipts and writes them in batches: events, and the pending rows that they settle.

    While the database is away the receipts wait, up to `BACKLOG_MAX`; beyond that the oldest are
    forgotten, which costs a second delivery and never a message.
    """

    def __init__(self) -> None:
        # (message id, key, kind, session id, time)
        self._waiting: deque[tuple[int, str, str, str, float]] = deque(maxlen=BACKLOG_MAX)
        self._known: set[tuple[int, str]] = set()  # of those that settle
        self._wakeup = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write; needs a running loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def sent(self, message_id: int, key: str, session: str) -> None:
        """A session that acknowledges itself was sent the message."""
        self._add(message_id, key, SENT, session)

    def received(self, message_id: int, key: str, session: str) -> None:
        """The kernel took the message for a session that cannot acknowledge: that settles it."""
        self._known.add((message_id, key))
        self._add(message_id, key, RECEIVED, session)

    def acknowledged(self, message_id: int, key: str, session: str) -> None:
        """A client acknowledged the message."""
        if (message_id, key) not in self._known:
            self._known.add((message_id, key))
            self._add(message_id, key, ACKNOWLEDGED, session)

    def _add(self, message_id: int, key: str, kind: str, session: str) -> None:
        if len(self._waiting) == BACKLOG_MAX:
            self._known.discard(self._waiting[0][:2])
        self._waiting.append((message_id, key, kind, session, time.monotonic()))
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
                logger.warning("%d receipts were not written: %s", len(self._waiting), error)
                return

    async def _run(self) -> None:
        while True:
            await self._wakeup.wait()
            try:
                # What comes while this is written is the next batch: busier makes them larger.
                await asyncio.shield(self._flush())
            except DatabaseError as error:
                logger.warning("receipts wait, the database failed: %s", error)
                await asyncio.sleep(RETRY_INTERVAL)

    async def _flush(self) -> None:
        batch = [self._waiting[i] for i in range(min(FLUSH_SIZE, len(self._waiting)))]
        await database_threads.run(_record, batch)
        for receipt in batch:
            # The backlog may have dropped some of them from the left meanwhile.
            if self._waiting and self._waiting[0] is receipt:
                self._waiting.popleft()
            if receipt[2] != SENT:
                self._known.discard(receipt[:2])
        if not self._waiting:
            self._wakeup.clear()


def _record(batch: list[tuple[int, str, str, str, float]]) -> None:
    now = time.monotonic()
    Event.objects.record(
        [Receipt(i, key, kind, session, now - at) for i, key, kind, session, at in batch]
    )
