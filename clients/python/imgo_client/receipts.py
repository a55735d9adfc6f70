"""Which messages have been received, which of them are handled, and what the server knows of it.

A message that the server sends again is dropped when it was handled, and acknowledged once more:
the acknowledgement before was lost on its way.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

# Ids. More than a key has pending on a server with its defaults, 1,000, and so more than it sends
# again to one that comes back.
SEEN_MAX = 4_096


class Seen:
    """Ids of the messages that were handled last: as many as `limit`."""

    def __init__(self, limit: int = SEEN_MAX) -> None:
        if limit < 1:
            raise ValueError("at least one id must be kept")
        self._limit = limit
        self._ids: dict[int, None] = {}  # oldest first

    def __contains__(self, message_id: object) -> bool:
        return message_id in self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[int]:
        return iter(self._ids)

    @property
    def is_full(self) -> bool:
        """Whether ids have been forgotten, or will be with the next."""
        return len(self._ids) >= self._limit

    def add(self, message_id: int) -> None:
        """Remember an id, and forget the oldest if there are too many."""
        self._ids[message_id] = None
        if len(self._ids) > self._limit:
            del self._ids[next(iter(self._ids))]

    def forget(self, message_id: int) -> None:
        """Not to remember an id."""
        self._ids.pop(message_id, None)

    def save(self) -> None:
        """Write down what is not written yet. Called before the server is told."""


class FileSeen(Seen):
    """The same in a file, so that nothing is handled twice after a restart either.

    One file for each client. It is replaced as a whole, so that it is never half written. Raises
    OSError when it cannot be read, ValueError when it holds something else.
    """

    def __init__(self, path: str | os.PathLike[str], limit: int = SEEN_MAX) -> None:
        super().__init__(limit)
        self._path = Path(path)
        self._is_saved = True
        try:
            text = self._path.read_text()
        except FileNotFoundError:
            return
        try:
            for line in text.split():
                super().add(int(line))
        except ValueError:
            raise ValueError(f"{self._path} holds something else than ids of messages") from None

    def add(self, message_id: int) -> None:
        """Remember an id, and forget the oldest if there are too many."""
        super().add(message_id)
        self._is_saved = False

    def save(self) -> None:
        """Write the file, if there is something new. Raises OSError."""
        if self._is_saved:
            return
        temporary = self._path.with_name(self._path.name + ".new")
        # No fsync: what a power failure takes away costs a second delivery and never a message.
        temporary.write_text("".join(f"{message_id}\n" for message_id in self))
        temporary.replace(self._path)
        self._is_saved = True


class Receipts:
    """From a message's arrival to its acknowledgement, across sessions."""

    def __init__(self, seen: Seen, since: int) -> None:
        self._seen = seen
        self._since = since
        self._held: set[int] = set()  # arrived, and not handled yet
        self._failed = Seen()  # to come again
        self._due: dict[int, None] = {}  # to be acknowledged
        self.is_due = asyncio.Event()

    def is_new(self, message_id: int) -> bool:
        """Whether a message is to be handled; one that was is acknowledged again."""
        if message_id in self._seen:
            self._acknowledge(message_id)
            return False
        return message_id not in self._held

    def hold(self, message_id: int) -> None:
        """It has arrived."""
        if message_id:
            self._held.add(message_id)

    def handled(self, message_id: int) -> None:
        """It is done with: remembered, and the server is told. Nothing to do for id 0."""
        if message_id and message_id not in self._seen:
            self._held.discard(message_id)
            self._failed.forget(message_id)
            self._seen.add(message_id)
            self._acknowledge(message_id)

    def failed(self, message_id: int) -> None:
        """It could not be handled, and shall come again."""
        if message_id in self._held:
            self._held.discard(message_id)
            self._failed.add(message_id)

    def forget_held(self) -> None:
        """Those that were not handled shall come again."""
        self._held.clear()

    def _acknowledge(self, message_id: int) -> None:
        self._due[message_id] = None
        self.is_due.set()

    def due(self, max_body: int) -> list[list[str]]:
        """What is to be acknowledged, in lists whose JSON has at most `max_body` bytes."""
        self.is_due.clear()
        lists: list[list[str]] = []
        room = 0
        for text in map(str, self._due):
            if len(text) + 3 > room:
                lists.append([])
                room = max_body - 2
            lists[-1].append(text)
            room -= len(text) + 3  # quotes and a comma
        return lists

    def sent(self, ids: list[str]) -> None:
        """These acknowledgements are on their way."""
        for text in ids:
            self._due.pop(int(text), None)

    def save(self) -> None:
        """Write down what was handled. Raises OSError."""
        self._seen.save()

    @property
    def since(self) -> int:
        """The id that a new session asks for those above; 0: for what is pending alone.

        Ids may become visible a little out of order, so it is not the last one that was handled:
        it follows at the distance of what is remembered, which drops all that comes twice.
        """
        if not self._since or not self._seen.is_full:
            return self._since
        lowest: int = min({*self._seen, *self._held, *self._failed})
        return max(self._since, lowest - 1)
