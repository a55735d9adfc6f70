"""Delivery of one batch over HTTP: signed, bounded in time, and without redirects."""

import asyncio
import time
from typing import TYPE_CHECKING

from imgo_site.conf import conf
from push.hooks.responses import NoResponse
from push.hooks.signature import signed_headers
from push.webhooks.endpoints import Endpoint
from push.webhooks.outbox import Result
from push.webhooks.tables import WebhookBatch

if TYPE_CHECKING:
    from push.hooks.http import HttpClient

GONE = 410  # the receiver wants no more of this


async def deliver(client: "HttpClient", endpoint: Endpoint, batch: WebhookBatch) -> Result:
    """Send a batch once, with a fresh timestamp and signature. Raises only if it is cancelled."""
    body = batch.body.encode()
    headers = signed_headers(endpoint.secrets, batch.message_id, int(time.time()), body)
    try:
        async with asyncio.timeout(conf.WEBHOOK_TIMEOUT):
            # The answer's body is read, and ignored, so that the connection can be kept.
            response = await client.post(endpoint.url, headers, body)
    except TimeoutError:
        return Result(batch, f"no answer within {conf.WEBHOOK_TIMEOUT:g} s")
    except NoResponse as error:
        return Result(batch, error.reason)
    if 200 <= response.status < 300:
        return Result(batch)
    return Result(batch, response.status_text, is_final=response.status == GONE)
