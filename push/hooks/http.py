"""HTTP requests to the user's backend: what hooks and webhooks have in common."""

import ssl
from functools import lru_cache

import httpx

ANSWER_MAX = 65_536  # bytes that are read of an answer's body


def make_client(timeout: float, max_connections: int | None) -> httpx.AsyncClient:
    """Return a client that keeps connections, follows no redirect and reads no environment.

    `timeout`: seconds for each step of a request. `max_connections`: None for no limit.
    """
    return httpx.AsyncClient(
        headers={"Content-Type": "application/json", "User-Agent": "imgo"},
        limits=httpx.Limits(
            max_connections=max_connections,
            max_keepalive_connections=max_connections,
            keepalive_expiry=60.0,
        ),
        timeout=timeout,
        follow_redirects=False,
        trust_env=False,
        verify=_tls(),
    )


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    """Return the settings of TLS for all clients: reading the authorities takes 50 ms."""
    return httpx.create_ssl_context(trust_env=False)


async def post(
    http: httpx.AsyncClient, url: str, headers: dict[str, str], body: bytes
) -> tuple[int, bytes]:
    """Return status and body of the response; of a longer body, more than `ANSWER_MAX` bytes.

    Raises what httpx raises.
    """
    async with http.stream("POST", url, content=body, headers=headers) as response:
        received = bytearray()
        async for chunk in response.aiter_raw():
            received += chunk
            if len(received) > ANSWER_MAX:
                break
        return response.status_code, bytes(received)
