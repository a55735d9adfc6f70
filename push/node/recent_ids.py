"""Which messages a node has delivered lately, so that a second copy is dropped."""

RECENT_MAX = 20_000  # messages that a `RecentIds` remembers


class RecentIds:
    """The last messages of groups: the last `RECENT_MAX`, and up to as many before them."""

    __slots__ = ("_new", "_old")

    def __init__(self) -> None:
        self._new: set[int] = set()
        self._old: set[int] = set()

    def add(self, message_id: int, group: str) -> bool:
        """Remember a message of a group; False when it is known."""
        mark = hash((message_id, group))  # of 64 bits: none of the few is another one's
        if mark in self._new or mark in self._old:
            return False
        self._new.add(mark)
        if len(self._new) >= RECENT_MAX:
            self._old, self._new = self._new, set()
        return True

    def forget(self, message_id: int, group: str) -> None:
        """It was not delivered after all."""
        mark = hash((message_id, group))
        self._new.discard(mark)
        self._old.discard(mark)

    def has(self, message_id: int, group: str) -> bool:
        """Whether it is one of them."""
        mark = hash((message_id, group))
        return mark in self._new or mark in self._old
