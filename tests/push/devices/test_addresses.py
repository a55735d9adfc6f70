"""Addresses that apps and pages register: what is accepted, and what is shown of them."""

import pytest

from imgo_site.errors import BadRequest
from push.devices.addresses import address_of, shortened

from .push_service import Browser

HOST = "https://push.example.com"
APNS_TOKEN = "ab" * 32
FCM_TOKEN = "fJ3x:APA91bH-Kx81bQ_9.1"


@pytest.fixture(autouse=True)
def _all_providers(imgo) -> None:
    hosts = ["push.example.com", "*.push.example.org", "own.example.com:8443"]
    imgo(WEBPUSH_PRIVATE_KEY="k", APNS_KEY="k", FCM_CREDENTIALS="k", WEBPUSH_HOSTS=hosts)


@pytest.mark.parametrize(
    "endpoint",
    [f"{HOST}/a?b=c", "https://x.push.example.org/1", "https://own.example.com:8443/1"],
)
def test_endpoint_of_an_allowed_host_is_accepted(endpoint) -> None:
    assert endpoint in address_of("webpush", Browser(endpoint).subscription, None).text


@pytest.mark.parametrize(
    ("endpoint", "part"),
    [
        ("http://push.example.com/1", "must be an https URL"),
        ("https://user@push.example.com/1", "must be an https URL"),
        ("https://push.example.com.evil.test/1", "which is not in WEBPUSH_HOSTS"),
        ("https://evil.test/push.example.com", "which is not in WEBPUSH_HOSTS"),
        ("https://push.example.com:8443/1", "which is not in WEBPUSH_HOSTS"),
        ("https://own.example.com/1", "which is not in WEBPUSH_HOSTS"),
        ("https://127.0.0.1/1", "which is not in WEBPUSH_HOSTS"),
        ("https://push.example.com:x/1", "is not a URL"),
        ("https://evil.test\\.push.example.org/1", "must be an https URL"),
        ("https://push.example.com/\n1", "must be an https URL"),
        ("https://push.example.com/" + "x" * 2048, "at most 2048 characters"),
    ],
)
def test_other_endpoint_is_refused(endpoint, part) -> None:
    with pytest.raises(BadRequest, match=part):
        address_of("webpush", Browser(endpoint).subscription, None)


@pytest.mark.parametrize(
    ("keys", "part"),
    [
        ({}, "p256dh' must be 65 bytes"),
        ({"p256dh": "BP", "auth": "x"}, "p256dh' must be 65 bytes"),
        ({"p256dh": "A" * 87}, "auth' must be 16 bytes"),
        ({"p256dh": "A" * 87, "auth": "A" * 22}, "not a point of the curve"),
        (None, "p256dh' must be 65 bytes"),
    ],
)
def test_wrong_keys_of_a_subscription_are_refused(keys, part) -> None:
    with pytest.raises(BadRequest, match=part):
        address_of("webpush", {"endpoint": f"{HOST}/1", "keys": keys}, None)


@pytest.mark.parametrize(
    ("provider", "token"),
    [("apns", "ab" * 15), ("apns", "xyz" * 20), ("fcm", "short"), ("fcm", "a b" * 20), ("fcm", 7)],
)
def test_wrong_token_is_refused_without_repeating_it(provider, token) -> None:
    with pytest.raises(BadRequest, match="is not a device token") as caught:
        address_of(provider, None, token)
    assert str(token) not in caught.value.message


def test_token_of_apns_is_one_device_in_any_case() -> None:
    upper, lower = (address_of("apns", None, text) for text in ("AB" * 32, APNS_TOKEN))
    assert upper.digest == lower.digest
    assert upper.digest != address_of("fcm", None, APNS_TOKEN).digest


def test_subscription_with_new_keys_is_the_same_device() -> None:
    one, two = (address_of("webpush", Browser(f"{HOST}/1").subscription, None) for _ in range(2))
    assert one.text != two.text
    assert one.digest == two.digest


def test_shown_address_is_short() -> None:
    browser = address_of("webpush", Browser(f"{HOST}/secret-abcdef").subscription, None)
    assert shortened("webpush", browser.text) == "https://push.example.com/…abcdef"
    assert shortened("fcm", FCM_TOKEN) == "…bQ_9.1"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("sms", None, "1"), "no provider 'sms'; there are: webpush, apns, fcm"),
        (("webpush", {}, FCM_TOKEN), "no 'token'"),
        (("fcm", {}, FCM_TOKEN), "no 'subscription'"),
    ],
)
def test_mixed_up_registration_is_refused(arguments, part) -> None:
    with pytest.raises(BadRequest, match=part):
        address_of(*arguments)


def test_provider_that_is_not_configured_is_refused(imgo) -> None:
    imgo(APNS_KEY="")
    with pytest.raises(BadRequest, match="'apns' is not configured"):
        address_of("apns", None, APNS_TOKEN)
