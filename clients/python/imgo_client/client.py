"""The client: one session that reconnects by itself."""

from __future__ import annotations

import inspect
import ssl
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from imgo_client.arguments import (
    REWIND_MAX,
    check_count,
    check_list,
    check_seconds,
    check_texts,
    check_tls,
    check_type,
)
from imgo_client.auth import check_token
from imgo_client.backoff import check_pauses
from imgo_client.connectors import connector_for
from imgo_client.errors import NoAnswer, NotOpen, Refused
from imgo_client.events import Callback, Events, RoomEvents
from imgo_client.frames import Op, size_of
from imgo_client.inbox import Inbox
from imgo_client.lifetime import Lifetime, Token
from imgo_client.messages import Message, Messages
from imgo_client.receipts import Receipts, Seen
from imgo_client.room import Room
from imgo_client.rooms import Rooms, check_room
from imgo_client.session import Limits
from imgo_client.streams import Stream, check_position
from imgo_client.subscriptions import Subscriptions
from imgo_client.tasks import within

Handler = Callable[[Message], object]


class Client:
    """Client that receives messages, each at least once, and with acknowledgements none twice.

        async with Client("wss://example.org/sub", token) as client:
            async for message in client:
                print(message.body)

    A message is acknowledged when the loop requests the next one, or by `message.ack()`. Messages
    that are not acknowledged are sent again to the next session, or to the next client of the same
    key.

    - `url`: ws://, wss://, tcp:// or tcps://; http:// or https:// for Server-Sent Events. `tls` is
      for the schemes that end in s.
    - `token`: a string, or a function, plain or async. A function is called for each attempt, and
      again before the token of the session expires.
    - `rooms`: rooms to join with the first session.
    - `ack`: acknowledge messages. Without it, the server counts messages as received once they are
      sent.
    - `since`: the last id that this client has handled. The server then also sends messages with
      higher ids that other sessions of the key have received. Use it with a `seen` that outlives
      the process.
    - `platform`: shown by the server for this session.
    - `device`: the name of this device. With the scope `each` (the server's `ACK_SCOPE`), each
      device of a key gets and acknowledges all messages. It then has 1 to 64 letters, digits, ".",
      "_", ":" and "-".
    - `heartbeat`: seconds between two heartbeats, each up to 10% early. `timeout`: seconds for an
      attempt, including the token, and for a reply. `backoff`: the shortest and the longest pause
      between two attempts, in seconds.
    - `seen`: the record of handled messages: `Seen()`, or `FileSeen(path)` across restarts.
    - `buffer`: number of messages that may wait for the loop. At this number the client stops
      reading.
    - `max_size`: limit of one message of the server, in bytes. `max_body`: limit of one request to
      the server, in bytes; its `MAX_CLIENT_BODY`.

    A client that has ended may be entered again, and starts without the earlier state. Raises
    TypeError for an argument of the wrong type, including one string as `rooms`, and ValueError for
    a wrong value.
    """

    def __init__(
        self,
        url: str,
        token: Token = None,
        *,
        rooms: Iterable[str] = (),
        ack: bool = True,
        since: int = 0,
        platform: str = "",
        device: str = "",
        heartbeat: float = 240.0,
        timeout: float = 15.0,
        backoff: tuple[float, float] = (0.5, 30.0),
        seen: Seen | None = None,
        tls: ssl.SSLContext | None = None,
        buffer: int = 100,
        max_size: int = 16 * 2**20,
        max_body: int = 1_024,
    ) -> None:
        check_texts(url=url, platform=platform, device=device)
        check_tls(tls)
        connector = connector_for(url, tls)
        check_list("rooms", rooms)
        _check_memory(ack, since, seen)
        _check_limits(heartbeat, timeout, buffer=buffer, max_size=max_size, max_body=max_body)
        if not callable(token):
            check_token(token)
        self._url = url
        self._rooms = Rooms(rooms)
        self._limits = Limits(heartbeat, timeout, max_body, max_size)
        pauses = check_pauses(backoff)
        self._receipts = Receipts(Seen() if seen is None else seen, since)
        self._events = Events()
        self._subscriptions = Subscriptions(self._call, self._events.report, pauses)
        self._inbox = Inbox(
            self._receipts,
            self._subscriptions,
            acks=ack,
            buffer=buffer,
            awaits_answer=lambda: self._lifetime.awaits_answer,
            check=lambda: self._lifetime.check_alive(),  # noqa: PLW0108 - made below
            retracted=lambda ids: self._events.emit("retracted", ids),
            read=lambda ids: self._events.emit("read", ids),
        )
        self._about: dict[str, Any] = {
            "ack": bool(ack),
            "platform": platform,
            "device": device,
            "renew": callable(token),
        }
        self._lifetime = Lifetime(
            connector,
            token,
            self._about,
            self._limits,
            pauses,
            rooms=self._rooms,
            subscriptions=self._subscriptions,
            receipts=self._receipts,
            events=self._events,
            deliver=self._inbox.deliver,
            wake=self._inbox.wake,
        )

    def __repr__(self) -> str:
        return f"<Client {self._url.partition('?')[0]} {self.state}>"

    @property
    def state(self) -> str:
        """The value of the last event `state`: "connecting", "open", "waiting" or "closed"."""
        return self._lifetime.state

    @property
    def rooms(self) -> list[str]:
        """Rooms that the session is in, or that the next session will request."""
        return self._rooms.names()

    def on(self, event: str, callback: Callback) -> Client:
        """Call a plain function at each event, such as `state`, `open`, `close` or `read`.

        See `Events`. For `retracted`, call this before the client connects.
        An exception of the function becomes an `error`. Errors without a callback are logged by the
        logger "imgo_client".
        """
        self._events.on(event, callback)
        if event == "retracted":
            self._about["retractions"] = True
        return self

    def off(self, event: str, callback: Callback) -> Client:
        """Remove a callback that `on` has added."""
        self._events.off(event, callback)
        return self

    # Coming and going

    async def __aenter__(self) -> Client:
        if self._lifetime.is_running:
            raise RuntimeError("this client is running already")
        self._inbox.begin()
        self._lifetime.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def connected(self) -> None:
        """Wait until a session is open; return at once if one is.

        The client tries for ever, so limit the time: `asyncio.wait_for(client.connected(), 10)`. A
        session may end right after it was opened. A cancel changes nothing.

        Raises `Closed` if the server wants the client no more, and `NotOpen` if the client is not
        running: it was not entered, or is closed.
        """
        await self._lifetime.until_open()

    async def close(self) -> None:
        """Send the acknowledgements that are due, end the session, and do not reconnect.

        Messages that were not handled are sent again to the next session. Rooms are kept. A
        cancelled call ends the session at once. May be called again.
        """
        if self._lifetime.is_running:
            try:
                await self._lifetime.close()
            finally:
                self._inbox.is_open = False

    # Messages

    def __aiter__(self) -> Messages:
        return Messages(self._inbox.take)

    async def run(self, handler: Handler) -> None:
        """Call a function, plain or async, with each message, one after the other.

        A message is acknowledged when the handler has returned. What the handler raises becomes
        an `error`; its message is neither acknowledged nor remembered, and comes again with the
        next session. Ends with `close`, or by raising `Closed`. When this is cancelled inside of
        a handler, the message comes again.
        """
        if not self._lifetime.is_running:
            async with self:
                await self._handle(handler)
        else:
            await self._handle(handler)

    async def _handle(self, handler: Handler) -> None:
        while (message := await self._inbox.take()) is not None:
            await self._handle_one(handler, message)

    async def _handle_one(self, handler: Handler, message: Message) -> None:
        try:
            answer = handler(message)
            if inspect.isawaitable(answer):
                await answer
        except Exception as error:  # noqa: BLE001 - whatever a handler raises
            self._receipts.failed(message.id)
            self._events.report(error)
        else:
            message.ack()

    # Requests

    async def request(self, body: Any) -> Any:
        """Send `body`, any JSON value, upstream; return the answer's body.

        Raises `Refused` if the answer is `{"error": {"code": "...", "message": "..."}}`, `NotOpen`
        without an open session, `NoAnswer` if no answer arrives in time, and ValueError or
        TypeError for a body that is too large or is not JSON.
        """
        return await self._call(Op.SEND, body)

    async def join(self, room: str) -> bool:
        """Join a room, in this session and in all later ones.

        Returns True if the server has confirmed it, False if there is no session; the next session
        then requests the room. Raises `Refused`, and then forgets the room; `NoAnswer`; ValueError.
        """
        self._check_free(room)
        self._rooms.join(room)
        try:
            return await self._ask_for(Op.JOIN, room)
        except Refused:
            self._rooms.leave(room)
            raise

    async def leave(self, room: str) -> bool:
        """Leave a room. Returns and raises as `join` does."""
        self._check_free(room)
        self._rooms.leave(room)
        return await self._ask_for(Op.LEAVE, room)

    async def change_room(self, room: str = "") -> bool:
        """Leave the room of the last `change_room`, or else the only one that the session began
        with, and join another, if one is given. Returns and raises as `join` does."""
        if self._subscriptions:
            raise ValueError("change_room() does not go with room(): use join() and leave()")
        old = self._rooms.change(room)
        try:
            return await self._ask_for(Op.CHANGE_ROOM, room)
        except Refused:
            self._rooms.unchange(room, old)
            raise

    def room(
        self, name: str, *, rewind: int = 0, position: Mapping[str, Any] | None = None
    ) -> Room:
        """Join a room, in this session and in all later ones, and keep the position in its stream.

        After a reconnect the client requests the messages that it has missed. Messages of the room
        go to the `Room`.

        - `position`: start behind this position, which was read from a `Room` or loaded with a
          state.
        - `rewind`: without a position, start with this number of the newest messages; 0 to 100,000.

        Raises ValueError, also while the client has joined the room, and TypeError for a `rewind`
        that is not a whole number.
        """
        check_count("rewind", rewind, 0, REWIND_MAX)
        self._check_free(check_room(name))
        if name in self._rooms:
            raise ValueError(f"the client has joined {name!r} already: leave it first")
        events = RoomEvents(self._events.report)

        def tell(state: str) -> None:
            events.emit("state", state)
            self._inbox.wake()

        stream = Stream(name, rewind, check_position(position), tell)
        self._subscriptions.add(stream)
        ask = partial(self._call_in, stream)
        follow = partial(self._subscriptions.follow, stream, ask)
        leave = self._subscriptions.leave
        return Room(stream, events, self._inbox.take_of, leave, ask=ask, follow=follow)

    def _check_free(self, room: str) -> None:
        """Raise ValueError if a `Room` of this client has the name."""
        if room in self._subscriptions:
            raise ValueError(f"room() was called for {room!r}")

    async def _ask_for(self, op: Op, room: str) -> bool:
        try:
            await self._call(op, room)
        except NotOpen:
            return False
        return True

    async def _call_in(
        self, stream: Stream, op: Op, body: Any, on_reply: Callable[[Any], None] | None = None
    ) -> Any:
        """Send a request about a room, after the reply to a join that is in progress."""
        if stream.state == "joining" and self.state == "open":
            with suppress(NoAnswer):  # then the server's answer to the request says why
                await within(self._limits.timeout, stream.until_answered())
        return await self._call(op, body, on_reply)

    async def _call(self, op: Op, body: Any, on_reply: Callable[[Any], None] | None = None) -> Any:
        if (size := size_of(body)) > self._limits.max_body:
            raise ValueError(f"a request has at most {self._limits.max_body} bytes, not {size}")
        return await self._lifetime.call(op, body, on_reply)


def _check_memory(ack: object, since: object, seen: object) -> None:
    """Raise TypeError or ValueError unless a client can know by these what it had before."""
    check_type("ack", ack, bool, "True or False")
    check_count("since", since, 0)
    if seen is not None:
        check_type("seen", seen, Seen, "a Seen, such as FileSeen(path)")


def _check_limits(heartbeat: object, timeout: object, **counts: object) -> None:
    """Raise TypeError or ValueError unless the times are seconds and the counts at least 1."""
    check_seconds("heartbeat", heartbeat)
    check_seconds("timeout", timeout)
    for name, value in counts.items():
        check_count(name, value, 1)
