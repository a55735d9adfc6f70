"""HTTP client for the user's backend, shared by hooks and webhooks."""

import os
import ssl
from functools import lru_cache

import aiohttp
import certifi

from push.hooks.responses import ANSWER_MAX, NoResponse, Response, one_line

KEEP_IDLE = 60.0  # seconds that an unused connection is kept
HEADERS = {
    "Content-Type": "application/json",
    "User-Agent": "imgo",
    "Accept-Encoding": "identity",  # answers are small; nothing here decodes others
}

# `ValueError` is raised for host names that cannot be encoded.
FAILURES = (aiohttp.ClientError, OSError, ValueError)
# A connection that ended before its answer.
BROKEN = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionResetError)


class HttpClient:
    """Client that keeps connections, follows no redirect and reads no environment.

    It has no time limit of its own: callers set one around `post`. Make it inside a running event
    loop.

    `connections`: how many it may have to one host, 0 for no limit.
    """

    def __init__(self, connections: int = 0) -> None:
        self._kept = _session(connections, force_close=False)
        self._fresh = _session(connections, force_close=True)

    async def post(self, url: str, headers: dict[str, str], body: bytes) -> Response:
        """Return the response. A request whose connection breaks is repeated once, unchanged.

        A backend may close an idle connection at the moment when it is used. The other idle ones
        may end with it, so the repetition opens a connection of its own.

        Raises `NoResponse`.
        """
        try:
            return await self._post_twice(url, headers, body)
        except FAILURES as error:
            raise NoResponse(_reason_of(error)) from error

    async def _post_twice(self, url: str, headers: dict[str, str], body: bytes) -> Response:
        try:
            return await _post(self._kept, url, headers, body)
        except aiohttp.ClientConnectorError:
            raise  # no connection was made
        except BROKEN:
            return await _post(self._fresh, url, headers, body)

    async def close(self) -> None:
        """Close the connections."""
        await self._kept.close()
        await self._fresh.close()


def _reason_of(error: BaseException) -> str:
    """Return one line for the log about one of `FAILURES`."""
    match error:
        case aiohttp.ClientConnectorError():
            return _reason_without_connection(error)
        case aiohttp.ServerDisconnectedError():
            return "it closed the connection without an answer"
        case aiohttp.ClientResponseError():
            return f"its answer is not HTTP: {one_line(error.message)}"
        case aiohttp.ClientPayloadError():
            return "it closed the connection before the end of its answer"
        case _:
            return one_line(error) or type(error).__name__


def _reason_without_connection(error: aiohttp.ClientConnectorError) -> str:
    why, host = error.os_error, error.host
    match error:
        case aiohttp.ClientConnectorDNSError():
            return f"the host name {host!r} has no address: {why.strerror}"
        case aiohttp.ClientConnectorCertificateError():
            return f"the certificate of {host!r} is not valid: {one_line(error.certificate_error)}"
        case aiohttp.ClientSSLError():
            return f"no TLS with {host}:{error.port}: {one_line(why)}"
        case _:
            # asyncio puts the address where the system's text was.
            text = os.strerror(why.errno) if why.errno else one_line(why)
            return f"no connection to {host}:{error.port}: {text}"


def _session(connections: int, *, force_close: bool) -> aiohttp.ClientSession:
    keep_idle = None if force_close else KEEP_IDLE
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=connections, force_close=force_close, keepalive_timeout=keep_idle, ssl=_tls()
        ),
        headers=HEADERS,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
        trust_env=False,
    )


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    """Return the settings of TLS for all clients: reading the authorities takes 50 ms."""
    return ssl.create_default_context(cafile=certifi.where())


async def _post(
    session: aiohttp.ClientSession, url: str, headers: dict[str, str], body: bytes
) -> Response:
    async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
        received = bytearray()
        while len(received) <= ANSWER_MAX and (part := await response.content.readany()):
            received += part
        return Response(
            response.status,
            bytes(received),
            response.headers.get("Location", "") if 300 <= response.status < 400 else "",
            response.headers.get("Content-Encoding", ""),
        )
