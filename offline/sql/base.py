"""Dialect: the statements that Postgres and SQLite need in different forms."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Literal, TypeVar

from django.db.models import Expression

from offline.values import DedupeTable, DeviceReceipt, NewMessage, Receipt, Stored

T = TypeVar("T")

# Content of a page of a key. "pending": pending messages. "long pending": messages that have been
# pending for some seconds and whose fan-out is over. "history": pending messages, and messages
# that sessions have had. "lately": pending messages, and messages had in the last seconds.
PageKind = Literal["pending", "long pending", "history", "lately"]

CHUNK = 400  # rows of one statement, whose parameters stay below SQLite's limit


def chunks(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield parts of `rows` that fit one statement."""
    for start in range(0, len(rows), CHUNK):
        yield rows[start : start + CHUNK]


class Dialect(ABC):
    """Statements and expressions whose SQL differs between the databases."""

    # Expressions

    @abstractmethod
    def now(self) -> str:
        """Return SQL for the time of the statement."""

    @abstractmethod
    def seconds_since(self, column: str) -> str:
        """Return SQL for the seconds from the time in a column to the time of the statement."""

    @abstractmethod
    def time_before(self, seconds: float) -> str:
        """Return SQL for the time so many seconds before the statement."""

    @abstractmethod
    def cluster_identity(self) -> str:
        """Return SQL for a text that names the database's cluster and its timeline.

        After a restore from a backup, or the promotion of a standby, it is another one.
        """

    @abstractmethod
    def transaction_id(self) -> str:
        """Return SQL for the number of the transaction; 0 where the database has none."""

    @abstractmethod
    def row_xmin(self) -> Expression:
        """Return the ORM's expression for the transaction that wrote a row; 0 on SQLite."""

    @abstractmethod
    def transaction_bounds(self) -> tuple[int, int]:
        """Return ids of transactions, (first, next): all below `first` have ended.

        No transaction has begun to write with the id `next` or a higher one. (0, 0) on SQLite,
        where transactions end in the order in which they begin to write.
        """

    @abstractmethod
    def read_time(self, value: Any) -> datetime:
        """Return a time as raw SQL returned it, with its time zone."""

    @abstractmethod
    def share_lock(self) -> str:
        """Return the clause of a SELECT that keeps others from deleting its rows."""

    # Storing

    @abstractmethod
    def insert(
        self,
        messages: Sequence[NewMessage],
        dedupe: DedupeTable | None,
        begin: str,
        devices: Mapping[str, Sequence[str]],
    ) -> Stored:
        """Do what `store.insert` describes, for at least one message.

        `devices`: key → names of the devices that a message for the key becomes pending for. Other
        keys have one row, with the device "".
        """

    # The outbox

    @abstractmethod
    def partition_lock(self, partition: int, *, wait: bool) -> AbstractContextManager[bool]:
        """Hold the lock of a partition while the context is open.

        The context's value is False if another holder has the lock. Leave the context with an
        exception then. `wait`: wait for the other holder first, on Postgres at most 10 seconds.
        """

    @abstractmethod
    def accepting_transactions(self) -> set[str]:
        """Return names of the open transactions that have stored messages, or are storing them."""

    @abstractmethod
    def prefer_indexes(self) -> None:
        """Find and order rows by indexes until the transaction ends.

        The planner of Postgres would read and sort a table as a whole that has no statistics yet.
        """

    @abstractmethod
    def partition_ages(self) -> dict[int, float]:
        """Return, for each partition with rows to fan out, the age of the first one in seconds."""

    # Settlement

    @abstractmethod
    def record_receipts(self, receipts: Sequence[Receipt], *, again: bool) -> int:
        """Do what `settlement.record_receipts` describes, for at least one receipt."""

    @abstractmethod
    def record_device_receipts(self, receipts: Sequence[DeviceReceipt], *, again: bool) -> set[int]:
        """Record receipts of keys with the scope `each`; return the places of those that settled.

        A receipt settles the row of its device. Without one, it settles the row of the device "",
        unless that is a device of the key.
        """

    @abstractmethod
    def keys_over_limit(self, keys: list[str], limit: int) -> dict[str, int]:
        """Return those of `keys` that have more than `limit` pending messages, and how many."""

    # Replay

    @abstractmethod
    def filter_pending(self, pairs: list[tuple[int, str]]) -> set[tuple[int, str]]:
        """Return those of these (message id, key) that are pending."""

    @abstractmethod
    def pages_query(self, kind: PageKind, size: int, age: float) -> str:
        """Return the query for any number of pages, each of at most `size` messages.

        Its only parameter is a JSON array with an object for each page: `place`, `key`, `after` and
        `since`. Django needs longer to quote four parameters a page than for all the rest. Its rows
        are (place, message id, op, body, is_json, had, had_xmin, exclude), in order of place and
        id. On Postgres a last row without a place has the query's snapshot, a text, as `exclude`.
        `age`: seconds, for the kinds "long pending" and "lately".
        """

    @abstractmethod
    def device_pages_query(self, kind: PageKind, size: int, age: float) -> str:
        """Return the query for pages of devices: as `pages_query`, with `device` in each object.

        A page has the messages of all devices with its place. Its rows have the device as a further
        column, by which messages with the same id are ordered.
        """
