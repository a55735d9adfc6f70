"""Delivery of one batch over HTTP: signed, bounded in time, and without redirects."""

import asyncio
import time

import httpx

from imgo_site.conf import conf
from push.hooks.signature import signed_headers
from push.webhooks.endpoints import Endpoint
from push.webhooks.outbox import Result
from push.webhooks.tables import WebhookBatch

ANSWER_MAX = 65_536  # bytes of an answer's body that are read, and ignored, to keep the connection
GONE = 410  # the receiver wants no more of this
# `ValueError` is raised for host names that cannot be encoded.
FAILURES = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError)


def make_client() -> httpx.AsyncClient:
    """Return a client for all endpoints. It keeps connections, and reads no environment."""
    return httpx.AsyncClient(
        headers={"Content-Type": "application/json", "User-Agent": "imgo"},
        limits=httpx.Limits(max_connections=None, keepalive_expiry=60.0),
        timeout=conf.WEBHOOK_TIMEOUT,
        follow_redirects=False,
        trust_env=False,
    )


async def deliver(http: httpx.AsyncClient, endpoint: Endpoint, batch: WebhookBatch) -> Result:
    """Send a batch once, with a fresh timestamp and signature. Raises only if it is cancelled."""
    body = batch.body.encode()
    headers = signed_headers(endpoint.secrets, batch.message_id, int(time.time()), body)
    try:
        # httpx's own limits are for each read; a receiver that answers byte by byte passes them.
        async with asyncio.timeout(conf.WEBHOOK_TIMEOUT):
            status = await _post(http, endpoint.url, headers, body)
    except TimeoutError:
        return Result(batch, f"no answer within {conf.WEBHOOK_TIMEOUT:g} s")
    except FAILURES as error:
        return Result(batch, str(error) or type(error).__name__)
    if 200 <= status < 300:
        return Result(batch)
    return Result(batch, f"it answered with status {status}", is_final=status == GONE)


async def _post(http: httpx.AsyncClient, url: str, headers: dict[str, str], body: bytes) -> int:
    async with http.stream("POST", url, content=body, headers=headers) as response:
        received = 0
        async for chunk in response.aiter_raw():
            received += len(chunk)
            if received > ANSWER_MAX:
                break
        return response.status_code
