"""Filters of ops, shared by sessions."""

from collections.abc import Iterable

_shared: dict[frozenset[int], frozenset[int]] = {}
SHARED_MAX = 1_000  # distinct filters


def intern_ops(ops: Iterable[int]) -> frozenset[int]:
    """Return these ops as one set that sessions with the same filter share, to save memory.

    There are many sessions and few distinct filters.
    """
    op_set = frozenset(ops)
    if len(_shared) >= SHARED_MAX:
        _shared.clear()
    return _shared.setdefault(op_set, op_set)
