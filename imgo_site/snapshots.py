"""Snapshots of the database: exactly which rows a statement saw, independent of clocks."""

from dataclasses import dataclass
from typing import Self

XID_MODULUS = 2**32  # a row's xmin is the lower half of its transaction's id


class WholeDatabase:
    """The snapshot of a database with one writer at a time, used by one process: SQLite.

    There the order of ids is the order of commits. A settled message whose id is lower than that of
    a message the statement read was settled before the statement.
    """

    def includes(self, xmin: int) -> bool:  # noqa: ARG002
        """Return True: the statement saw the row."""
        return True


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot of Postgres, from `pg_current_snapshot()`. Transaction ids have 64 bits.

    `xmin`: all transactions with lower ids had ended.
    `xmax`: no transaction with this id or a higher one had ended.
    `in_progress`: ids between the two whose transactions had not ended, without subtransactions.
    """

    xmin: int
    xmax: int
    in_progress: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the snapshot of a text `xmin:xmax:xid,xid,...`; the last part may be empty."""
        xmin, xmax, xids = text.split(":")
        return cls(int(xmin), int(xmax), frozenset(map(int, filter(None, xids.split(",")))))

    def includes(self, xmin: int) -> bool:
        """Return whether the statement saw a row that is committed now.

        `xmin`: the row's, the lower 32 bits of its transaction's id. The transaction must be no
        subtransaction, and its id must be within 2**31 of the snapshot's.
        """
        xid = self.xmax - self.xmax % XID_MODULUS + xmin
        if xid - self.xmax > XID_MODULUS // 2:
            xid -= XID_MODULUS
        elif self.xmax - xid > XID_MODULUS // 2:
            xid += XID_MODULUS
        return xid < self.xmin or (xid < self.xmax and xid not in self.in_progress)
