"""What was pushed, as the user gets it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Message:
    """What was pushed. `id`: the push's; 0 if the session gets none.

    `room`: the room that it was pushed to; "" for others, and in sessions without a `Room`.
    `offset`: its place in the room's stream; 0 if the room does not keep it.
    `sender`: the key of the client that has published it to the room; "": no client has.
    """

    body: Any
    op: int
    id: int
    _done: Callable[[], None] = field(repr=False, compare=False)
    room: str = ""
    offset: int = 0
    sender: str = ""

    def ack(self) -> None:
        """Say that it is done with. May be repeated.

        It is remembered, and the server told soon; of a `Room`, the position moves up to it.
        """
        self._done()


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
