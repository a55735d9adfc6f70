"""Dialect: the statements that Postgres and SQLite need in different forms."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, TypeVar

T = TypeVar("T")

CHUNK = 400  # rows of one statement with parameters: below SQLite's limit of them


def chunks(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """Split rows into parts that one statement takes."""
    for start in range(0, len(rows), CHUNK):
        yield rows[start : start + CHUNK]


class Dialect(ABC):
    """Statements whose SQL differs between the databases, and the expressions that differ."""

    # Expressions

    @abstractmethod
    def now(self) -> str:
        """Return SQL for the time of the statement."""

    @abstractmethod
    def seconds_since(self, column: str) -> str:
        """Return SQL for the seconds from the time in a column to the time of the statement."""

    @abstractmethod
    def transaction_id(self) -> str:
        """Return SQL for the number of the transaction; 0 where the database has none."""

    @abstractmethod
    def read_time(self, value: Any) -> datetime:
        """Return a time as raw SQL returned it, with its time zone."""

    # The outbox

    @abstractmethod
    def partition_lock(self, partition: int, *, wait: bool) -> AbstractContextManager[bool]:
        """Hold the lock of a partition while the context is open.

        The context's value is False if another holder has the lock. Leave the context with an
        exception then. `wait`: wait for the other holder first, on Postgres at most 10 seconds.
        """

    @abstractmethod
    def partition_ages(self) -> dict[int, float]:
        """Return, for each partition with rows to fan out, the age of the first one in seconds."""
