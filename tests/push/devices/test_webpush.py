"""Web Push against a push service that decrypts: requests, and what follows from answers."""

import asyncio
import logging
import time
from email.utils import formatdate

import pytest

from push.devices.content import CONTENT_MAX
from push.devices.jobs import NoAnswer, Outcome
from push.devices.providers.answer import BODY_MAX
from push.devices.providers.encryption import PLAIN_MAX
from push.devices.providers.http import AddressRefused, CheckedBackend, HttpClient
from push.devices.providers.webpush import WebPush, payload_of, topic_of

from .conftest import CONTENT, address_text, job
from .http2_server import Response
from .push_service import VAPID_PRIVATE


@pytest.fixture
async def provider(service):
    found = WebPush()
    yield found
    await found.close()


async def test_browser_gets_the_content(service, provider) -> None:
    browser = service.subscribe()
    one = job(address_text(browser), ttl=90)
    result = await provider.send(one)
    assert (result.outcome, result.provider_id) == (Outcome.SENT, f"{service.url}/m/1")
    assert browser.shown == [{"id": "1043", **CONTENT}]
    headers = browser.requests[0].headers
    assert (headers["ttl"], headers["topic"], headers["urgency"]) == ("90", "imgo-1043", "high")


async def test_requests_share_a_connection(service, provider) -> None:
    browser = service.subscribe()
    for _ in range(3):
        await provider.send(job(address_text(browser)))
    assert len({request.connection for request in browser.requests}) == 1


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (404, {}, (Outcome.GONE, "status_404", 0)),
        (410, {}, (Outcome.GONE, "status_410", 0)),
        (400, {}, (Outcome.REJECTED, "status_400", 0)),
        (403, {}, (Outcome.REJECTED, "status_403", 0)),
        (413, {}, (Outcome.REJECTED, "status_413", 0)),
        (301, {"location": "https://localhost:1/"}, (Outcome.REJECTED, "status_301", 0)),
        (429, {"retry-after": "7"}, (Outcome.RETRY, "status_429", 7)),
        (503, {}, (Outcome.RETRY, "status_503", 0)),
    ],
)
async def test_answer_decides(service, provider, status, headers, expected) -> None:
    browser = service.subscribe()
    service.answers = [Response(status, headers, b"no")]
    result = await provider.send(job(address_text(browser)))
    assert (result.outcome, result.reason, result.retry_after) == expected
    assert len(browser.requests) == 1


async def test_date_of_retry_after_is_understood(service, provider) -> None:
    browser = service.subscribe()
    service.answers = [Response(503, {"retry-after": formatdate(time.time() + 30, usegmt=True)})]
    assert 25 < (await provider.send(job(address_text(browser)))).retry_after < 31


@pytest.mark.parametrize("wrong", [-86_400, 86_400])
async def test_date_of_retry_after_counts_from_the_date_of_the_answer(
    service, provider, wrong
) -> None:
    """The clocks of the provider and of this host differ by a day."""
    browser, now = service.subscribe(), time.time() + wrong
    dates = {"date": formatdate(now, usegmt=True), "retry-after": formatdate(now + 30, usegmt=True)}
    service.answers = [Response(429, dates)]
    assert (await provider.send(job(address_text(browser)))).retry_after == 30


async def test_broken_connection_is_tried_once_more(service, provider) -> None:
    browser = service.subscribe()
    service.answers = [Response(breaks=True)]
    assert (await provider.send(job(address_text(browser)))).outcome is Outcome.SENT
    service.answers = [Response(breaks=True), Response(breaks=True)]
    with pytest.raises(NoAnswer, match="connection_broken"):
        await provider.send(job(address_text(browser)))
    assert len(browser.requests) == 4


async def test_service_that_hangs_is_left_at_the_deadline(service, provider) -> None:
    browser = service.subscribe()
    service.answers = [None]
    sending = asyncio.create_task(provider.send(job(address_text(browser))))
    await asyncio.to_thread(service.wait_for, 1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await sending
    assert (await provider.send(job(address_text(browser)))).outcome is Outcome.SENT


@pytest.mark.parametrize("networks", [[], ["10.0.0.0/8"], ["127.0.0.2/32"]])
async def test_private_address_is_not_called(service, imgo, networks) -> None:
    imgo(**{**service.settings(), "WEBPUSH_NETWORKS": networks})
    provider = WebPush()
    browser = service.subscribe()
    before = service.connections
    result = await provider.send(job(address_text(browser)))
    assert (result.outcome, result.reason) == (Outcome.REJECTED, "private_address")
    assert service.connections == before
    await provider.close()


@pytest.mark.parametrize(
    "host",
    [
        "10.0.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "[::1]", "[::]",
        "[fc00::1]", "[::ffff:127.0.0.1]", "[::ffff:a9fe:a9fe]", "[::127.0.0.1]",
        "[64:ff9b::10.0.0.1]", "[64:ff9b:1::1]", "[2002:7f00:1::]",
        "[fec0::1]", "[::ffff:0:127.0.0.1]",
    ],
)  # fmt: skip
async def test_literal_private_address_is_not_called(imgo, host) -> None:
    imgo(WEBPUSH_NETWORKS=[])
    client = HttpClient(is_checked=True)
    with pytest.raises(AddressRefused):
        await client.post(f"https://{host}/1", {}, b"")
    await client.close()


@pytest.mark.parametrize("address", ["9.9.9.9", "2620:fe::fe"])
async def test_literal_public_address_may_be_called(address) -> None:
    assert await CheckedBackend([]).resolve(address, 443) == [address]


async def test_address_that_was_checked_is_connected_to(imgo, monkeypatch) -> None:
    """The host has another address when it is asked again (DNS rebinding)."""
    imgo(WEBPUSH_NETWORKS=[])
    answers = iter(["9.9.9.9", "127.0.0.1"])
    connected: list[object] = []

    async def resolve(*_: object, **__: object) -> list[tuple[object, ...]]:
        return [(0, 0, 0, "", (next(answers), 443))]

    async def connect(_: object, address: str, port: int, **options: object) -> None:
        connected.append((address, port, options["server_hostname"]))
        raise ConnectionRefusedError

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "getaddrinfo", resolve)
    monkeypatch.setattr(loop, "create_connection", connect)
    client = HttpClient(is_checked=True)
    for kind in (NoAnswer, AddressRefused):
        with pytest.raises(kind):
            await client.post("https://push.example.com/1", {}, b"")
    assert connected == [("9.9.9.9", 443, "push.example.com")]
    await client.close()


async def test_no_log_has_an_address_or_a_token(service, provider, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    browser = service.subscribe()
    service.answers = [Response(410), Response(breaks=True)]
    for _ in range(3):
        await provider.send(job(address_text(browser)))
    token = browser.requests[0].headers["authorization"].partition("t=")[2][:40]
    path = browser.endpoint.rpartition("/")[2]
    assert [secret for secret in (path, token, VAPID_PRIVATE) if secret in caplog.text] == []


async def test_only_the_beginning_of_an_answer_is_read(service, provider) -> None:
    service.answers = [Response(200, {}, b"x" * 60_000)]
    client = HttpClient(is_checked=True)
    headers = {"authorization": provider._vapid.authorization(service.url)}
    headers |= {"content-encoding": "aes128gcm", "ttl": "1"}
    answer = await client.post(service.subscribe().endpoint, headers, b"")
    assert len(answer.body) == BODY_MAX
    await client.close()


async def test_certificate_of_an_unknown_authority_is_refused(service, imgo) -> None:
    imgo(**{**service.settings(), "NOTIFY_CA_FILE": ""})
    provider = WebPush()
    with pytest.raises(NoAnswer, match="no_tls"):
        await provider.send(job(address_text(service.subscribe())))
    await provider.close()


async def test_host_that_was_taken_off_the_list_is_not_called(service, imgo) -> None:
    browser = service.subscribe()
    address = address_text(browser)
    imgo(**{**service.settings(), "WEBPUSH_HOSTS": ["push.example.com"]})
    provider = WebPush()
    result = await provider.send(job(address))
    assert (result.outcome, result.reason) == (Outcome.REJECTED, "host_not_allowed")
    assert not browser.requests
    await provider.close()


def test_largest_content_fits_with_its_id() -> None:
    content = {"title": "x" * (CONTENT_MAX - len('{"title":""}'))}
    largest = job("", content=content, message_id=2**53)
    assert len(payload_of(largest)) <= PLAIN_MAX
    assert len(topic_of(largest)) <= 32
