"""Publishers, for plain code and for asyncio. They differ only in how they send and wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from imgo_client.calls import AsyncCalls, Calls
from imgo_client.errors import ApiError
from imgo_client.exchange import Answer, Retry, Send, Steps, exchange
from imgo_client.pushes import ARRAY, LINES, ONE, PIECE_PUSHES, Form, Pile, Push, Result, pieces
from imgo_client.requests import Request, call

ANSWER_SHARE = 3  # times the timeout: when an answer must be complete, from the attempt's begin

T = TypeVar("T")


class _Base:
    """URL and options of a publisher. The API key is only in the headers of the HTTP client."""

    def __init__(self, url: str, api_key: str, timeout: float, retry: Retry | None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("the url begins with http:// or https:// and names a host")
        if parts.username is not None:
            raise ValueError("the url carries no user: the API key says who it is")
        if not api_key or not api_key.isascii() or not api_key.isprintable():
            raise ValueError("an API key is needed, in printable ASCII")
        self._url = url.rstrip("/")
        self._retry = Retry() if retry is None else retry
        self._answer_limit = ANSWER_SHARE * timeout
        self._options: dict[str, Any] = {
            "base_url": self._url,
            "headers": {"Authorization": f"Api-Key {api_key}"},
            "timeout": timeout,
        }

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._url}>"


class Publisher(_Base, Calls):
    """Publisher for plain code: pushes, and calls of the rest of the API, over HTTP.

    Threads may share one. Retries push nothing twice.

    - `url`: URL of the server, such as "https://push.example.org".
    - `timeout`: seconds for each step of an attempt: to connect, to send, to wait for an answer or
      its next part. An answer that is incomplete after three times as long counts as failed.
    - `retry`: see `Retry`.
    - `http`: arguments for httpx.Client, such as `verify`, `proxy`, `limits`.

    Connections are kept open for later calls until `close`. A publisher is a context manager.
    """

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        timeout: float = 10.0,
        retry: Retry | None = None,
        **http: Any,
    ) -> None:
        super().__init__(url, api_key, timeout, retry)
        self._http = httpx.Client(**self._options, **http)
        del self._options

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def push(self, body: Any, **push: Any) -> Result:
        """Push one message: see `Push` for the arguments. Raises `PublishError`."""
        return _only(self._drive(exchange(ONE, [Push(body, **push)], self._retry)))

    def push_many(self, pushes: Iterable[Push]) -> list[Result]:
        """Push all, in as few requests as possible. Return a result for each, in order.

        A push that the server refuses has an `error` in its result, and does not affect the others.
        Raises `PublishError` if a request failed as a whole. A second call with the same objects
        pushes nothing twice.
        """
        return [result for piece in pieces(pushes) for result in self._send(ARRAY, piece)]

    def stream(self, pushes: Iterable[Push], piece: int = PIECE_PUSHES) -> Iterator[Result]:
        """Push any number, in pieces, over one connection. Yield the results in order.

        `piece`: number of pushes in one request, which is also the unit of a retry. Raises like
        `push_many`.
        """
        for batch in pieces(pushes, piece):
            yield from self._send(LINES, batch)

    def _send(self, form: Form, pushes: list[Push]) -> list[Result]:
        return self._drive(exchange(form, pushes, self._retry))

    def _call(self, request: Request) -> Any:
        return self._drive(call(request, self._retry))

    def _drive(self, steps: Steps[T]) -> T:
        outcome: Answer | Exception | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            if isinstance(step, Send):
                outcome = self._transmit(step)
            else:
                outcome = None
                time.sleep(step.seconds)

    def _transmit(self, request: Send) -> Answer | Exception:
        content, end = bytearray(), time.monotonic() + self._answer_limit
        try:
            with self._http.stream(request.method, request.path, **_content(request)) as response:
                for part in response.iter_bytes():
                    _check_time(end)
                    content += part
        except httpx.RequestError as error:  # nobody knows what the server has accepted
            return error
        return _answer(response, content)


class AsyncPublisher(_Base, AsyncCalls):
    """Publisher for asyncio, with the methods of `Publisher`. Tasks may share one."""

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        timeout: float = 10.0,
        retry: Retry | None = None,
        **http: Any,
    ) -> None:
        super().__init__(url, api_key, timeout, retry)
        self._http = httpx.AsyncClient(**self._options, **http)
        del self._options

    async def __aenter__(self) -> AsyncPublisher:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def push(self, body: Any, **push: Any) -> Result:
        """Push one message: see `Push` for the arguments. Raises `PublishError`.

        After a cancelled call it is unknown whether the push was accepted.
        """
        return _only(await self._drive(exchange(ONE, [Push(body, **push)], self._retry)))

    async def push_many(self, pushes: Iterable[Push]) -> list[Result]:
        """Push all, and return a result for each, in order. See `Publisher.push_many`."""
        return [result for piece in pieces(pushes) for result in await self._send(ARRAY, piece)]

    async def stream(
        self, pushes: Iterable[Push] | AsyncIterable[Push], piece: int = PIECE_PUSHES
    ) -> AsyncIterator[Result]:
        """Push any number from a plain or an asynchronous iterable. Yield the results in order.

        See `Publisher.stream`.
        """
        pile = Pile(piece)
        async for push in _each(pushes):
            for result in await self._send(LINES, pile.add(push)):
                yield result
        for result in await self._send(LINES, pile.take()):
            yield result

    async def _send(self, form: Form, pushes: list[Push]) -> list[Result]:
        return await self._drive(exchange(form, pushes, self._retry)) if pushes else []

    async def _call(self, request: Request) -> Any:
        return await self._drive(call(request, self._retry))

    async def _drive(self, steps: Steps[T]) -> T:
        outcome: Answer | Exception | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            if isinstance(step, Send):
                outcome = await self._transmit(step)
            else:
                outcome = None
                await asyncio.sleep(step.seconds)

    async def _transmit(self, request: Send) -> Answer | Exception:
        content, end = bytearray(), time.monotonic() + self._answer_limit
        try:
            async with self._http.stream(
                request.method, request.path, **_content(request)
            ) as response:
                async for part in response.aiter_bytes():
                    _check_time(end)
                    content += part
        except httpx.RequestError as error:  # nobody knows what the server has accepted
            return error
        return _answer(response, content)


def _only(results: list[Result]) -> Result:
    (result,) = results
    error: ApiError | None = result.error
    if error is not None:
        raise error
    return result


def _content(request: Send) -> dict[str, Any]:
    """Return httpx's arguments for a request with content; none without content."""
    if not request.content:
        return {}
    return {"content": request.content, "headers": {"Content-Type": request.content_type}}


def _check_time(end: float) -> None:
    """Raise `httpx.ReadTimeout` after `end`: httpx limits only the wait for each part."""
    if time.monotonic() > end:
        raise httpx.ReadTimeout("the answer comes too slowly")


def _answer(response: httpx.Response, content: bytearray) -> Answer:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, headers, bytes(content))


async def _each(pushes: Iterable[Push] | AsyncIterable[Push]) -> AsyncIterator[Push]:
    if isinstance(pushes, AsyncIterable):
        async for push in pushes:
            yield push
    else:
        for push in pushes:
            yield push
