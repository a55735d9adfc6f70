"""Readings of the database: which rows a statement saw, told exactly and without clocks."""

from dataclasses import dataclass
from typing import Self

WRAP = 2**32  # a row's xmin is the lower half of its transaction's id


class Everything:
    """The reading of a database with one writer at a time, for one process: SQLite.

    Ids are in the order of their commits there. A message with a lower id than one that was read,
    and that is settled, was settled before the reading.
    """

    def sees(self, xmin: int) -> bool:  # noqa: ARG002
        """Return that it saw a row."""
        return True


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A reading of Postgres: what `pg_current_snapshot()` says, with ids of 64 bits.

    `xmin`: all transactions below it had ended. `xmax`: none from it on had. `in_progress`: those
    between that had not. Subtransactions are not in it.
    """

    xmin: int
    xmax: int
    in_progress: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the snapshot of a text `xmin:xmax:xid,xid,...`, the last part empty or not."""
        xmin, xmax, xids = text.split(":")
        return cls(int(xmin), int(xmax), frozenset(map(int, filter(None, xids.split(",")))))

    def sees(self, xmin: int) -> bool:
        """Return whether a row with this `xmin` (32 bits), which is committed now, was seen.

        Its transaction must be no subtransaction, and began within two thousand million others.
        """
        xid = self.xmax - self.xmax % WRAP + xmin
        if xid - self.xmax > WRAP // 2:
            xid -= WRAP
        elif self.xmax - xid > WRAP // 2:
            xid += WRAP
        return xid < self.xmin or (xid < self.xmax and xid not in self.in_progress)
