"""APNs against a server that speaks HTTP/2: requests, tokens, and what follows from answers."""

import json
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from push.devices.jobs import Outcome
from push.devices.providers import apns
from push.devices.providers.apns import Apns, notification_id

from .conftest import job
from .http2_server import Response
from .mobile_services import Apple, apple_refuses

TOKEN = "ab" * 32


@pytest.fixture(scope="module")
def running_apple(tmp_path_factory) -> Iterator[Apple]:
    with Apple(tmp_path_factory.mktemp("apple")).running() as found:
        yield found


@pytest.fixture
def apple(running_apple, imgo) -> Apple:
    running_apple.requests.clear()
    running_apple.answers.clear()
    imgo(**running_apple.settings())
    return running_apple


@pytest.fixture
async def provider(apple) -> AsyncIterator[Apns]:
    found = Apns()
    yield found
    await found.close()


async def test_device_gets_an_alert(apple, provider) -> None:
    one = job(TOKEN, "apns")
    result = await provider.send(one)
    (request,) = apple.requests
    assert (result.outcome, result.provider_id) == (Outcome.SENT, notification_id(one))
    assert (request.method, request.path) == ("POST", f"/3/device/{TOKEN}")
    assert request.json == {
        "aps": {"alert": {"title": "Order 7", "body": "sent"}, "sound": "default",
                "thread-id": "o7"},
        "imgo": {"id": "1043", "url": "/orders/7", "data": {"n": 1}},
    }  # fmt: skip
    headers = request.headers
    assert headers["apns-topic"] == "com.example.shop"
    assert (headers["apns-push-type"], headers["apns-priority"]) == ("alert", "10")
    assert headers["apns-collapse-id"] == "imgo-1043"
    assert 50 < int(headers["apns-expiration"]) - time.time() < 61


async def test_device_is_told_to_close_in_the_background(apple, provider) -> None:
    alert, closing = job(TOKEN, "apns"), job(TOKEN, "apns", closes=True)
    result = await provider.send(closing)
    assert result.provider_id == notification_id(closing) != notification_id(alert)
    (request,) = apple.requests
    assert request.json == {
        "aps": {"content-available": 1}, "imgo": {"id": "1043", "close": "true", "tag": "o7"},
    }  # fmt: skip
    headers = request.headers
    assert (headers["apns-push-type"], headers["apns-priority"]) == ("background", "5")
    assert headers["apns-collapse-id"] == "imgo-1043"


async def test_second_attempt_has_the_id_of_the_first(apple, provider) -> None:
    await provider.send(job(TOKEN, "apns"))
    await provider.send(job(TOKEN, "apns", attempt=2, ttl=30))
    await provider.send(job(TOKEN, "apns", device_id=18))
    first, second, other = (request.headers["apns-id"] for request in apple.requests)
    assert first == second != other
    assert len({request.connection for request in apple.requests}) == 1
    assert len({request.headers["authorization"] for request in apple.requests}) == 1


@pytest.mark.parametrize(
    ("answer", "outcome", "pause"),
    [
        (apple_refuses(410, "Unregistered", timestamp=1_700_000_000_000), Outcome.GONE, (0, False)),
        (apple_refuses(400, "BadDeviceToken"), Outcome.REJECTED, (0, False)),
        (apple_refuses(403, "InvalidProviderToken"), Outcome.RETRY, (apns.PAUSE, True)),
        (apple_refuses(429, "TooManyRequests"), Outcome.RETRY, (0, False)),
        (apple_refuses(500, "InternalServerError"), Outcome.RETRY, (0, False)),
        (Response(503, {"retry-after": "9"}), Outcome.RETRY, (9, True)),
    ],
)
async def test_answer_decides(apple, provider, answer, outcome, pause) -> None:
    apple.answers = [answer]
    result = await provider.send(job(TOKEN, "apns"))
    assert (result.outcome, (result.retry_after, result.pauses)) == (outcome, pause)
    assert result.reason == (json.loads(answer.body)["reason"] if answer.body else "status_503")
    assert result.gone_at == (1_700_000_000 if outcome is Outcome.GONE else None)


async def test_expired_token_is_renewed_at_once(apple, provider, monkeypatch) -> None:
    await provider.send(job(TOKEN, "apns"))
    now = time.time() + 5
    monkeypatch.setattr("push.devices.providers.apns.time.time", lambda: now)
    apple.answers = [apple_refuses(403, "ExpiredProviderToken")]
    assert (await provider.send(job(TOKEN, "apns"))).outcome is Outcome.SENT
    first, second, third = (request.headers["authorization"] for request in apple.requests)
    assert first == second != third


@pytest.mark.parametrize("step", [apns.TOKEN_LIFETIME + 1, -86_400])
async def test_token_is_renewed_before_apple_refuses_it(apple, provider, monkeypatch, step) -> None:
    await provider.send(job(TOKEN, "apns"))
    now = time.time() + step
    monkeypatch.setattr("push.devices.providers.apns.time.time", lambda: now)
    await provider.send(job(TOKEN, "apns"))
    assert len({request.headers["authorization"] for request in apple.requests}) == 2
