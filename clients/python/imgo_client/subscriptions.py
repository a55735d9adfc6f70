"""Rooms of `Client.room`: they are joined in each session, and get the frames of their rooms."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

from imgo_client.backoff import pause
from imgo_client.errors import ImgoError, NoAnswer, NotOpen, Refused
from imgo_client.events import PresenceEvents
from imgo_client.frames import Op
from imgo_client.presence import Ask, Presence
from imgo_client.streams import Stream

Job = Callable[[], Coroutine[Any, Any, None]]


class Subscriptions:
    """All streams of a client, by the names of their rooms."""

    def __init__(
        self, ask: Ask, report: Callable[[Exception], None], pauses: tuple[float, float]
    ) -> None:
        self._ask = ask
        self._report = report
        self._pauses = pauses
        self._streams: dict[str, Stream] = {}
        self._asked: list[Stream] = []  # in the auth frame of this session
        self._over: list[str] = []  # rooms of these that were left before the answer
        self._presences: dict[Stream, Presence] = {}
        self._new: list[Job] = []  # to be done in this session
        self._is_new = asyncio.Event()

    def __contains__(self, room: object) -> bool:
        """Whether a room has a stream that was not left."""
        return isinstance(room, str) and room in self._streams and not self._streams[room].is_over

    def __bool__(self) -> bool:
        """Whether there is a stream that was not left."""
        return any(not stream.is_over for stream in self._streams.values())

    def find(self, room: object) -> Stream | None:
        """Return the stream of a room, also one that was just left and still gets messages."""
        return self._streams.get(room) if isinstance(room, str) else None

    def add(self, stream: Stream) -> None:
        """Join a stream's room, in this session and in all later ones."""
        self._streams[stream.name] = stream
        self._begin(partial(self._join, stream))

    def follow(self, stream: Stream, ask: Ask) -> Presence:
        """Keep a list of a room's members from now on. `ask`: sends a request about the room."""
        presence = Presence(stream, ask, PresenceEvents(self._report))
        if not stream.is_over:
            self._presences[stream] = presence
            self._begin(presence.keep)
        return presence

    def _begin(self, job: Job) -> None:
        self._new.append(job)
        self._is_new.set()

    async def leave(self, stream: Stream) -> bool:
        """Leave a room; return whether the server has confirmed it."""
        stream.end("left")
        try:
            await self._ask(Op.LEAVE, stream.name)
        except NotOpen:
            return False
        finally:
            self._forget(stream)
        return True

    def _forget(self, stream: Stream) -> None:
        if self._streams.get(stream.name) is stream:
            del self._streams[stream.name]
        self._presences.pop(stream, None)

    def begin(self) -> None:
        """Start again, because the client starts without its earlier state."""
        for stream in self._streams.values():
            stream.begin()

    # In each session

    def requests(self) -> dict[str, Any]:
        """Return the members of the requests to join, by room."""
        return {name: stream.request for name, stream in self.ask().items()}

    def ask(self, may: Callable[[Stream], bool] = lambda _: True) -> dict[str, Stream]:
        """Return the streams for the first frame, by room.

        `may`: whether it can name a stream's room.
        """
        streams = self._streams.values()
        self._asked = [stream for stream in streams if not stream.is_over and may(stream)]
        return {stream.name: stream for stream in self._asked}

    def opened(self, rooms: Iterable[str], body: Any) -> None:
        """Apply the reply to the auth frame that has named these rooms."""
        replies = body.get("rooms") if isinstance(body, dict) else None
        names = set(rooms)
        self._asked = [stream for stream in self._asked if stream.name in names]
        # From now on `leave` itself has the server leave a room.
        self._over = [stream.name for stream in self._asked if stream.is_over]
        for stream in self._asked:
            self._accept(stream, replies.get(stream.name) if isinstance(replies, dict) else None)

    def _accept(self, stream: Stream, reply: Any) -> None:
        stream.accept(reply)
        if stream.lacks_history:
            self._report(Refused("no_history", f"the room {stream.name!r} keeps no messages"))

    async def serve(self) -> None:
        """Join the rooms that the auth frame did not name, and later ones when they are added."""
        tasks: set[asyncio.Task[None]] = set()
        streams = self._streams.values()
        joins = [partial(self._join, stream) for stream in streams if stream.state == "joining"]
        self._new = [*joins, *(presence.keep for presence in self._presences.values())]
        try:
            for room in self._over:
                await self._leave_again(room)
            while True:
                new, self._new = self._new, []
                for job in new:
                    task = asyncio.ensure_future(job())
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                self._is_new.clear()
                await self._is_new.wait()
        finally:
            left = tuple(tasks)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def _join(self, stream: Stream) -> None:
        failures = 0
        while await self._is_refused_for_now(stream):
            failures += 1
            await asyncio.sleep(pause(failures, self._pauses))
            if stream.is_over:
                return
            await self._leave_again(stream.name)  # the answer may have been lost

    async def _is_refused_for_now(self, stream: Stream) -> bool:
        """Request a join; return whether to request it again in this session."""
        try:
            request = {stream.name: stream.request}
            await self._ask(Op.JOIN, request, lambda reply: self._accept(stream, reply))
        except NotOpen:
            return False  # the next session asks for it
        except (ImgoError, ValueError) as error:
            self._report(error)
            if stream.is_over:
                return False
            if isinstance(error, NoAnswer) or getattr(error, "code", "") == "unavailable":
                return True
            self._forget(stream)
            stream.end("refused", error)
        return False

    async def _leave_again(self, room: str) -> None:
        with suppress(ImgoError):
            await self._ask(Op.LEAVE, room)

    def lose(self) -> None:
        """Wait for the next session, because this one has ended."""
        for stream in self._streams.values():
            stream.lose()
