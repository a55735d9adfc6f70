"""FCM against a server that speaks HTTP/2: access tokens, requests, and answers."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from push.devices.jobs import NoAnswer, Outcome
from push.devices.providers.fcm import Fcm, read_credentials

from .conftest import job
from .http2_server import Response
from .mobile_services import SENT, Google, google_refuses

TOKEN = "fJ3x:APA91bH-Kx81bQ_9.1"


@pytest.fixture(scope="module")
def running_google(tmp_path_factory) -> Iterator[Google]:
    with Google(tmp_path_factory.mktemp("google")).running() as found:
        yield found


@pytest.fixture
def google(running_google, imgo) -> Google:
    running_google.requests.clear()
    running_google.answers.clear()
    running_google.token_status, running_google.tokens = 200, 0
    imgo(**running_google.settings())
    return running_google


@pytest.fixture
async def provider(google) -> AsyncIterator[Fcm]:
    found = Fcm()
    yield found
    await found.close()


async def test_device_gets_a_notification(google, provider) -> None:
    result = await provider.send(job(TOKEN, "fcm"))
    assert (result.outcome, result.provider_id) == (Outcome.SENT, SENT)
    (request,) = google.messages
    message = request.json["message"]
    assert (message["token"], message["notification"]) == (
        TOKEN, {"title": "Order 7", "body": "sent"},
    )  # fmt: skip
    assert message["data"] == {"id": "1043", "url": "/orders/7", "tag": "o7", "data": '{"n":1}'}
    assert message["android"] == {
        "collapse_key": "imgo-1043", "priority": "HIGH", "ttl": "60s",
        "notification": {"tag": "o7"},
    }  # fmt: skip


async def test_device_is_told_to_close_by_data_only(google, provider) -> None:
    """The collapse key of the notification: FCM replaces it if the device has not got it."""
    for content in ({"title": "Hi", "tag": "o7"}, {"title": "Hi"}):
        await provider.send(job(TOKEN, "fcm", closes=True, content=content))
    tagged, untagged = (request.json["message"] for request in google.messages)
    assert tagged["data"] == {"id": "1043", "close": "true", "tag": "o7"}
    assert untagged["data"] == {"id": "1043", "close": "true", "tag": "imgo-1043"}
    assert tagged["android"] == {"priority": "NORMAL", "collapse_key": "imgo-1043", "ttl": "60s"}
    assert tagged["apns"]["headers"]["apns-push-type"] == "background"
    assert "notification" not in tagged


async def test_notifications_at_once_share_one_access_token(google, provider) -> None:
    results = await asyncio.gather(*(provider.send(job(TOKEN, "fcm")) for _ in range(5)))
    assert {result.outcome for result in results} == {Outcome.SENT}
    assert google.tokens == 1


@pytest.mark.parametrize(
    ("answer", "outcome", "reason", "pause"),
    [
        (google_refuses(404, "UNREGISTERED"), Outcome.GONE, "UNREGISTERED", (0, False)),
        (google_refuses(404, ""), Outcome.REJECTED, "SOME_STATUS", (0, False)),
        (google_refuses(400, "INVALID_ARGUMENT"), Outcome.REJECTED, "INVALID_ARGUMENT", (0, False)),
        (
            google_refuses(403, "SENDER_ID_MISMATCH"),
            Outcome.REJECTED,
            "SENDER_ID_MISMATCH",
            (0, False),
        ),
        (google_refuses(429, "QUOTA_EXCEEDED"), Outcome.RETRY, "QUOTA_EXCEEDED", (60, True)),
        (
            google_refuses(503, "UNAVAILABLE", {"retry-after": "9"}),
            Outcome.RETRY,
            "UNAVAILABLE",
            (9, True),
        ),
        (Response(500, {}, b"<html>"), Outcome.RETRY, "status_500", (0, False)),
    ],
)
async def test_answer_decides(google, provider, answer, outcome, reason, pause) -> None:  # noqa: PLR0917
    google.answers = [answer]
    result = await provider.send(job(TOKEN, "fcm"))
    assert (result.outcome, result.reason) == (outcome, reason)
    assert (result.retry_after, result.pauses) == pause


async def test_refused_access_token_is_renewed_at_once(google, provider) -> None:
    await provider.send(job(TOKEN, "fcm"))
    google.answers = [google_refuses(401, "")]
    assert (await provider.send(job(TOKEN, "fcm"))).outcome is Outcome.SENT
    tokens = [request.headers["authorization"] for request in google.messages]
    assert tokens == ["Bearer access-1", "Bearer access-1", "Bearer access-2"]


async def test_refused_account_is_no_answer(google, provider) -> None:
    google.token_status = 400
    with pytest.raises(NoAnswer, match="no_access_token_400"):
        await provider.send(job(TOKEN, "fcm"))
    assert google.messages == []


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ("/no/such/file", "cannot be read"),
        ("{", "not JSON"),
        ('{"project_id": "a"}', "no 'client_email'"),
    ],
)
def test_wrong_credentials_are_refused(value, part) -> None:
    with pytest.raises(ValueError, match=part):
        read_credentials(value)
