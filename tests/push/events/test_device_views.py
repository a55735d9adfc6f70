"""Registration of a client's own device: with its token, or its own site's cookie."""

import json
from functools import partial

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from accounts.models import Token
from push.devices.providers.vapid import public_key_of, read_private_key
from push.devices.tables import Device
from tests import in_thread
from tests.push.devices.push_service import SUBJECT, VAPID_PRIVATE, Browser

PATH = "/sub/devices"
PAGE = "https://app.example.com"
ENDPOINT = "https://fcm.googleapis.com/fcm/send/secret-abcdef"
BEARER = {"HTTP_AUTHORIZATION": "Bearer t"}


@pytest.fixture(autouse=True)
async def _provider(transactional_db, imgo) -> None:
    imgo(WEBPUSH_PRIVATE_KEY=VAPID_PRIVATE, WEBPUSH_SUBJECT=SUBJECT, PARTITIONS=1)
    await in_thread(partial(Token.objects.issue, "u1", token="t"))


async def register(
    browser: Browser | None = None, name: str = "", replaces: dict | None = None, **headers: str
):
    subscription = (browser or Browser(ENDPOINT)).subscription
    fields = {"provider": "webpush", "subscription": subscription, "name": name}
    body = json.dumps({**fields, "replaces": replaces} if replaces else fields)
    return await in_thread(partial(Client().post, PATH, body, "application/json", **headers))


async def owner() -> str:
    return (await in_thread(Device.objects.get)).key


async def test_client_registers_its_device_and_renews_it():
    browser = Browser(ENDPOINT)
    answers = [await register(browser, name="laptop", **BEARER) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    found = answers[0].json()
    assert found == answers[1].json()
    assert found["address"] == "https://fcm.googleapis.com/…abcdef"
    assert await owner() == "u1"


async def test_device_moves_to_the_key_that_logs_in_on_it():
    await in_thread(partial(Token.objects.issue, "u2", token="t2"))
    browser = Browser(ENDPOINT)
    await register(browser, **BEARER)
    await register(browser, HTTP_AUTHORIZATION="Bearer t2")
    assert await owner() == "u2"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"HTTP_SEC_FETCH_SITE": "same-origin"}, 201),
        ({}, 401),
        ({"HTTP_SEC_FETCH_SITE": "same-site"}, 401),
        ({"HTTP_SEC_FETCH_SITE": "cross-site", "HTTP_ORIGIN": PAGE}, 403),
        ({"HTTP_ORIGIN": PAGE}, 401),
    ],
)
async def test_cookie_counts_from_our_own_pages_only(headers, status):
    def sign_in() -> tuple[str, str]:
        user = get_user_model().objects.create_user("ann")
        browser = Client()
        browser.force_login(user)
        return str(user.pk), f"sessionid={browser.cookies['sessionid'].value}"

    key, cookie = await in_thread(sign_in)
    assert (await register(HTTP_COOKIE=cookie, **headers)).status_code == status
    if status == 201:
        assert await owner() == key


async def test_wrong_token_and_wrong_endpoint_are_refused():
    answer = await register(HTTP_AUTHORIZATION="Bearer wrong")
    assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated")
    answer = await register(Browser("https://evil.test/1"), **BEARER)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
    assert not await in_thread(Device.objects.exists)


async def test_public_key_is_that_of_the_settings(imgo):
    answer = await in_thread(partial(Client().get, PATH))
    key = public_key_of(read_private_key(VAPID_PRIVATE))
    assert answer.json() == {"webpush": {"public_key": key}}
    imgo(WEBPUSH_PRIVATE_KEY="")
    assert (await in_thread(partial(Client().get, PATH))).status_code == 404


async def test_replaced_subscription_proves_whose_device_it_is():
    """What a service worker sends has no token. Registered twice, the device stays one."""
    old, new = Browser(ENDPOINT), Browser(ENDPOINT + "2")
    registered = await register(old, "laptop", **BEARER)
    await register(new, **BEARER)
    answer = await register(new, replaces=old.subscription)
    assert (answer.status_code, answer.json()["id"]) == (201, registered.json()["id"])
    device = await in_thread(Device.objects.get)
    assert (device.key, device.name, new.endpoint in device.address) == ("u1", "laptop", True)
    assert (await register(Browser(ENDPOINT), replaces=old.subscription)).status_code == 401


@pytest.mark.parametrize("secret", ["auth", "p256dh"])
async def test_replaced_subscription_with_a_wrong_secret_is_refused(secret):
    old = Browser(ENDPOINT)
    await register(old, **BEARER)
    stolen = {"endpoint": ENDPOINT, "keys": dict(old.subscription["keys"])}
    stolen["keys"][secret] = Browser(ENDPOINT).subscription["keys"][secret]
    answer = await register(Browser(ENDPOINT + "2"), replaces=stolen)
    assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated")
    device = await in_thread(Device.objects.get)
    assert json.loads(device.address)["endpoint"] == ENDPOINT


async def test_guesses_of_a_replaced_subscription_are_throttled(imgo):
    imgo(AUTH_FAILURES=3)
    old = Browser(ENDPOINT).subscription
    answers = [await register(replaces=old) for _ in range(5)]
    assert {answer.status_code for answer in answers} == {401, 429}
