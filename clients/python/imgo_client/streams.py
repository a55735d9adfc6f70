"""A client's state of a room with history: its position, and the messages that wait.

Without I/O.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from imgo_client.frames import Frame
from imgo_client.members import MemberList


class Position(TypedDict):
    """A place in a room's stream. Offsets of different epochs cannot be compared."""

    epoch: str
    offset: int


@dataclass(frozen=True)
class Recovered:
    """The server's reply to a position.

    `recovered`: True: all missed messages follow. False: they do not, so load your state another
    way. `position`: where live messages begin; None if the room keeps no messages, or none any
    more. The reply to a `rewind` is one only if the room keeps no messages.
    """

    recovered: bool
    position: Position | None


@dataclass(frozen=True)
class Gap:
    """Messages up to `position` are missing and will not come: load your state another way."""

    position: Position


@dataclass(frozen=True)
class Step:
    """A message, or an event with a place among the messages.

    `position`: position of the room after this step was handled. `number`: 1, 2, 3 … in a stream.
    """

    value: Frame | Recovered | Gap
    position: Position | None
    number: int


class Stream:
    """State of one room, updated by the server's frames.

    `state`: "joining", "joined", "left", "refused"; `tell` gets each change. `error`: the reason of
    a refusal. `position`: that of the last handled message. `items`: messages and events that wait.
    `members`: members of the room; None: nobody has requested them. `lacks_history`: a rewind was
    requested, and the room keeps no messages.
    """

    def __init__(
        self, name: str, rewind: int, position: Position | None, tell: Callable[[str], None]
    ) -> None:
        self.name = name
        self.state = "joining"
        self.error: Exception | None = None
        self.position = position
        self.items: deque[Step] = deque()
        self.members: MemberList | None = None
        self.lacks_history = False
        self._rewind = rewind
        self._tell = tell
        self._received = position  # of the last message that has come
        self._last = 0  # number of the last step
        self._done = 0  # number of the last step that is done with
        self._answered = asyncio.Event()  # the server has answered whether it lets the client in

    @property
    def is_over(self) -> bool:
        """Whether the room was left or refused."""
        return self.state in ("left", "refused")

    @property
    def request(self) -> dict[str, Any]:
        """The members of the request to join the room: a position, a rewind, or nothing."""
        if self._received is not None:
            return {**self._received}
        return {"rewind": self._rewind} if self._rewind else {}

    def accept(self, reply: Any) -> None:
        """Apply the server's reply to the request."""
        if self.state != "joining":
            return
        position = _position_of(reply)
        self.lacks_history = bool(self._rewind) and position is None
        recovered = reply.get("recovered") if isinstance(reply, dict) else None
        if isinstance(recovered, bool):
            if not recovered:
                self._received = position
            self._add(Recovered(recovered, _copy(position)))
        elif position is not None:
            # Below what is rewound: should that be cut off, the rest is recovered.
            position["offset"] = max(0, position["offset"] - self._rewind)
            self._received = self.position = position
        self._change("joined")

    def take(self, frame: Frame) -> bool:
        """Add a message; return whether it is new."""
        if self.is_over:
            return False
        if frame.offset:
            # Before the answer to a join it is for the room that was left.
            if self.state == "joining" or frame.offset <= self._offset:
                return False
            if self._received is not None:
                self._received = Position(epoch=self._received["epoch"], offset=frame.offset)
        self._add(frame)
        return True

    def gap(self, body: Any) -> None:
        """Apply the body of op 29."""
        position = _position_of(body)
        if self.state != "joined" or position is None:
            return
        received = self._received
        if (
            received is None
            or received["epoch"] != position["epoch"]
            or position["offset"] > self._offset
        ):
            self._received = received = position
        self._add(Gap(received.copy()))

    async def until_answered(self) -> None:
        """Wait until the room is joined, refused or left."""
        await self._answered.wait()

    def settle(self, step: Step) -> None:
        """Mark a step and all earlier ones as handled."""
        if step.number > self._done:
            self._done = step.number
            self.position = step.position

    def lose(self) -> None:
        """Wait for the next session, because this one has ended."""
        if self.members is not None:
            self.members.lose()
        if self.state == "joined":
            self._change("joining")

    def begin(self) -> None:
        """Start again at the last handled message. Later messages will be sent again."""
        self.items.clear()
        self._received = self.position

    def end(self, state: str, error: Exception | None = None) -> None:
        """End the stream: "left" or "refused"."""
        self.items.clear()
        self.error = error
        self._change(state)
        if self.members is not None:
            self.members.end()

    @property
    def _offset(self) -> int:
        return 0 if self._received is None else self._received["offset"]

    def _add(self, value: Frame | Recovered | Gap) -> None:
        self._last += 1
        self.items.append(Step(value, self._received, self._last))

    def _change(self, state: str) -> None:
        self.state = state
        if state == "joining":
            self._answered.clear()
        else:
            self._answered.set()
        self._tell(state)


def check_position(value: Mapping[str, Any] | None) -> Position | None:
    """Return the position; None for None. Raises ValueError for any other value."""
    if value is None:
        return None
    position = _position_of(value)
    if position is None:
        raise ValueError(f"a position has an epoch and an offset, not {value!r}")
    return position


def _copy(position: Position | None) -> Position | None:
    return None if position is None else position.copy()


def _position_of(value: Any) -> Position | None:
    members = value if isinstance(value, Mapping) else {}
    epoch, offset = members.get("epoch"), members.get("offset")
    if not isinstance(epoch, str) or type(offset) is not int or offset < 0:
        return None
    return Position(epoch=epoch, offset=offset)
