"""Delivery of one batch: signed by each secret, and every answer but 2xx is a failure."""

import json

import pytest
from standardwebhooks import Webhook

from push.hooks import http
from push.hooks.http import HttpClient
from push.webhooks.delivery import deliver
from push.webhooks.endpoints import endpoints
from push.webhooks.outbox import Result
from push.webhooks.tables import WebhookBatch
from tests.push.hooks.fake_backend import Backend, Request, backend, dripping, response

from .conftest import OTHER_SECRET, SECRET, entry

BODY = '{"type":"batch","timestamp":"2026-11-29T16:00:00.123Z","events":[]}'


async def send(found: Backend, imgo, secret: object = SECRET, **settings: object) -> Result:
    imgo(WEBHOOKS=[entry(f"{found.url}/hook", secret=secret)], **settings)
    (endpoint,) = endpoints()
    client = HttpClient()
    try:
        return await deliver(client, endpoint, WebhookBatch(endpoint=endpoint.url, body=BODY))
    finally:
        await client.close()


async def test_request_is_verified_with_each_of_two_secrets(imgo):
    async with backend(lambda _: response(204)) as found:
        result = await send(found, imgo, [SECRET, OTHER_SECRET])
    assert result.error == ""
    (request,) = found.requests
    assert request.path == "/hook"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["webhook-id"] == result.batch.message_id
    for secret in (SECRET, OTHER_SECRET):
        Webhook(secret).verify(request.raw, request.headers)
    assert json.loads(BODY) == request.body


@pytest.mark.parametrize(
    ("status", "is_final"),
    [(302, False), (307, False), (400, False), (404, False), (410, True), (429, False),
     (500, False), (503, False)],
)  # fmt: skip
async def test_other_status_is_a_failure_and_410_the_last(imgo, status, is_final):
    def answer(request: Request) -> bytes:
        return response(status, None, f"Location: {request.path}/other")

    redirect = ", a redirect to '/hook/other', which is not followed" if status < 400 else ""

    async with backend(answer) as found:
        result = await send(found, imgo)
    assert result.error == f"it answered with status {status}{redirect}"
    assert result.is_final is is_final
    assert len(found.requests) == 1


async def test_hanging_garbage_and_absent_receivers_are_failures(imgo):
    async with backend(lambda _: None) as found:
        result = await send(found, imgo, WEBHOOK_TIMEOUT=0.2)
        assert result.error == "no answer within 0.2 s"
    async with backend(lambda _: b"\x00garbage\r\n\r\n") as found:
        assert "its answer is not HTTP" in (await send(found, imgo)).error
    assert "no connection to 127.0.0.1" in (await send(found, imgo)).error
    assert not result.is_final


async def test_answer_that_comes_byte_by_byte_ends_in_time(imgo):
    async with dripping(b"HTTP/1.1 200 OK\r\nX-Long: ", b"a") as found:
        result = await send(found, imgo, WEBHOOK_TIMEOUT=0.3)
    assert result.error == "no answer within 0.3 s"


async def test_long_answer_of_200_is_a_success(imgo, monkeypatch):
    monkeypatch.setattr(http, "ANSWER_MAX", 1000)
    async with backend(lambda _: response(200, b"x" * 5000)) as found:
        assert (await send(found, imgo)).error == ""
