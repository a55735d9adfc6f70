"""Middleware that gives each HTTP request an id, its client's address, a span and a log line."""

import logging
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import FileResponse, HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.functional import SimpleLazyObject

from imgo_site import addresses, browser_requests, logs, prefix, tracing

access = logging.getLogger("imgo.access")

HEADER = "X-Request-ID"
SECRET_PARAMETERS = frozenset({"apikey", "token"})
# Before Python 3.11.10 and 3.12.6 the time to parse cookies grows with the square of the number of
# their backslashes (CVE-2024-7592). 64 KiB of them take 40 s, this many 0.02 s. Cookies of Django's
# messages have some hundred. The cookies of a request with more than this are ignored.
COOKIE_ESCAPES_MAX = 1_000
FILE_PIECE = 64 * 1024  # bytes of a file in memory at a time, for each request on ASGI


class RequestMiddleware:
    """The outermost middleware: it sees the caller's request and the final response."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Any) -> None:
        addresses.check()  # gunicorn runs no system checks
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        """Return the response to a request; under ASGI, a coroutine that returns it."""
        if self.is_async:
            return self._respond(request)
        with RequestContext(request) as noted:
            return noted.answered(self.get_response(request))

    async def _respond(self, request: HttpRequest) -> HttpResponseBase:
        with RequestContext(request) as noted:
            return noted.answered(await self.get_response(request))


class RequestContext:
    """Context manager for one request: sets its id, span and addresses, and logs its response."""

    def __init__(self, request: HttpRequest) -> None:
        self._request = request
        self.id = logs.sane_request_id(request.headers.get(HEADER, ""))
        self._context = logs.within(self.id)
        self._span = tracing.span(
            f"HTTP {request.method}", parent=request.headers.get("traceparent", ""), kind="server"
        )
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        prefix.place(self._request)
        meta = self._request.META
        _hide_secrets(meta, "RAW_URI")
        if meta.get("HTTP_COOKIE", "").count("\\") > COOKIE_ESCAPES_MAX:
            del meta["HTTP_COOKIE"]
        # Before any other code reads the address, including the server's own access log.
        set_client_addresses(self._request)
        self._context.__enter__()
        self._recording = self._span.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._span.__exit__(*error)
        self._context.__exit__(*error)

    def answered(self, response: HttpResponseBase) -> HttpResponseBase:
        """Add the id to the response, write the access log, and return the response."""
        request = self._request
        response[HEADER] = self.id
        if isinstance(response, StreamingHttpResponse) and not response.is_async:
            pieces: Any = response.streaming_content
            if isinstance(request, ASGIRequest):
                if isinstance(response, FileResponse):
                    response.block_size = FILE_PIECE  # not 4 KiB: each piece switches threads
                response.streaming_content = _one_by_one(_within(self.id, pieces))
            else:
                response.streaming_content = _within(self.id, pieces)
        if self._recording is not None:
            match = request.resolver_match
            route = match.route if match is not None else ""
            tracing.describe_span(
                self._recording,
                f"{request.method} /{route}" if route else "",
                **{
                    "http.request.method": request.method or "",
                    "http.route": route,
                    "http.response.status_code": response.status_code,
                    "imgo.request_id": self.id,
                },
            )
        if access.isEnabledFor(logging.INFO):
            seconds = round(time.monotonic() - self._began, 6)
            facts = {
                "method": request.method,
                "path": request.path,  # without the query: old tools send their API key in it
                "status": response.status_code,
                "seconds": seconds,
                "caller": _caller_of(request),
                "address": request.META["REMOTE_ADDR"],
            }
            access.info("%s %s %d %.1f ms", *list(facts.values())[:3], seconds * 1000, extra=facts)
        # The server writes its own access log from the same dictionary, after this.
        _hide_secrets(request.META, "QUERY_STRING")
        return response


def set_client_addresses(request: HttpRequest) -> None:
    """Replace the peer's address with the client's, as reported by trusted proxies.

    Drop headers that only a proxy may set, if the peer is no trusted proxy.
    """
    meta = request.META
    peer = meta[addresses.PEER] = meta.get("REMOTE_ADDR") or ""
    forwarded = request.headers.get(addresses.HEADER, "")
    meta["REMOTE_ADDR"] = addresses.client_address(peer, forwarded)
    if not browser_requests.may_forward(peer):
        dropped = [meta.pop(name, None) for name in browser_requests.forwarding_headers()]
        meta[addresses.DROPPED] = any(text is not None for text in dropped)


def _caller_of(request: HttpRequest) -> str:
    """Return the name of the caller's API key, "" if there is none.

    It does not load the user of an admin page, which would cost a query.
    """
    user = vars(request).get("user")
    return "" if isinstance(user, SimpleLazyObject) else getattr(user, "name", "")


def _hide_secrets(meta: dict[str, Any], name: str) -> None:
    """Replace API keys and tokens in a URL of the request with "hidden".

    `name`: the entry of `meta`, RAW_URI or QUERY_STRING.
    """
    text = meta.get(name) or ""
    path, mark, query = text.partition("?") if name == "RAW_URI" else ("", "", text)
    if "=" not in query:
        return
    pairs = parse_qsl(query, keep_blank_values=True)
    if not SECRET_PARAMETERS.isdisjoint(key.lower() for key, _ in pairs):
        masked = [(k, "hidden" if k.lower() in SECRET_PARAMETERS else v) for k, v in pairs]
        meta[name] = f"{path}{mark}{urlencode(masked)}"


def _within(name: str, pieces: Iterator[Any]) -> Iterator[Any]:
    """Yield the pieces of a stream; log lines of their production get the request's id."""
    while True:
        with logs.within(name):
            piece = next(pieces, None)
        if piece is None:
            return
        yield piece


async def _one_by_one(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the pieces of a stream, each produced in a thread after the previous one was sent.

    Django would first make a list of all pieces. Then each slow client of a file would hold the
    whole file in memory.
    """

    def following() -> bytes | None:
        return next(pieces, None)

    while (piece := await sync_to_async(following)()) is not None:
        yield piece
