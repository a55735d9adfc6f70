"""Pages, schemes and hosts of browsers."""

import pytest
from django.test import RequestFactory

from imgo_site.browser_requests import (
    client_scheme,
    is_allowed_host,
    is_foreign_page,
    is_own_origin,
)
from imgo_site.middleware import set_client_addresses

PROXY, STRANGER = "10.0.0.5", "192.0.2.1"


@pytest.mark.parametrize(
    ("origin", "scheme", "is_own"),
    [
        ("https://push.example", "https", True),
        ("https://PUSH.example:443", "https", True),
        ("http://push.example", "https", False),
        ("https://push.example", "http", False),
        ("https://push.example:444", "https", False),
        ("https://push.example.evil", "https", False),
        ("https://app.example", "http", True),
        ("https://a.wild.example", "https", True),
        ("http://app.example", "http", False),
        ("null", "https", False),
        ("", "https", False),
        ("https://[", "https", False),
        ("https://push.example:x", "https", False),
    ],
)
def test_origin_is_own_by_scheme_host_and_port(settings, origin, scheme, is_own):
    settings.CSRF_TRUSTED_ORIGINS = ["https://app.example", "https://*.wild.example"]
    headers = {"host": "push.example", "origin": origin}
    assert is_own_origin(headers, scheme) == is_own


@pytest.mark.parametrize(
    ("headers", "is_foreign"),
    [
        ({}, False),
        ({"origin": "http://push.example"}, False),
        ({"origin": "http://evil.example"}, True),
        ({"origin": "null"}, True),
        ({"sec-fetch-site": "none"}, False),
        ({"sec-fetch-site": "same-origin"}, False),
        ({"sec-fetch-site": "same-site"}, True),
        ({"sec-fetch-site": "cross-site"}, True),
    ],
)
def test_page_is_foreign_by_what_the_browser_sends(headers, is_foreign):
    assert is_foreign_page({"host": "push.example", **headers}, "http") == is_foreign


@pytest.mark.parametrize(
    ("headers", "is_allowed"),
    [
        ({"host": "push.example"}, True),
        ({"host": "push.example:8000", "origin": "https://push.example"}, True),
        ({"host": "10.0.0.1:8090"}, True),
        ({"host": "[fd00::1]:8090"}, True),
        ({"host": "10.0.0.1:8090", "origin": "http://10.0.0.1:8090"}, False),
        ({"host": "evil.example"}, False),
        ({"host": "evil.example", "origin": "http://evil.example"}, False),
        ({"host": "bad host"}, False),
        ({"host": ""}, False),
        ({}, True),
    ],
)
def test_host_is_allowed_by_name_or_as_an_address(settings, headers, is_allowed):
    settings.ALLOWED_HOSTS = ["push.example"]
    assert is_allowed_host(headers) == is_allowed


@pytest.mark.parametrize(
    ("peer", "said", "scheme"),
    [
        (PROXY, "https", "https"),
        (STRANGER, "https", "http"),
        ("", "https", "https"),
        (PROXY, "http", "http"),
        (PROXY, None, "http"),
    ],
)
def test_scheme_is_believed_from_a_proxy_only(settings, imgo, peer, said, scheme):
    imgo(TRUSTED_PROXIES=[PROXY])
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    headers = {} if said is None else {"x-forwarded-proto": said}
    assert client_scheme(False, peer, headers) == scheme
    sent = {"HTTP_X_FORWARDED_PROTO": said} if said else {}
    request = RequestFactory().get("/", REMOTE_ADDR=peer, **sent)
    set_client_addresses(request)
    assert request.scheme == scheme


def test_forwarded_host_and_port_are_dropped_from_a_stranger(settings, imgo):
    imgo(TRUSTED_PROXIES=[PROXY])
    settings.USE_X_FORWARDED_HOST = settings.USE_X_FORWARDED_PORT = True
    sent = {"HTTP_X_FORWARDED_HOST": "localhost", "HTTP_X_FORWARDED_PORT": "1"}
    for peer, host in ((PROXY, "localhost"), (STRANGER, "testserver")):
        request = RequestFactory().get("/", REMOTE_ADDR=peer, **sent)
        set_client_addresses(request)
        assert request.get_host() == host
