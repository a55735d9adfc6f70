"""Queue of received messages: those of the client, and those of its rooms."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from imgo_client.frames import Frame, Op
from imgo_client.messages import Message
from imgo_client.receipts import Receipts, Seen
from imgo_client.session import OF_ROOM
from imgo_client.streams import Step, Stream
from imgo_client.subscriptions import Subscriptions

T = TypeVar("T")


class Inbox:
    """Queue of messages with a limit.

    `acks`: whether the client acknowledges messages. `buffer`: number of messages that may wait.
    `awaits_answer`: returns whether a request waits for a reply, which may be behind messages.
    `check`: returns whether messages can still arrive; raises the reason if none can.
    `retracted`: called with the ids of messages that were cancelled. `read`: called with those that
    another device has acknowledged.
    """

    def __init__(
        self,
        receipts: Receipts,
        subscriptions: Subscriptions,
        *,
        acks: bool,
        buffer: int,
        awaits_answer: Callable[[], bool],
        check: Callable[[], bool],
        retracted: Callable[[list[int]], None],
        read: Callable[[list[int]], None],
    ) -> None:
        self._receipts = receipts
        self._subscriptions = subscriptions
        self._acks = acks
        self._buffer = buffer
        self._awaits_answer = awaits_answer
        self._check = check
        self._retracted = retracted
        self._read = read
        self._messages: deque[Message] = deque()
        self._arrived = asyncio.Event()
        self._has_space = asyncio.Event()
        self._delivered = Seen()  # ids without acknowledgement, which a resumed session may repeat
        self.is_open = False  # while the client runs

    def begin(self) -> None:
        """Start without the earlier state. Messages that were not taken will be sent again."""
        self._messages.clear()
        self._delivered = Seen()
        self._receipts.forget_held()
        self._subscriptions.begin()
        self.is_open = True

    def wake(self) -> None:
        """Wake the waiters for messages, and the waiter for space."""
        self._arrived.set()
        self._has_space.set()

    async def deliver(self, frame: Frame) -> None:
        """Add a message as soon as there is space, or an event of a room."""
        if frame.op == Op.RETRACTION:
            self._take_back(frame.body)
            return
        if frame.op == Op.READ:
            if ids := _ids_in(frame.body):
                self._read(ids)
            return
        if frame.op in OF_ROOM:
            self._take_news(frame.op, frame.body)
            return
        stream = self._subscriptions.find(frame.room)
        if stream is not None:
            await self._until_space(stream.items, lambda: stream.is_over)
            if stream.take(frame):
                self._arrived.set()
        else:
            await self._deliver_to_client(frame)

    def _take_back(self, body: Any) -> None:
        """Drop waiting messages that were cancelled, and report those that were taken before."""
        ids = _ids_in(body)
        waiting = [message for message in self._messages if message.id in ids]
        for message in waiting:
            self._messages.remove(message)
            message.ack()  # a resumed session must not repeat it
        self._has_space.set()
        if gone := {message.id for message in waiting}:
            ids = [message_id for message_id in ids if message_id not in gone]
        if ids:
            self._retracted(ids)

    def _take_news(self, op: int, body: Any) -> None:
        room = body.get("room") if isinstance(body, dict) else None
        stream = self._subscriptions.find(room)
        if stream is None:
            return
        if op == Op.GAP:
            stream.gap(body)
            self._arrived.set()
        elif stream.members is not None and stream.state == "joined":
            stream.members.take(body)

    async def _deliver_to_client(self, frame: Frame) -> None:
        message_id = frame.id if self._acks else 0
        if message_id and not self._receipts.is_new(message_id):
            return
        if not self._acks and frame.id:
            if frame.id in self._delivered:
                return
            self._delivered.add(frame.id)
        await self._until_space(self._messages)
        self._receipts.hold(message_id)
        done = partial(self._receipts.handled, message_id)
        message = Message(frame.body, frame.op, frame.id, done, frame.room, sender=frame.sender)
        self._messages.append(message)
        self._arrived.set()

    async def _until_space(
        self, items: deque[Any], is_over: Callable[[], bool] = lambda: False
    ) -> None:
        # Whoever waits for an answer may be the one who is to make room: then reading goes on.
        while len(items) >= self._buffer and not self._awaits_answer() and not is_over():
            self._has_space.clear()
            await self._has_space.wait()

    async def take(self) -> Message | None:
        """Return the next message of the client; None after `close`. Raises `Closed`."""
        return await self._take(self._messages, self._check)

    async def take_of(self, stream: Stream) -> Step | None:
        """Return the next step of a room; None after `close` and `leave`.

        Raises `Closed`, `Refused`.
        """

        def check() -> bool:
            if stream.error is not None:
                raise stream.error
            return not stream.is_over and self._check()

        return await self._take(stream.items, check)

    async def _take(self, items: deque[T], check: Callable[[], bool]) -> T | None:
        while not items or not self.is_open:
            if not check():
                return None
            self._arrived.clear()
            await self._arrived.wait()
        self._has_space.set()
        return items.popleft()


def _ids_in(body: Any) -> list[int]:
    """Return the ids of messages that the body of a frame names."""
    named = body.get("ids") if isinstance(body, dict) else None
    return [int(text) for text in named or () if isinstance(text, str) and text.isdecimal()]
