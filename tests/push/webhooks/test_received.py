"""Upstream messages for webhooks."""

import json

import pytest

from push.webhooks import received
from push.webhooks.tables import WebhookEvent
from tests import in_thread

from .conftest import entry

pytestmark = pytest.mark.django_db(transaction=True)


async def test_message_is_stored_for_endpoints_that_want_it(imgo):
    imgo(WEBHOOKS=[entry(keys=["user-*"])])
    await received.record("user-1", "s1", 4, {"a": 1}, b'{"a":1}')
    await received.record("shop", "s2", 4, 1, b"1")
    row = await in_thread(WebhookEvent.objects.get)
    assert (row.type, row.key) == ("message.received", "user-1")
    assert json.loads(row.data) == {"key": "user-1", "session": "s1", "op": 4, "body": {"a": 1}}


@pytest.mark.parametrize(
    ("body", "raw", "member"),
    [
        ("", b"", {"body": ""}),
        ("a\x00\ud800", b"x", {"body": "a\x00\ud800"}),
        (b"\xff", b"\xff", {"body_base64": "/w=="}),
        (float("nan"), b"NaN", {"body_base64": "TmFO"}),
    ],
)
async def test_body_of_any_kind_is_stored_as_json(imgo, body, raw, member):
    imgo(WEBHOOKS=[entry()])
    await received.record("u", "s", 4, body, raw)
    row = await in_thread(WebhookEvent.objects.get)
    data = json.loads(row.data)
    assert {name: data[name] for name in member} == member


async def test_without_endpoints_nothing_is_stored(imgo, thread_queries):
    imgo(WEBHOOKS=[entry(events=["message.expired"])])
    queries = await thread_queries()
    await received.record("u", "s", 4, 1, b"1")
    assert queries == []
