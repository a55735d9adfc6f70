"""What was pushed, as the user gets it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from imgo_client.receipts import Receipts


@dataclass(frozen=True)
class Message:
    """What was pushed. `id`: the push's; 0 in sessions without acknowledgement."""

    body: Any
    op: int
    id: int
    _receipts: Receipts = field(repr=False, compare=False)

    def ack(self) -> None:
        """Say that it is done with: it is remembered, and the server told soon. May be repeated."""
        self._receipts.handled(self.id)


class Messages:
    """The messages of a client for one loop."""

    def __init__(self, following: Callable[[], Awaitable[Message | None]]) -> None:
        self._following = following
        self._message: Message | None = None

    def __aiter__(self) -> Messages:
        return self

    async def __anext__(self) -> Message:
        """The next one, which says that the one before is done with. Raises `Closed`."""
        if self._message is not None:
            self._message.ack()
        self._message = await self._following()
        if self._message is None:
            raise StopAsyncIteration
        return self._message
