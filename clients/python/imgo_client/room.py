"""A room with a position in its stream that survives reconnects."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Literal, TypedDict
from uuid import uuid4

from imgo_client.errors import ProtocolError
from imgo_client.events import Callback, RoomEvents, call
from imgo_client.frames import Frame, Op
from imgo_client.messages import Message, Messages
from imgo_client.presence import Ask, Presence
from imgo_client.streams import Gap, Position, Recovered, Step, Stream

# "from" is a word of Python's.
_From = TypedDict("_From", {"from": str}, total=False)


class KeptMessage(_From):
    """A message that a room keeps. `at`: the time of its offset, Unix time in seconds.

    `from`: the key of the client that has published it; missing if no client has.
    """

    offset: int
    id: str
    op: int
    at: float
    body: Any


class History(TypedDict):
    """A page of a room's history.

    `offset`: of the newest message. `more`: further messages match.
    """

    room: str
    epoch: str
    offset: int
    more: bool
    messages: list[KeptMessage]


class Room:
    """A room of a client, made by `Client.room`.

        room = client.room("chat-1", rewind=20)
        async for message in room:
            print(message.offset, message.body)

    The loop gets each message once, in order. A message counts as handled when the loop requests
    the next one, or by `message.ack()`. Then `position` moves to it. The loop ends when the room is
    left or the client is closed. It raises `Refused` if the server refuses the room, and `Closed`
    like a loop over the client.

    Messages and events wait in the room until the loop takes them. When `buffer` messages wait, the
    client stops reading: take them, or leave the room.
    """

    def __init__(
        self,
        stream: Stream,
        events: RoomEvents,
        take: Callable[[Stream], Awaitable[Step | None]],
        leave: Callable[[Stream], Awaitable[bool]],
        *,
        ask: Ask,
        follow: Callable[[], Presence],
    ) -> None:
        self._stream = stream
        self._events = events
        self._take = take
        self._leave = leave
        self._ask = ask
        self._follow = follow
        self._presence: Presence | None = None

    def __repr__(self) -> str:
        return f"<Room {self.name!r} {self.state}>"

    @property
    def name(self) -> str:
        """The room's name."""
        return self._stream.name

    @property
    def state(self) -> str:
        """`joining` (until the server confirms it, and without a session), `joined`, `left`,
        `refused`."""
        return self._stream.state

    @property
    def error(self) -> Exception | None:
        """The reason why the room was refused; None if it was not."""
        return self._stream.error

    @property
    def position(self) -> Position | None:
        """The position of the last handled message; save it, and pass it to `Client.room`.

        None: unknown, because the room was not joined yet or keeps no messages.
        """
        position = self._stream.position
        return None if position is None else position.copy()

    @property
    def presence(self) -> Presence:
        """Members of the room.

        The client keeps the list from the first read of this property on.
        """
        if self._presence is None:
            self._presence = self._follow()
        return self._presence

    def on(self, event: str, callback: Callback) -> Room:
        """Call a function at each `state`, `recovered` or `gap`: see `RoomEvents`.

        `recovered` and `gap` have places among the messages. The loop calls their callbacks when it
        reaches these places, and awaits coroutine functions. An exception of a callback becomes an
        `error` of the client.
        """
        self._events.on(event, callback)
        return self

    def off(self, event: str, callback: Callback) -> Room:
        """Remove a callback that `on` has added."""
        self._events.off(event, callback)
        return self

    async def leave(self) -> bool:
        """Leave the room for good. Returns and raises as `Client.leave` does."""
        return True if self._stream.is_over else await self._leave(self._stream)

    async def history(
        self,
        *,
        since: int | None = None,
        before: int | None = None,
        limit: int | None = None,
        order: Literal["newest", "oldest"] | None = None,
    ) -> History:
        """Read kept messages with offsets above `since` and below `before`.

        `limit`: highest number of messages, up to 1,000; None: 100. `order`: which messages come
        first, "oldest" or "newest"; None: "oldest" with `since`, else "newest". Waits for a join
        that is in progress. The session must be in the room. Raises like `Client.request`.
        """
        query = {"since": since, "before": before, "limit": limit, "order": order}
        members = {name: value for name, value in query.items() if value is not None}
        page: History = await self._ask(Op.HISTORY, {"room": self.name, **members})
        return page

    async def publish(
        self,
        body: Any,
        *,
        op: int | None = None,
        store: bool = True,
        echo: bool | None = None,
        id: str | None = None,  # noqa: A002 - the word everywhere else
    ) -> int:
        """Publish `body`, any JSON value, to the room; return the id of the message.

        Waits for a join that is in progress. The session must be in the room, and the room's policy
        must let members publish.

        - `op`: the application's own number of the message, from 1000; None: 5.
        - `store`: False: a room with history does not keep the message. It has no offset then.
        - `echo`: False: this session does not get the message. Other sessions of the key do.
        - `id`: id of a message whose earlier publication had no answer. If the server has accepted
          it, it is not published again. None: a new message.

        Raises like `Client.request`: `Refused` with the server's reason, such as the code
        `publish_forbidden` or `too_many_publishes`.
        """
        options = {"op": op, "store": None if store else "never", "echo": echo}
        members = {name: value for name, value in options.items() if value is not None}
        chosen = uuid4().hex if id is None else id
        message = {"room": self.name, "body": body, "id": chosen, **members}
        answer = await self._ask(Op.PUBLISH, message)
        try:
            return int(answer["id"])
        except (TypeError, KeyError, ValueError):
            raise ProtocolError("the server's answer has no message id") from None

    def __aiter__(self) -> Messages:
        return Messages(self._next)

    async def run(self, handler: Callable[[Message], object]) -> None:
        """Call a function, plain or async, with each message, one after the other.

        A message counts as handled when the function has returned. An exception of the function
        becomes an `error` of the client, and the next message follows. Ends like a loop.
        """
        while (message := await self._next()) is not None:
            if await call(handler, message, self._events.report):
                message.ack()

    async def _next(self) -> Message | None:
        """Return the next message, after the events before it; None if there will be none."""
        while (step := await self._take(self._stream)) is not None:
            done = partial(self._stream.settle, step)
            if isinstance(step.value, Frame):
                frame = step.value
                place = frame.room, frame.offset, frame.sender
                return Message(frame.body, frame.op, frame.id, done, *place)
            try:
                await self._events.tell(_name_of(step.value), step.value)
            except BaseException:  # cancelled: it is told again
                self._stream.items.appendleft(step)
                raise
            done()
        return None


def _name_of(event: Recovered | Gap) -> str:
    return "recovered" if isinstance(event, Recovered) else "gap"
