"""A connection by Server-Sent Events: one endless response, and a POST for each frame.

Any process of the server may receive a frame, and the frame may be lost on its way to the session.
So the client sends one frame at a time, and repeats a frame that has no reply.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlencode

import httpx

from imgo_client.backoff import pause
from imgo_client.errors import ProtocolError, Refused, api_error
from imgo_client.event_stream import Block, BlockParser
from imgo_client.exchange import AGAIN, Answer, describe, problem_of, retry_after
from imgo_client.frames import Frame, Op, decode_event, encode_text, parse_json
from imgo_client.resumption import Resumption
from imgo_client.transports import ABNORMAL, Ended

SILENCE_MAX = 60.0  # seconds; the server writes a comment after 25 s without an event
REPEAT_AFTER = 5.0  # seconds that a frame may be without a reply
PAUSES = (0.1, 2.0)  # seconds between attempts of a request that failed
REFUSAL_MAX = 65_536  # bytes of a refusal that are read
WITHOUT_REPLY = frozenset({Op.ACK})
# The close code of a WebSocket that is refused for the same reason, by the code of the problem.
CLOSE_CODES = {
    "error": 4011,
    "unavailable": 4013,
    "not_authenticated": 4401,
    "bad_request": 4500,
    "too_large": 4502,
    "too_many_attempts": 4428,
    "too_many_sessions": 4429,
    "room_forbidden": 4506,
}


class EventTransport:
    """Transport of one stream of events, with a request for each frame.

    `resumption`: shared by all transports of a client.
    """

    needs_heartbeats = False  # comments are the server's

    def __init__(
        self, url: str, max_size: int, tls: ssl.SSLContext | None, resumption: Resumption
    ) -> None:
        self._url, _, self._query = url.partition("?")
        self._resumption = resumption
        self._parser = BlockParser(max_size)
        # Without a context nothing of TLS is used, and none is made for nothing.
        timeout = httpx.Timeout(SILENCE_MAX, read=SILENCE_MAX)
        self._http = httpx.AsyncClient(verify=False if tls is None else tls, timeout=timeout)
        self._response: httpx.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None
        self._reading: asyncio.Task[bytes] | None = None
        self._ended: Ended | None = None
        self._session = ""
        self._seq = 0  # of the auth frame
        self._id: str | None = None  # of what was returned by `receive`, and may not be handled yet
        self._sending = asyncio.Lock()
        self._awaited: tuple[int, int] | None = None  # op and seq of a reply
        self._replied = asyncio.Event()
        self._reply: Any = None  # the body of the last one

    # Frames from the client

    async def send(self, op: Op, body: Any = None, seq: int = 0) -> None:
        """Send a frame. If the frame has a reply, wait until the reply has arrived.

        The first auth frame is the request for the stream. A later one renews the token.

        Raises `Ended`; `Refused` if the server refuses the frame; `ImgoError` for an answer that is
        not the server's.
        """
        if op == Op.AUTH and self._response is None:
            await self._open(body, seq)
            return
        frame = encode_text(Frame(op, seq, {} if body is None else body)).encode()
        async with self._sending:
            self._awaited = None if op in WITHOUT_REPLY else (op + 1, seq)
            self._replied.clear()
            self._reply = None
            try:
                await self._send_until_replied(frame)
            finally:
                self._awaited = None
            if op == Op.AUTH and isinstance(self._reply, dict) and "error" not in self._reply:
                self._use(body["token"])

    async def _send_until_replied(self, frame: bytes) -> None:
        failures = 0
        while not self._replied.is_set():
            seconds = await self._post(frame)
            if seconds is not None:
                failures += 1
                await self._until_replied(max(seconds, pause(failures, PAUSES)))
            elif self._awaited is None:
                return
            else:
                await self._until_replied(REPEAT_AFTER)

    async def _until_replied(self, seconds: float) -> None:
        """Wait for the reply or the end of the stream, with a timeout."""
        waiting = asyncio.ensure_future(self._replied.wait())
        try:
            await asyncio.wait([waiting], timeout=seconds)
        finally:
            waiting.cancel()

    async def _post(self, frame: bytes) -> float | None:
        """Send a frame once. Return None if the server took it, else the seconds until the next
        attempt.

        Raises `Ended` and `Refused`.
        """
        if self._ended is not None:
            raise self._ended
        url = self._target(f"{self._url.rstrip('/')}/{self._session}", [])
        try:
            response = await self._http.post(url, content=frame, timeout=REPEAT_AFTER)
        except httpx.HTTPError:
            return 0.0
        if response.status_code == 202:
            return None
        answer = _answer(response, response.content)
        if response.status_code in AGAIN:
            return min(REPEAT_AFTER, retry_after(answer.headers.get("retry-after", "")))
        problem = problem_of(answer)
        reason = str(problem.get("detail") or problem.get("title") or problem.get("code"))
        if response.status_code in (401, 404):  # the next session has a new token
            raise self._end(Ended(ABNORMAL, reason))
        raise Refused(str(problem.get("code", "")), reason)

    # The stream

    async def _open(self, body: Mapping[str, Any], seq: int) -> None:
        """Request the stream. Raises `Ended` if the server refuses it."""
        self._seq = seq
        if token := body.get("token"):
            self._use(token)
        fields = query_of(body)
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
        if last_id := self._resumption.id_for(body):
            headers["Last-Event-ID"] = last_id
        request = self._http.build_request("GET", self._target(self._url, fields), headers=headers)
        self._response = response = await self._http.send(request, stream=True)
        if response.status_code != 200:
            raise await _refusal(response)
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            raise ProtocolError("the answer is no stream of events: is the URL right?")
        self._chunks = response.aiter_bytes()

    def _use(self, token: str) -> None:
        self._http.headers["Authorization"] = f"Bearer {_check_token(token)}"

    def _target(self, url: str, fields: list[tuple[str, str]]) -> str:
        query = "&".join(part for part in (self._query, urlencode(fields)) if part)
        return f"{url}?{query}" if query else url

    async def receive(self) -> list[Frame]:
        """Return the next frames. Raises `Ended` or `ProtocolError`.

        The frames that the previous call returned count as handled. May be cancelled and called
        again.
        """
        if self._id is not None:
            self._resumption.handled(self._id)
            self._id = None
        while True:
            if self._ended is not None:
                raise self._ended
            # A task of its own, because a cancel inside of httpx would end the response.
            reading = self._reading or asyncio.ensure_future(self._next_bytes())
            self._reading = reading
            await asyncio.wait([reading])
            self._reading = None
            if reading.cancelled():
                continue  # by `_end`
            blocks = self._parser.feed(reading.result())
            if blocks:
                return self._frames(blocks)

    async def _next_bytes(self) -> bytes:
        """Return the next bytes of the response. Raises `Ended`."""
        assert self._chunks is not None
        try:
            async for data in self._chunks:
                return data
        except httpx.ReadTimeout:
            raise Ended(ABNORMAL, f"nothing came for {SILENCE_MAX:g} s") from None
        except httpx.HTTPError as error:
            raise Ended(ABNORMAL, describe(error)) from None
        raise Ended(ABNORMAL, "the connection was lost")

    def _frames(self, blocks: list[Block]) -> list[Frame]:
        frames = []
        for block in blocks:
            if block.id is not None:
                self._id = block.id
            if block.data:
                frames.append(self._frame(block))
        return frames

    def _frame(self, block: Block) -> Frame:
        if block.event == "open":
            return self._opened(block.data)
        frame = decode_event(block.data)
        if block.event != "message" and (frame.op, frame.seq) == self._awaited:
            self._reply = frame.body
            self._replied.set()
        return frame

    def _opened(self, data: str) -> Frame:
        """Return the first event as the auth reply that other transports get."""
        try:
            value = parse_json(data)
        except ValueError:
            value = None
        session = value.get("session") if isinstance(value, dict) else None
        if not isinstance(session, str):
            raise ProtocolError("the first event names no session")
        self._session = session
        return Frame(Op.AUTH_REPLY, self._seq, value)

    # The end

    def _end(self, ended: Ended) -> Ended:
        """Make `receive` raise this exception; return it."""
        self._ended = ended
        self._replied.set()  # nobody waits for a reply any more
        if self._reading is not None:
            self._reading.cancel()
        return ended

    async def close(self) -> None:
        """End the response; at once if the call is cancelled."""
        reading, self._reading = self._reading, None
        self._end(Ended(ABNORMAL, "closed"))
        try:
            if reading is not None:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
            if isinstance(self._chunks, AsyncGenerator):
                await self._chunks.aclose()
            if self._response is not None:
                await self._response.aclose()
        finally:
            await self._http.aclose()

    def abort(self) -> None:
        """Stop reading; `close` releases the connection."""
        self._end(Ended(ABNORMAL, "closed"))


def query_of(body: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the members of an auth body as fields of a query, without the token."""
    fields = [(name, str(body[name])) for name in ("since", "platform", "device") if body.get(name)]
    flags = [(name, "1") for name in ("ack", "retractions") if body.get(name)]
    return [*fields, *flags, *(("rooms", room) for room in body.get("rooms", ()))]


def _check_token(token: str) -> str:
    if not token.isascii() or not token.isprintable():
        raise ValueError("over HTTP a token has printable ASCII characters only")
    return token


def _answer(response: httpx.Response, content: bytes) -> Answer:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, headers, content)


async def _refusal(response: httpx.Response) -> Exception:
    """Return the server's refusal of a stream as the close of a WebSocket; see `Ended`."""
    content = b""
    async for data in response.aiter_bytes():
        content += data
        if len(content) > REFUSAL_MAX:
            break
    problem = problem_of(_answer(response, content))
    code = CLOSE_CODES.get(str(problem.get("code")))
    if code is None:
        return api_error(problem)
    return Ended(code, str(problem.get("detail", "")))
