"""One session: a connection from its auth frame to its end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, NamedTuple

from imgo_client.errors import NoAnswer, NotOpen, ProtocolError, Refused
from imgo_client.frames import Frame, Op
from imgo_client.receipts import Receipts
from imgo_client.tasks import until_first, within
from imgo_client.transports import ABNORMAL, Ended, Transport

ACK_PAUSE = 0.02  # seconds that acknowledgements wait for more of them
GOODBYE = 10.0  # seconds from the server's goodbye to its close
OF_ROOM = frozenset({Op.GAP, Op.PRESENCE_CHANGE})  # news of a room, which their bodies name
NEWS = OF_ROOM | {Op.RETRACTION, Op.READ}
_NONE = object()  # instead of an answer that will not come


@dataclass(frozen=True)
class Limits:
    """Limits of sessions. Times in seconds, sizes in bytes."""

    heartbeat: float
    timeout: float
    max_body: int
    max_size: int


class _Call(NamedTuple):
    """A request that waits for its reply. `answer`: the op of the reply."""

    answer: int
    future: asyncio.Future[Any]
    on_reply: Callable[[Any], None] | None

    def settle(self, body: Any) -> None:
        """Pass the reply on, unless its waiter has gone."""
        if self.future.done():
            return
        if self.on_reply is not None and _refusal(body) is None:
            self.on_reply(body)
        self.future.set_result(body)


class Session:
    """One session: sends requests, acknowledgements and heartbeats, and passes messages on.

    `deliver`: gets each frame with a message or an event of a room. The session reads nothing while
    it waits for `deliver`. `report`: gets errors that do not end the session.
    """

    def __init__(
        self,
        link: Transport,
        limits: Limits,
        receipts: Receipts,
        deliver: Callable[[Frame], Awaitable[None]],
        report: Callable[[Exception], None],
    ) -> None:
        self._link = link
        self._limits = limits
        self._receipts = receipts
        self._deliver = deliver
        self._report = report
        self._seq = 0
        self._calls: dict[int, _Call] = {}  # by seq
        self._behind: list[Frame] = []  # what came with the auth reply
        self._heard = asyncio.Event()  # something since the last heartbeat
        self._is_delivering = False
        self.is_open = False

    @property
    def awaits_answer(self) -> bool:
        """Whether a request waits for a reply, which may be behind many messages."""
        return bool(self._calls)

    async def open(self, body: dict[str, Any]) -> Any:
        """Authenticate, and return the reply's body. Raises `Ended`, `ProtocolError`."""
        self._seq += 1
        await self._link.send(Op.AUTH, body, self._seq)
        while True:
            frames = await self._link.receive()
            for place, frame in enumerate(frames):
                if frame.op == Op.AUTH_REPLY:
                    self._behind = frames[place + 1 :]
                    self.is_open = True
                    return frame.body
                if frame.op == Op.DISCONNECT:
                    await self._part(frame.body)

    async def serve(self, *beside: Coroutine[Any, Any, None]) -> None:
        """Serve the session, with `beside`, until it raises `Ended` or `ProtocolError`."""
        if self._link.needs_heartbeats:
            beside = (*beside, self._beat())
        try:
            await until_first(self._read(), self._acknowledge(), *beside)
        finally:
            self.is_open = False
            for call in self._calls.values():
                if not call.future.done():
                    call.future.set_result(_NONE)

    async def call(self, op: Op, body: Any, on_reply: Callable[[Any], None] | None = None) -> Any:
        """Send a request, and return the reply's body. Raises `NotOpen`, `NoAnswer`, `Refused`.

        `on_reply`: gets the body before any later frame is handled.
        """
        if not self.is_open:
            raise NotOpen("no session is open")
        self._seq = self._seq % 0x7FFFFFFF + 1  # a positive int32: 0 is left to pushes
        seq = self._seq
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls[seq] = _Call(op + 1, future, on_reply)
        try:
            answer = await within(self._limits.timeout, self._ask(op, body, seq, future))
        finally:
            del self._calls[seq]
        if (refusal := _refusal(answer)) is not None:
            raise refusal
        return answer

    async def _ask(self, op: Op, body: Any, seq: int, future: asyncio.Future[Any]) -> Any:
        try:
            await self._link.send(op, body, seq)
        except Ended as ended:
            raise NotOpen(f"the session has ended: {ended.reason}") from None
        if (answer := await future) is _NONE:
            raise NotOpen("the session ended before the answer came")
        return answer

    async def flush(self) -> None:
        """Send the acknowledgements that are due. Raises `Ended`; unsent ones stay due."""
        if not (lists := self._receipts.due(self._limits.max_body)):
            return
        try:
            self._receipts.save()
        except OSError as error:
            self._report(error)
        for ids in lists:
            await self._link.send(Op.ACK, ids)
            self._receipts.sent(ids)

    async def _acknowledge(self) -> None:
        while True:
            await self.flush()
            await self._receipts.is_due.wait()
            await asyncio.sleep(ACK_PAUSE)

    # Reading

    async def _read(self) -> None:
        frames, self._behind = self._behind, []
        while True:
            for frame in frames:
                await self._handle(frame)
            frames = await self._link.receive()
            self._heard.set()

    async def _handle(self, frame: Frame) -> None:
        call = self._calls.get(frame.seq)
        if call is not None and call.answer == frame.op:
            call.settle(frame.body)
        elif frame.op == Op.DISCONNECT:
            await self._part(frame.body)
        elif (frame.op == Op.MESSAGE and not frame.seq) or frame.op >= Op.OWN or frame.op in NEWS:
            self._is_delivering = True
            await self._deliver(frame)
            self._is_delivering = False
            self._heard.set()  # whatever it has sent meanwhile waits to be read

    async def _part(self, body: Any) -> None:
        """Wait for the close that the server has announced by op 6. Raises `Ended`."""
        announced = _farewell(body)
        try:
            await within(GOODBYE, self._until_closed())
        except Ended as closed:
            if closed.code >= 4000:
                raise Ended(closed.code, closed.reason, announced.reconnect) from None
        except (NoAnswer, ProtocolError):
            pass
        raise announced

    async def _until_closed(self) -> None:
        while True:
            await self._link.receive()

    # Heartbeats

    async def _beat(self) -> None:
        while True:
            jitter = 0.9 + 0.1 * random.random()  # noqa: S311 - no secret
            await asyncio.sleep(self._limits.heartbeat * jitter)
            self._heard.clear()
            try:
                await within(self._limits.timeout, self._probe())
            except NoAnswer:
                if not self._is_delivering:
                    raise Ended(ABNORMAL, "no answer to a heartbeat") from None

    async def _probe(self) -> None:
        await self._link.send(Op.HEARTBEAT)
        await self._heard.wait()


def _refusal(answer: Any) -> Refused | None:
    """Return the `Refused` of an error reply; None for another reply."""
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict) or not isinstance(error.get("code"), str):
        return None
    return Refused(error["code"], str(error.get("message", "")))


def _farewell(body: Any) -> Ended:
    """Return the body of op 6 as an `Ended`."""
    members = body if isinstance(body, dict) else {}
    code, reason, reconnect = members.get("code"), members.get("reason"), members.get("reconnect")
    return Ended(
        code if type(code) is int else ABNORMAL,
        reason if isinstance(reason, str) else "",
        reconnect if isinstance(reconnect, bool) else None,
    )
