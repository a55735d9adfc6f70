"""Records of received and handled messages, and their acknowledgements.

A message that was handled and arrives again is dropped and acknowledged once more, because the
earlier acknowledgement was lost.
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
    """Record of the ids of the last `limit` handled messages."""

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
        """Whether ids have been dropped, or the next id will drop one."""
        return len(self._ids) >= self._limit

    def add(self, message_id: int) -> None:
        """Record an id, and drop the oldest if there are too many."""
        self._ids[message_id] = None
        if len(self._ids) > self._limit:
            del self._ids[next(iter(self._ids))]

    def forget(self, message_id: int) -> None:
        """Remove an id from the record."""
        self._ids.pop(message_id, None)

    def save(self) -> None:
        """Store ids that are not stored yet. Called before acknowledgements are sent."""


class FileSeen(Seen):
    """Record in a file, so that messages are not handled twice after a restart either.

    Each client needs a file of its own. The file is replaced as a whole, so it is never incomplete.
    Raises OSError if the file cannot be read, ValueError if it has other content.
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
        """Record an id, and drop the oldest if there are too many."""
        super().add(message_id)
        self._is_saved = False

    def save(self) -> None:
        """Write the file if it has changed. Raises OSError."""
        if self._is_saved:
            return
        temporary = self._path.with_name(self._path.name + ".new")
        # No fsync: what a power failure takes away costs a second delivery and never a message.
        temporary.write_text("".join(f"{message_id}\n" for message_id in self))
        temporary.replace(self._path)
        self._is_saved = True


class Receipts:
    """States of messages from their arrival to their acknowledgement, across sessions."""

    def __init__(self, seen: Seen, since: int) -> None:
        self._seen = seen
        self._since = since
        self._held: set[int] = set()  # arrived, and not handled yet
        self._failed = Seen()  # to come again
        self._due: dict[int, None] = {}  # to be acknowledged
        self.is_due = asyncio.Event()

    def is_new(self, message_id: int) -> bool:
        """Return whether a message must be handled. A handled one is acknowledged again."""
        if message_id in self._seen:
            self._acknowledge(message_id)
            return False
        return message_id not in self._held

    def hold(self, message_id: int) -> None:
        """Record that a message has arrived."""
        if message_id:
            self._held.add(message_id)

    def handled(self, message_id: int) -> None:
        """Record that a message was handled, and acknowledge it. The id 0 is ignored."""
        if message_id and message_id not in self._seen:
            self._held.discard(message_id)
            self._failed.forget(message_id)
            self._seen.add(message_id)
            self._acknowledge(message_id)

    def failed(self, message_id: int) -> None:
        """Record that a message could not be handled and must be sent again."""
        if message_id in self._held:
            self._held.discard(message_id)
            self._failed.add(message_id)

    def forget_held(self) -> None:
        """Forget messages that arrived and were not handled, so that they are accepted again."""
        self._held.clear()

    def _acknowledge(self, message_id: int) -> None:
        self._due[message_id] = None
        self.is_due.set()

    def due(self, max_body: int) -> list[list[str]]:
        """Return the ids to acknowledge, in lists whose JSON has at most `max_body` bytes."""
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
        """Remove ids whose acknowledgements were sent."""
        for text in ids:
            self._due.pop(int(text), None)

    def save(self) -> None:
        """Store the ids of handled messages. Raises OSError."""
        self._seen.save()

    @property
    def since(self) -> int:
        """The `since` of a new session; 0: only pending messages.

        Ids may become visible slightly out of order. So this is not the last handled id but the
        lowest one in the record, which drops all messages that arrive twice.
        """
        if not self._since or not self._seen.is_full:
            return self._since
        lowest: int = min({*self._seen, *self._held, *self._failed})
        return max(self._since, lowest - 1)
