"""Reconnects of a client: its sessions one after the other, the attempts, the pauses, the end."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from imgo_client import renewal
from imgo_client.auth import check_token
from imgo_client.backoff import pause
from imgo_client.connectors import Connector
from imgo_client.errors import Closed, ImgoError, NotOpen, ProtocolError, Refused
from imgo_client.events import Ending, Events
from imgo_client.frames import Frame, Op
from imgo_client.receipts import Receipts
from imgo_client.rooms import Rooms
from imgo_client.session import Limits, Session
from imgo_client.subscriptions import Subscriptions
from imgo_client.tasks import within
from imgo_client.transports import ABNORMAL, Ended, Transport

Token = str | Callable[[], str | Awaitable[str | None] | None] | None

PARTING = 2.0  # seconds for the last acknowledgements
NORMAL, PROTOCOL_ERROR = 1000, 1002  # WebSocket's words for these
OVERLOADED = "overloaded"  # how the reason begins if too many clients come at once


class Lifetime:
    """The sessions of a client, from its start to its end.

    `about`: members of the first frame besides token, rooms and `since`. `deliver`: gets each frame
    with a message or a gap. `wake`: called before a request, and at the end.
    """

    def __init__(
        self,
        connector: Connector,
        token: Token,
        about: Mapping[str, Any],
        limits: Limits,
        pauses: tuple[float, float],
        *,
        rooms: Rooms,
        subscriptions: Subscriptions,
        receipts: Receipts,
        events: Events,
        deliver: Callable[[Frame], Awaitable[None]],
        wake: Callable[[], None],
    ) -> None:
        self._connector = connector
        self._token = token
        self._about = about
        self._limits = limits
        self._pauses = pauses
        self._rooms = rooms
        self._subscriptions = subscriptions
        self._receipts = receipts
        self._events = events
        self._deliver = deliver
        self._wake = wake

        self.state = "closed"
        self.session: Session | None = None
        self._task: asyncio.Task[None] | None = None
        self._turn = asyncio.Event()  # set, and replaced, when the state changes
        self._over: Closed | None = None  # why there will be no more messages
        self._link: Transport | None = None
        self._was_open = False  # this attempt has become a session
        self._ends_at_once = False
        self._arrears: list[tuple[Op, str]] = []
        self._expires_in: float | None = None  # seconds, when the session was opened

    @property
    def is_running(self) -> bool:
        """Whether the client was started and not closed."""
        return self._task is not None

    @property
    def awaits_answer(self) -> bool:
        """Whether a request waits for a reply, which may be behind many messages."""
        return self.session is not None and self.session.awaits_answer

    def start(self) -> None:
        """Start the first attempt."""
        self._over = None
        self._ends_at_once = False
        self._connector.begin()
        self._task = asyncio.ensure_future(self._live())

    async def close(self) -> None:
        """Send the due acknowledgements and end the session; at once if the call is cancelled."""
        task = self._task
        if task is None:
            return
        task.cancel()
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            self._ends_at_once = True  # the task may not have got to its parting yet
            task.cancel()
            raise
        finally:
            self._task = None

    def check_alive(self) -> bool:
        """Return whether messages can still arrive. Raises `Closed`."""
        if self._over is not None:
            raise Closed(self._over.code, self._over.reason)
        if self._task is None or self._task.cancelled():
            return False
        if self._task.done():
            self._task.result()  # raises: only a bug of ours leads here
        return True

    async def until_open(self) -> None:
        """Wait until a session is open. Raises `Closed`, or `NotOpen` if it is not running."""
        while self.state != "open":
            if not self.check_alive() or self._task is None:
                raise NotOpen("the client is not running")
            turn = asyncio.ensure_future(self._turn.wait())
            try:
                await asyncio.wait([turn, self._task], return_when=asyncio.FIRST_COMPLETED)
            finally:
                turn.cancel()

    async def _live(self) -> None:
        """Run sessions until the end, and report it."""
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
            self._wake()

    async def _come_back(self) -> Closed:
        """Connect again after each end, with pauses, until a close code forbids it.

        Return that end.
        """
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
            if ended.reason.startswith(OVERLOADED):
                failures += 1  # doubles the pause
            delay = pause(failures, self._pauses)
            self._change_state("waiting")
            ending = Ending(ended.code, ended.reason, True, delay)
            self._events.emit("close", ending)
            if ended.code >= 4000 and not self._was_open:
                self._events.log_refusal(ending)
            await asyncio.sleep(delay)

    async def _attempt(self) -> Ended:
        """Open a session and serve it. Return how it ended."""
        self._was_open = False
        self._change_state("connecting")
        try:
            await within(self._limits.timeout, self._open())
            session = self.session
            assert session is not None
            left = self._expires_in if callable(self._token) else None
            renewing = renewal.keep(left, self._send_token, self._events.report)
            await session.serve(self._settle(), self._subscriptions.serve(), renewing)
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

    async def _ask_token(self) -> str | None:
        token = self._token() if callable(self._token) else self._token
        if inspect.isawaitable(token):
            token = await token
        check_token(token)
        return token

    async def _send_token(self) -> float | None:
        """Renew the session's token. Return the seconds until it expires; None: never."""
        token = await within(self._limits.timeout, self._ask_token())
        if token is None:  # by a cookie, which no frame can renew
            return None
        return renewal.expiry_of(await self.call(Op.AUTH, {"token": token}))

    async def _open(self) -> None:
        token = await self._ask_token()
        self._link = await self._connector.connect(self._limits.max_size)
        self.session = Session(
            self._link, self._limits, self._receipts, self._deliver, self._events.report
        )
        since = str(self._receipts.since).lstrip("0")
        about = {"token": token, "since": since, **self._about}
        body = self._connector.first_body(
            about, self._rooms, self._subscriptions, self._limits.max_body
        )
        reply = await self.session.open(body)
        self._expires_in = renewal.expiry_of(reply)
        self._arrears = list(self._rooms.arrears())  # before the user can change more
        self._was_open = True  # the user may close it from now on
        self._change_state("open")
        self._events.emit("open", reply)
        self._subscriptions.opened(body.get("rooms", ()), reply)

    async def _part(self) -> None:
        """Send the last acknowledgements before the user's close."""
        if self.session is not None and self._was_open and not self._ends_at_once:
            # What is not sent is sent by the next session, or the messages come again.
            with suppress(Ended, ImgoError):
                await within(PARTING, self.session.flush())

    async def _let_go(self) -> None:
        link, self._link, self.session = self._link, None, None
        self._subscriptions.lose()
        if link is not None:
            await link.close()

    def _change_state(self, state: str) -> None:
        if state != self.state:
            self.state = state
            self._turn.set()
            self._turn = asyncio.Event()
            self._events.emit("state", state)

    # Rooms

    async def _settle(self) -> None:
        """Join and leave rooms for which the first frame was too small or too early."""
        for op, room in self._arrears:
            if (op == Op.LEAVE) != (room in self._rooms.names()):  # not changed since
                await self._settle_one(op, room)
        await asyncio.Event().wait()  # `serve` ends with the first that ends

    async def _settle_one(self, op: Op, room: str) -> None:
        try:
            await self.call(op, room)
        except NotOpen:
            pass  # the next session asks for it
        except ImgoError as error:
            if op == Op.JOIN and isinstance(error, Refused):
                self._rooms.leave(room)
            self._events.report(error)

    async def call(self, op: Op, body: Any, on_reply: Callable[[Any], None] | None = None) -> Any:
        """Send a request in the session; see `Session.call`. Raises `NotOpen` without one."""
        if self.session is None:
            raise NotOpen("no session is open")
        self._wake()  # the answer may be behind messages
        return await self.session.call(op, body, on_reply)
