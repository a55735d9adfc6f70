"""The client: one session that comes back by itself."""

from __future__ import annotations

import asyncio
import inspect
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any

from imgo_client import transports
from imgo_client.backoff import check_pauses, pause
from imgo_client.errors import Closed, ImgoError, NotOpen, ProtocolError, Refused
from imgo_client.events import Callback, Ending, Events
from imgo_client.frames import Frame, Op, to_json
from imgo_client.messages import Message, Messages
from imgo_client.receipts import Receipts, Seen
from imgo_client.rooms import Rooms
from imgo_client.session import Limits, Session
from imgo_client.tasks import within
from imgo_client.transports import ABNORMAL, Ended, Transport

Token = str | Callable[[], str | Awaitable[str | None] | None] | None
Handler = Callable[[Message], object]

PARTING = 2.0  # seconds for the last acknowledgements
NORMAL, PROTOCOL_ERROR = 1000, 1002  # WebSocket's words for these


class Client:
    """Receives messages; each at least once, and with acknowledgement none twice.

        async with Client("wss://example.org/sub", token) as client:
            async for message in client:
                print(message.body)

    A message is acknowledged when the loop asks for the next one, or by `message.ack()`. Those
    that are not come again with the next session, or to the next client of the same key.

    - `url`: ws://, wss://, tcp:// or tcps://; `tls` is for the ones with an s.
    - `token`: a function, plain or async, is asked for every attempt.
    - `rooms`: to be in from the start.
    - `ack`: acknowledge messages; without, the server takes them for received once they are sent.
    - `since`: the last id that was handled here, to be told as well what other sessions of the
      key have had since. With it goes a `seen` that outlives the process.
    - `platform`, `device`: what the server shows of this session.
    - `heartbeat`: seconds between two, each up to 10% early. `timeout`: seconds for an attempt,
      token included, and for an answer. `backoff`: the shortest and the longest pause between two
      attempts.
    - `seen`: what remembers handled messages: `Seen()`, or `FileSeen(path)` across restarts.
    - `buffer`: messages that may wait here; then nothing is read until one is taken.
    - `max_size`: bytes that one message of the server may have. `max_body`: bytes that the server
      takes in one request, its `MAX_CLIENT_BODY`.

    Entered again after its end it begins anew.
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
        transports.check_url(url)
        for name, value in {"heartbeat": heartbeat, "timeout": timeout, "buffer": buffer}.items():
            if not 0 < value < float("inf"):
                raise ValueError(f"{name} can not be {value}")
        if since < 0:
            raise ValueError(f"since can not be {since}")
        if not callable(token):
            _check_token(token)
        self._url = url
        self._token = token
        self._tls = tls
        self._rooms = Rooms(rooms)
        self._about = {"ack": ack, "platform": platform, "device": device}
        self._limits = Limits(heartbeat, timeout, max_body, max_size)
        self._pauses = check_pauses(backoff)
        self._buffer = buffer
        self._receipts = Receipts(Seen() if seen is None else seen, since)
        self._events = Events()

        self._state = "closed"
        self._task: asyncio.Task[None] | None = None
        self._over: Closed | None = None  # why there will be no more messages
        self._link: Transport | None = None
        self._session: Session | None = None
        self._was_open = False  # this attempt has become a session
        self._arrears: list[tuple[Op, str]] = []
        self._inbox: deque[Message] = deque()
        self._arrived = asyncio.Event()
        self._taken = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Client {self._url.partition('?')[0]} {self._state}>"

    @property
    def state(self) -> str:
        """What the event `state` told last: "connecting", "open", "waiting" or "closed"."""
        return self._state

    @property
    def rooms(self) -> list[str]:
        """Those it is in, or asks for in its next session."""
        return self._rooms.wanted()

    def on(self, event: str, callback: Callback) -> Client:
        """Call a plain function at each `state`, `open`, `close` or `error`: see `Events`.

        What it raises becomes an `error`. Errors that nobody asks for are logged as "imgo_client".
        """
        self._events.on(event, callback)
        return self

    def off(self, event: str, callback: Callback) -> Client:
        """Call it no more."""
        self._events.off(event, callback)
        return self

    # Coming and going

    async def __aenter__(self) -> Client:
        if self._task is not None:
            raise RuntimeError("this client is running already")
        self._over = None
        self._inbox.clear()
        self._receipts.forget_held()
        self._task = asyncio.ensure_future(self._live())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End the session, with the acknowledgements that are due, and stay away.

        Messages that nobody has taken yet come again with the next session. Rooms are kept. When
        this is cancelled it ends at once. May be called again.
        """
        task = self._task
        if task is None:
            return
        task.cancel()
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            task.cancel()
            raise
        finally:
            self._task = None

    async def _live(self) -> None:
        """Session after session."""
        ending = Ending(NORMAL, "closed by the client", False, 0.0)
        try:
            self._over = await self._come_back()
            ending = Ending(self._over.code, self._over.reason, False, 0.0)
        finally:
            try:
                self._receipts.save()
            except OSError as error:
                self._events.report(error)
            self._change_state("closed")
            self._events.emit("close", ending)
            self._arrived.set()

    async def _come_back(self) -> Closed:
        """Attempts and pauses until the server wants no more of them."""
        failures = 0
        while True:
            began = asyncio.get_running_loop().time()
            ended = await self._attempt()
            # A session that outlived the longest pause was a good one.
            lasted = asyncio.get_running_loop().time() - began
            is_good = self._was_open and lasted >= self._pauses[1]
            failures = 1 if is_good else failures + 1
            if ended.code >= 4500 or ended.reconnect is False:
                return Closed(ended.code, ended.reason)
            delay = pause(failures, self._pauses)
            self._change_state("waiting")
            self._events.emit("close", Ending(ended.code, ended.reason, True, delay))
            await asyncio.sleep(delay)

    async def _attempt(self) -> Ended:
        """One connection, from the token to the end."""
        self._was_open = False
        self._change_state("connecting")
        try:
            await within(self._limits.timeout, self._open())
            session = self._session
            assert session is not None
            await session.serve(self._settle())
        except Ended as ended:
            return ended
        except asyncio.CancelledError:
            await self._part()
            raise
        except ProtocolError as error:
            self._events.report(error)
            return Ended(PROTOCOL_ERROR, str(error))
        except Exception as error:  # noqa: BLE001 - a token function's too: it is told, never lost
            self._events.report(error)
            return Ended(ABNORMAL, "the session failed" if self._was_open else "could not connect")
        finally:
            await self._let_go()
        return Ended(ABNORMAL)

    async def _open(self) -> None:
        token = self._token() if callable(self._token) else self._token
        if inspect.isawaitable(token):
            token = await token
        _check_token(token)
        self._link = await transports.connect(self._url, self._limits.max_size, self._tls)
        self._session = Session(
            self._link, self._limits, self._receipts, self._deliver, self._events.report
        )
        since = str(self._receipts.since).lstrip("0")
        about = {"token": token, "since": since, **self._about}
        body = {name: said for name, said in about.items() if said}
        most = self._limits.max_body
        rooms = self._rooms.ask(lambda rooms: _size({**body, "rooms": rooms}) <= most)
        reply = await self._session.open({**body, "rooms": rooms} if rooms else body)
        self._arrears = list(self._rooms.arrears())  # before the user can change more
        self._was_open = True  # the user may close it from now on
        self._change_state("open")
        self._events.emit("open", reply)

    async def _part(self) -> None:
        """The last acknowledgements, before the user's close."""
        if self._session is not None and self._was_open:
            # What is not sent is sent by the next session, or the messages come again.
            with suppress(Ended, ImgoError):
                await within(PARTING, self._session.flush())

    async def _let_go(self) -> None:
        link, self._link, self._session = self._link, None, None
        if link is not None:
            await link.close()

    def _change_state(self, state: str) -> None:
        if state != self._state:
            self._state = state
            self._events.emit("state", state)

    # Messages

    async def _deliver(self, frame: Frame) -> None:
        """Take a message in, when there is room."""
        if frame.id and not self._receipts.is_new(frame.id):
            return
        # Whoever waits for an answer may be the one who is to make room: then reading goes on.
        while len(self._inbox) >= self._buffer and not self._awaits_answer:
            self._taken.clear()
            await self._taken.wait()
        self._receipts.hold(frame.id)
        self._inbox.append(Message(frame.body, frame.op, frame.id, self._receipts))
        self._arrived.set()

    @property
    def _awaits_answer(self) -> bool:
        return self._session is not None and self._session.awaits_answer

    async def _next(self) -> Message | None:
        """The next message; None after `close`. Raises `Closed`."""
        while not self._inbox or self._task is None:
            if self._over is not None:
                raise Closed(self._over.code, self._over.reason)
            if self._task is None or self._task.cancelled():
                return None
            if self._task.done():
                self._task.result()  # raises: only a bug of ours leads here
            self._arrived.clear()
            await self._arrived.wait()
        self._taken.set()
        return self._inbox.popleft()

    def __aiter__(self) -> Messages:
        return Messages(self._next)

    async def run(self, handler: Handler) -> None:
        """Call a function, plain or async, with each message, one after the other.

        A message is acknowledged when the handler has returned. What the handler raises becomes
        an `error`; its message is neither acknowledged nor remembered, and comes again with the
        next session. Ends with `close`, or by raising `Closed`. When this is cancelled inside of
        a handler, the message comes again.
        """
        if self._task is None:
            async with self:
                await self._handle(handler)
        else:
            await self._handle(handler)

    async def _handle(self, handler: Handler) -> None:
        while (message := await self._next()) is not None:
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
        """Join a room, in this session and in all that follow.

        True: the server has confirmed it. False: there is no session, the next one asks for the
        room. Raises `Refused`, and then the room is forgotten; `NoAnswer`; ValueError.
        """
        self._rooms.join(room)
        try:
            return await self._ask_for(Op.JOIN, room)
        except Refused:
            self._rooms.leave(room)
            raise

    async def leave(self, room: str) -> bool:
        """Leave a room. Returns and raises as `join` does."""
        self._rooms.leave(room)
        return await self._ask_for(Op.LEAVE, room)

    async def change_room(self, room: str = "") -> bool:
        """Leave the room of the last `change_room`, or else the only one that the session began
        with, and join another, if one is given. Returns and raises as `join` does."""
        old = self._rooms.change(room)
        try:
            return await self._ask_for(Op.CHANGE_ROOM, room)
        except Refused:
            self._rooms.unchange(room, old)
            raise

    async def _ask_for(self, op: Op, room: str) -> bool:
        try:
            await self._call(op, room)
        except NotOpen:
            return False
        return True

    async def _call(self, op: Op, body: Any) -> Any:
        if (size := _size(body)) > self._limits.max_body:
            raise ValueError(f"a request has at most {self._limits.max_body} bytes, not {size}")
        if self._session is None:
            raise NotOpen("no session is open")
        self._taken.set()  # the answer may be behind messages
        return await self._session.call(op, body)

    async def _settle(self) -> None:
        """Make good what the auth frame had no space for, or the user changed meanwhile."""
        for op, room in self._arrears:
            if (op == Op.LEAVE) != (room in self._rooms.wanted()):  # so it is still
                await self._settle_one(op, room)
        await asyncio.Event().wait()  # `serve` ends with the first that ends

    async def _settle_one(self, op: Op, room: str) -> None:
        try:
            await self._ask_for(op, room)
        except ImgoError as error:
            if op == Op.JOIN and isinstance(error, Refused):
                self._rooms.leave(room)
            self._events.report(error)


def _size(body: Any) -> int:
    return len(to_json(body).encode())


def _check_token(token: object) -> None:
    if token is not None and not isinstance(token, str):
        raise TypeError("a token is a string")
