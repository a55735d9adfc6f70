"""Who is in a room, as the user gets it."""

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
    """Sends a request in the session; `taken` gets the answer before what comes behind it."""

    async def __call__(self, op: Op, body: Any, taken: Callable[[Any], None] | None = None) -> Any:
        """Return the answer's body. Raises as `Client.request`."""


class Presence:
    """Who is in a room: a list that keeps itself right, made by `Room.presence`.

        room = client.room("chat-1")
        room.presence.on("join", lambda member: print(member.key, "came"))
        for member in room.presence:
            print(member.key, member.info)

    The room's policy must have `presence`; what the server refuses is an `error` of the client.
    After a reconnect, events tell what differs from the list before. The first list is no `join`
    of its members: only an `update`. So is one that was not known before, of a room that had too
    many members.
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
        """Keys in the room; 0: not known yet, or the room was left."""
        return self._list.count

    @property
    def truncated(self) -> bool:
        """Whether the room has more members than the server lists: then the list is empty."""
        return self._list.truncated

    @property
    def settling(self) -> bool:
        """Whether the server has lost its list: keys may be missing, or too many."""
        return self._list.settling

    def get(self, key: str) -> Member | None:
        """The member with this key; None if it is not in the list."""
        return self._list.members.get(key)

    def __iter__(self) -> Iterator[Member]:
        """The members as they are now; changes do not disturb the loop."""
        return iter(tuple(self._list.members.values()))

    def __len__(self) -> int:
        """Members in the list; `count` is right in large rooms, too."""
        return len(self._list.members)

    def __bool__(self) -> bool:
        """True, however many there are."""
        return True

    def __contains__(self, key: object) -> bool:
        """Whether a key is in the list."""
        return key in self._list.members

    def on(self, event: str, callback: Callback) -> Presence:
        """Call a plain function at each `join`, `leave`, `change` or `update`.

        See `PresenceEvents`. It is called at once, and not when a loop gets to some message. What
        it raises becomes an `error` of the client.
        """
        self._events.on(event, callback)
        return self

    def off(self, event: str, callback: Callback) -> Presence:
        """Call it no more."""
        self._events.off(event, callback)
        return self

    async def refresh(self) -> None:
        """Ask the server now; returns when the list is up to date.

        It waits for a join that is under way. Needed to wait for the first list, and in rooms whose
        policy sends no changes (`presence_events`). Raises as `Client.request`.
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
        """In one session: ask when the room is joined, and whenever the list is due again."""
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
