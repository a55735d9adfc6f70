"""Delivery of one batch over HTTP: signed, bounded in time, and without redirects."""

import asyncio
import time

import httpx

from imgo_site.conf import conf
from push.hooks import http
from push.hooks.signature import signed_headers
from push.webhooks.endpoints import Endpoint
from push.webhooks.outbox import Result
from push.webhooks.tables import WebhookBatch

GONE = 410  # the receiver wants no more of this
# `ValueError` is raised for host names that cannot be encoded.
FAILURES = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError)


def make_client() -> httpx.AsyncClient:
    """Return a client for all endpoints."""
    return http.make_client(conf.WEBHOOK_TIMEOUT, None)


async def deliver(client: httpx.AsyncClient, endpoint: Endpoint, batch: WebhookBatch) -> Result:
    """Send a batch once, with a fresh timestamp and signature. Raises only if it is cancelled."""
    body = batch.body.encode()
    headers = signed_headers(endpoint.secrets, batch.message_id, int(time.time()), body)
    try:
        # httpx's own limits are for each read; a receiver that answers byte by byte passes them.
        async with asyncio.timeout(conf.WEBHOOK_TIMEOUT):
            # The answer's body is read, and ignored, so that the connection can be kept.
            status, _ = await http.post(client, endpoint.url, headers, body)
    except TimeoutError:
        return Result(batch, f"no answer within {conf.WEBHOOK_TIMEOUT:g} s")
    except FAILURES as error:
        return Result(batch, str(error) or type(error).__name__)
    if 200 <= status < 300:
        return Result(batch)
    return Result(batch, f"it answered with status {status}", is_final=status == GONE)
