"""Members of a room as the user of a client gets them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from imgo_client.errors import ImgoError, NoAnswer, NotOpen
from imgo_client.events import Callback, PresenceEvents
from imgo_client.frames import Op
from imgo_client.members import Member, MemberList
from imgo_client.streams import Stream


class Ask(Protocol):
    """Function that sends a request. `on_reply`: gets the reply before later frames are handled."""

    async def __call__(
        self, op: Op, body: Any, on_reply: Callable[[Any], None] | None = None
    ) -> Any:
        """Return the reply's body. Raises like `Client.request`."""


class Presence:
    """Members of a room, kept up to date. Made by `Room.presence`.

        room = client.room("chat-1")
        room.presence.on("join", lambda member: print(member.key, "came"))
        for member in room.presence:
            print(member.key, member.info)

    The room's policy must have `presence`. If the server refuses a request, that is an `error` of
    the client. After a reconnect, events report the differences from the earlier list. The first
    list causes only an `update`, and no `join` for each member. The same holds for the first list
    after a room had too many members.
    """

    def __init__(self, stream: Stream, ask: Ask, events: PresenceEvents) -> None:
        self._stream = stream
        self._ask = ask
        self._events = events
        self._list = MemberList(self._tell)
        stream.members = self._list

    def __repr__(self) -> str:
        return f"<Presence of {self._stream.name!r}: {self.count}>"

    @property
    def count(self) -> int:
        """Number of keys in the room; 0: not known yet, or the room was left."""
        return self._list.count

    @property
    def truncated(self) -> bool:
        """Whether the room has more members than the server lists. The list is empty then."""
        return self._list.truncated

    @property
    def settling(self) -> bool:
        """Whether the server is rebuilding its list. Members may be missing or outdated."""
        return self._list.settling

    def get(self, key: str) -> Member | None:
        """Return the member with this key; None if it is not in the list."""
        return self._list.members.get(key)

    def __iter__(self) -> Iterator[Member]:
        """Iterate over a copy of the members, so changes do not disturb the loop."""
        return iter(tuple(self._list.members.values()))

    def __len__(self) -> int:
        """Return the number of members in the list. In large rooms only `count` has all."""
        return len(self._list.members)

    def __bool__(self) -> bool:
        """Return True, also for an empty list."""
        return True

    def __contains__(self, key: object) -> bool:
        """Return whether a key is in the list."""
        return key in self._list.members

    def on(self, event: str, callback: Callback) -> Presence:
        """Call a plain function at each `join`, `leave`, `change` or `update`.

        See `PresenceEvents`. The function is called when the frame arrives, not when a loop reaches
        a message. An exception of the function becomes an `error` of the client.
        """
        self._events.on(event, callback)
        return self

    def off(self, event: str, callback: Callback) -> Presence:
        """Remove a callback that `on` has added."""
        self._events.off(event, callback)
        return self

    async def refresh(self) -> None:
        """Request the list, and return when it is up to date.

        Waits for a join that is in progress. Use it to wait for the first list, and in rooms whose
        policy sends no changes (`presence_events`). Raises like `Client.request`.
        """
        self._list.is_awaited = True
        try:
            await self._ask(Op.PRESENCE, self._stream.name, self._adopt)
        finally:
            self._list.is_awaited = False

    def _adopt(self, reply: Any) -> None:
        if self._stream.state == "joined" and isinstance(reply, dict):
            self._list.adopt(reply)

    def _tell(self, event: str, value: Any) -> None:
        self._events.emit(event, self if event == "update" else value)

    async def keep(self) -> None:
        """Request the list when the room is joined, and whenever it is due, during one session."""
        await self._stream.until_answered()
        self._list.begin()
        while True:
            await self._list.is_due.wait()
            await asyncio.sleep(self._list.pause)
            if self._stream.is_over:
                return
            if self._list.is_due.is_set():  # else a list has come meanwhile
                self._list.is_due.clear()
                await self._try_to_refresh()

    async def _try_to_refresh(self) -> None:
        try:
            await self.refresh()
        except NotOpen:
            pass  # the next session asks
        except (ImgoError, ValueError) as error:
            if self._stream.is_over:
                return
            self._events.report(error)
            if isinstance(error, NoAnswer) or getattr(error, "code", "") == "unavailable":
                self._list.ask_later()
