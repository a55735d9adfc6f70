"""Messages as the user of a client gets them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Message:
    """One received message. `id`: the id of the push; 0 if the session gets none.

    `room`: the room that it was pushed to; "" for others, and in sessions without a `Room`.
    `offset`: its offset in the room's stream; 0 if the room does not keep it. `sender`: the key of
    the client that has published it to the room; "": none.
    """

    body: Any
    op: int
    id: int
    _done: Callable[[], None] = field(repr=False, compare=False)
    room: str = ""
    offset: int = 0
    sender: str = ""

    def ack(self) -> None:
        """Mark the message as handled. May be repeated.

        The client records it, and the acknowledgement is sent soon. In a `Room` the position moves
        to this message.
        """
        self._done()


class Messages:
    """Asynchronous iterator over the messages of a client, for one loop."""

    def __init__(self, following: Callable[[], Awaitable[Message | None]]) -> None:
        self._following = following
        self._message: Message | None = None

    def __aiter__(self) -> Messages:
        return self

    async def __anext__(self) -> Message:
        """Mark the previous message as handled, and return the next one. Raises `Closed`."""
        if self._message is not None:
            self._message.ack()
        self._message = await self._following()
        if self._message is None:
            raise StopAsyncIteration
        return self._message
