"""IDs of messages that a node has handled recently, for dropping duplicates."""

RECENT_MAX = 20_000  # messages that a `RecentIds` remembers at least


class RecentIds:
    """Set of the last `RECENT_MAX` pairs of message and group, and of up to as many before them."""

    __slots__ = ("_new", "_old")

    def __init__(self) -> None:
        self._new: set[int] = set()
        self._old: set[int] = set()

    def add(self, message_id: int, group: str) -> bool:
        """Add a message of a group; return False if it was known."""
        mark = hash((message_id, group))  # 64 bits: a collision among so few is negligible
        if mark in self._new or mark in self._old:
            return False
        self._new.add(mark)
        if len(self._new) >= RECENT_MAX:
            self._old, self._new = self._new, set()
        return True

    def forget(self, message_id: int, group: str) -> None:
        """Remove a message of a group, which was not delivered after all."""
        mark = hash((message_id, group))
        self._new.discard(mark)
        self._old.discard(mark)

    def has(self, message_id: int, group: str) -> bool:
        """Return whether a message of a group is known."""
        mark = hash((message_id, group))
        return mark in self._new or mark in self._old
