"""A node's access to pending messages: batched loaders, and the acknowledger."""

import asyncio
import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import NamedTuple

from django.db import DataError, IntegrityError
from django.db import Error as DatabaseError

from imgo_site.batching import BatchLoader
from imgo_site.conf import conf
from imgo_site.database_threads import session_threads
from offline import key_messages, settlement
from offline.models import ACKNOWLEDGED, RECEIVED, SENT
from offline.sql import PageKind
from offline.values import (
    Delivered,
    DevicePage,
    DeviceReceipt,
    HistoryPage,
    MessagePage,
    Page,
    Receipt,
)

logger = logging.getLogger(__name__)

FLUSH_SIZE = 2_000  # receipts in one transaction
# A busy node waits this many seconds for further receipts: small transactions cost it much. A quiet
# one does not, because the write could then fall on the next push.
GATHER = 0.01
BUSY = 10  # receipts in one transaction from which on a node is busy
RETRY_INTERVAL = 1.0  # seconds between attempts while the database is unavailable
CLAIM_WINDOW = 10.0  # seconds
BACKLOG_MAX = 200_000  # receipts kept while the database is unavailable
# Errors that are about one receipt: writing the same one again cannot help.
PERMANENT_ERRORS = (DataError, IntegrityError, ValueError, TypeError)


def _fetch_pending(pages: list[Page]) -> dict[Page, MessagePage]:
    return key_messages.read_pending(pages, conf.REPLAY_PAGE)


def _fetch_history(pages: list[HistoryPage]) -> dict[HistoryPage, MessagePage]:
    return key_messages.read_history(pages, conf.REPLAY_PAGE)


# get((key, after)) → the next page of pending messages of the key, in order of id.
pending_pages: BatchLoader[Page, MessagePage] = BatchLoader(_fetch_pending)
# get((key, after, since)) → the same, with messages above `since` that the key has had.
history_pages: BatchLoader[HistoryPage, MessagePage] = BatchLoader(_fetch_history)


class ResumedPage(NamedTuple):
    """The next page of what a key's client has missed: after a message id, within some seconds."""

    key: str
    after: int
    age: float


def _doublings(age: float) -> int:
    """Return how often one second must be doubled to reach an age, seconds."""
    return math.ceil(math.log2(max(age, 1.0)))


def _fetch_resumed(pages: list[ResumedPage]) -> dict[ResumedPage, MessagePage]:
    # One query for all pages of about the same age, with the longest of them.
    by_size: dict[int, list[ResumedPage]] = {}
    for page in pages:
        by_size.setdefault(_doublings(page.age), []).append(page)
    messages: dict[ResumedPage, MessagePage] = {}
    for size, alike in by_size.items():
        places = {(page.key, page.after) for page in alike}
        read = key_messages.read_missed(places, conf.REPLAY_PAGE, 2.0**size)
        messages.update({page: read[page.key, page.after] for page in alike})
    return messages


# get(page) → pending messages of the key, and those that its sessions have had for at most that
# long, or up to twice as long.
resumed_pages: BatchLoader[ResumedPage, MessagePage] = BatchLoader(_fetch_resumed)


def _fetch_deliveries(pairs: list[tuple[int, str]]) -> dict[tuple[int, str], Delivered]:
    # In this order: a message that is settled in between is found by the second query.
    pending = dict.fromkeys(key_messages.filter_pending(pairs), Delivered(0.0, None))
    return key_messages.find_deliveries(pairs) | pending


# get((message id, key)) → the delivery to a session of the key, of age 0 while the message is
# pending; None if it expired or was dropped.
deliveries: BatchLoader[tuple[int, str], Delivered] = BatchLoader(_fetch_deliveries)


class DeviceRead(NamedTuple):
    """The next page of one device of a key. `kind`, `age`: see `key_messages`."""

    page: DevicePage
    kind: PageKind
    age: float = 0.0


def _fetch_device_pages(reads: list[DeviceRead]) -> dict[DeviceRead, MessagePage]:
    # One query for all pages of a kind and of about the same age, with the longest of them.
    alike: dict[tuple[PageKind, int], list[DeviceRead]] = {}
    for read in reads:
        alike.setdefault((read.kind, _doublings(read.age)), []).append(read)
    messages: dict[DeviceRead, MessagePage] = {}
    for (kind, size), similar in alike.items():
        pages = {read.page for read in similar}
        rows = key_messages.read_device_pages(pages, conf.REPLAY_PAGE, kind, 2.0**size)
        messages.update({read: rows[read.page] for read in similar})
    return messages


# get(read) → messages of the device, in order of id.
device_pages: BatchLoader[DeviceRead, MessagePage] = BatchLoader(_fetch_device_pages)


# get((message id, key, device)) → like `deliveries`, for one device of the key.
device_deliveries: BatchLoader[tuple[int, str, str], Delivered] = BatchLoader(
    key_messages.find_device_deliveries
)


async def find_delivery(message_id: int, key: str, device: str | None) -> Delivered | None:
    """Return the delivery of a message to a session of a key; None if it expired or was dropped.

    `device`: that of the session, None if its key has the scope `any`. Raises what the database
    raises.
    """
    if device is None:
        return await deliveries.get((message_id, key))
    return await device_deliveries.get((message_id, key, device))


# Message id, key, kind, session id, time, device: None for a key with the scope `any`.
Row = tuple[int, str, str, str, float, str | None]


class Acknowledger:
    """Writer of receipts in batches: it records events and deletes the pending rows they settle.

    While the database is unavailable, up to `BACKLOG_MAX` receipts wait. Beyond that the oldest are
    dropped. A dropped receipt may cause a second delivery, but never the loss of a message.
    `on_lost(reason)` is called for each dropped receipt.

    `device` of a receipt: the name of the session's device if its key has the scope `each`, "" for
    a session that gave no name; None for a key with the scope `any`. `on_read(receipts)` is called
    with those by which a client has settled a message for its device.
    """

    def __init__(
        self,
        on_lost: Callable[[str], None] | None = None,
        on_read: Callable[[list[DeviceReceipt]], object] | None = None,
    ) -> None:
        self._waiting: deque[Row] = deque(maxlen=BACKLOG_MAX)
        self._known: set[tuple[int, str, str | None]] = set()  # of those that settle
        self._wakeup = asyncio.Event()
        self._flushing: asyncio.Task[None] | None = None
        # Whether waiting receipts may be in the database: a write failed, or its answer was lost.
        self._may_be_written = False
        self._on_lost = on_lost or _ignore
        self._on_read = on_read or _ignore
        # Ids by key and device, since `_claims_since`.
        self._claims: Counter[tuple[str, str | None]] = Counter()
        self._claims_since = 0.0  # monotonic seconds

    def sent(self, message_id: int, key: str, session: str, device: str | None = None) -> None:
        """Record that the message was sent to a session whose client acknowledges."""
        self._add((message_id, key, SENT, session, time.monotonic(), device))

    def received(self, message_id: int, key: str, session: str, device: str | None = None) -> None:
        """Settle the message: the kernel took it for a session that cannot acknowledge."""
        self._known.add((message_id, key, device))
        self._add((message_id, key, RECEIVED, session, time.monotonic(), device))

    def acknowledged(
        self, message_id: int, key: str, session: str, device: str | None = None
    ) -> None:
        """Settle the message: a client acknowledged it."""
        if (message_id, key, device) not in self._known:
            self._known.add((message_id, key, device))
            self._add((message_id, key, ACKNOWLEDGED, session, time.monotonic(), device))

    def claimed(self, message_id: int, key: str, session: str, device: str | None = None) -> bool:
        """Settle a message that the session was not sent; return False if too many are claimed.

        An earlier session of the key may have been sent the message. Within `CLAIM_WINDOW` a key,
        or a device of it, may claim `OFFLINE_MAX` ids, as many as may be pending for it. That
        bounds the ids that one client makes up.
        """
        now = time.monotonic()
        if now - self._claims_since > CLAIM_WINDOW:
            self._claims.clear()
            self._claims_since = now
        self._claims[key, device] += 1
        if self._claims[key, device] > conf.OFFLINE_MAX:
            return False
        self.acknowledged(message_id, key, session, device)
        return True

    def _add(self, row: Row) -> None:
        if len(self._waiting) == BACKLOG_MAX:
            self._known.discard(_place(self._waiting[0]))
            self._on_lost("backlog")
        self._waiting.append(row)
        self._wakeup.set()

    def settled_at(self, message_id: int, key: str, device: str | None = None) -> float | None:
        """Return when this delivery was settled here (monotonic seconds), if not yet written."""
        place = (message_id, key, device)
        if place not in self._known:
            return None
        times = (row[4] for row in self._waiting if _place(row) == place and row[2] != SENT)
        return next(times, None)

    def has(self, message_id: int, key: str, device: str | None = None) -> bool:
        """Return whether this delivery is settled here, though its row may still be stored."""
        return (message_id, key, device) in self._known

    @property
    def waiting(self) -> int:
        """Return the number of receipts that are not written yet."""
        return len(self._waiting)

    async def run(self) -> None:
        """Write receipts as they arrive. Never returns; the caller restarts it if it raises."""
        size = 0  # of the last batch
        while True:
            await self._wakeup.wait()
            if size >= BUSY and len(self._waiting) < FLUSH_SIZE:
                await asyncio.sleep(GATHER)
            size = len(self._waiting)
            try:
                # Receipts that arrive during this write form the next batch.
                await self._flush_once()
            except DatabaseError as error:
                logger.warning("could not write receipts, retrying: %s", error)
                await asyncio.sleep(RETRY_INTERVAL)

    async def stop(self) -> None:
        """Write the waiting receipts. Call it after `run` was cancelled.

        It waits for a flush that `run` has begun, and does not repeat it. The next node delivers
        messages again whose receipts cannot be written. If this is cancelled, a flush that has
        begun continues in its thread.
        """
        try:
            while self._waiting:
                await self._flush_once()
        except DatabaseError as error:
            logger.warning("%d receipts were not written: %s", len(self._waiting), error)

    async def _flush_once(self) -> None:
        """Write one batch, or wait for the one that is being written."""
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.get_running_loop().create_task(self._flush())
        await asyncio.shield(self._flushing)

    async def _flush(self) -> None:
        batch = [self._waiting[i] for i in range(min(FLUSH_SIZE, len(self._waiting)))]
        try:
            read = await session_threads.run(self._record, batch)
        except PERMANENT_ERRORS:
            await self._flush_each(batch)
        else:
            self._forget(batch)
            if read:
                self._on_read(read)
        self._may_be_written = False

    async def _flush_each(self, batch: list[Row]) -> None:
        """Write the receipts of a failed batch one by one; drop those that cannot be written."""
        for row in batch:
            try:
                await session_threads.run(self._record, [row])
            except PERMANENT_ERRORS:
                logger.exception("a receipt of message %d cannot be written, it is dropped", row[0])
                self._on_lost("refused")
            self._forget([row])

    def _record(self, batch: list[Row]) -> list[DeviceReceipt]:
        """Write receipts. The thread and `run` call it again after a failure.

        Return those by which a client has settled a message for its device.
        """
        again, self._may_be_written = self._may_be_written, True
        now = time.monotonic()
        plain: list[Receipt] = []
        of_devices: list[DeviceReceipt] = []
        for i, key, kind, session, at, device in batch:
            if device is None:
                plain.append(Receipt(i, key, kind, session, now - at))
            else:
                of_devices.append(DeviceReceipt(i, key, kind, session, now - at, device))
        settlement.record_receipts(plain, again=again)
        if not of_devices:
            return []
        settled = settlement.record_device_receipts(of_devices, again=again)
        return [receipt for receipt in settled if receipt.kind == ACKNOWLEDGED]

    def _forget(self, batch: list[Row]) -> None:
        for receipt in batch:
            # A full backlog may have dropped some of the batch from the left in the meantime.
            if self._waiting and self._waiting[0] is receipt:
                self._waiting.popleft()
            if receipt[2] != SENT:
                self._known.discard(_place(receipt))
        if not self._waiting:
            self._wakeup.clear()


def _place(row: Row) -> tuple[int, str, str | None]:
    """Return the message id, the key and the device of a row."""
    return row[0], row[1], row[5]


def _ignore(_value: object) -> None:
    """Do nothing: the default of `on_lost` and of `on_read`."""
