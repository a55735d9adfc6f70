"""Who a request of the API comes from: header, query, bootstrap key, trusted network."""

import pytest
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.test import APIRequestFactory

from accounts.authentication import ApiKeyAuthentication, LegacyAuthentication
from accounts.models import SCOPES, ApiKey
from imgo_site.errors import NotAuthenticated

pytestmark = pytest.mark.django_db


@pytest.fixture
def key():
    return ApiKey.objects.issue("shop", ["push", "read"])


def request(path: str = "/", **headers: str) -> Request:
    return Request(APIRequestFactory().get(path, **headers))


def who(asked: Request, by: type[ApiKeyAuthentication] = ApiKeyAuthentication):
    found = by().authenticate(asked)
    return found and found[0]


@pytest.mark.parametrize("scheme", ["Api-Key", "api-key", "API-KEY"])
def test_the_key_in_the_header(key, scheme):
    row, text = key
    caller = who(request(HTTP_AUTHORIZATION=f"{scheme} {text}"))
    assert (caller.name, caller.scopes) == (f"apikey:{row.pk}", {"push", "read"})


def test_the_key_in_the_query(key):
    row, text = key
    assert who(request(f"/?apikey={text}")).name == f"apikey:{row.pk}"


def test_the_header_goes_before_the_query(key):
    other, text = ApiKey.objects.issue("other", [])
    asked = request(f"/?apikey={key[1]}", HTTP_AUTHORIZATION=f"Api-Key {text}")
    assert who(asked).name == f"apikey:{other.pk}"


@pytest.mark.parametrize("header", ["", "Bearer abc", "Basic YTpi", "Api-Keyabc", "imgo_abc"])
def test_a_request_that_names_no_key_is_nobodys(key, header):
    assert who(request(HTTP_AUTHORIZATION=header)) is None


@pytest.mark.parametrize("text", ["wrong", "", "  ", "é", "x" * 5000])
def test_a_wrong_key_is_refused(key, text):
    with pytest.raises(NotAuthenticated, match="not valid, or was revoked"):
        who(request(HTTP_AUTHORIZATION=f"Api-Key {text}"))


@pytest.mark.parametrize("text", ["wrong", "%00", "%ff", "%ED%A0%80"])
def test_a_wrong_key_in_the_query_is_refused(key, text):
    with pytest.raises(NotAuthenticated):
        who(request(f"/?apikey={text}"))


def test_a_wrong_key_in_the_header_is_not_saved_by_the_query(key):
    with pytest.raises(NotAuthenticated):
        who(request(f"/?apikey={key[1]}", HTTP_AUTHORIZATION="Api-Key wrong"))


def test_a_revoked_key_is_refused_at_once(key):
    row, text = key
    assert who(request(HTTP_AUTHORIZATION=f"Api-Key {text}"))
    row.revoked_at = timezone.now()
    row.save()
    with pytest.raises(NotAuthenticated):
        who(request(HTTP_AUTHORIZATION=f"Api-Key {text}"))


def test_the_bootstrap_key_may_do_everything(imgo):
    imgo(API_KEY="from the environment")
    caller = who(request(HTTP_AUTHORIZATION="Api-Key from the environment"))
    assert (caller.name, caller.scopes) == ("IMGO_API_KEY", set(SCOPES))


def test_no_bootstrap_key_lets_nobody_in(imgo):
    imgo(API_KEY="")
    with pytest.raises(NotAuthenticated):
        who(request(HTTP_AUTHORIZATION="Api-Key "))


def test_a_trusted_network_counts_on_imgos_paths_alone(imgo):
    imgo(LEGACY_TRUSTED_NETWORKS=["10.1.0.0/16", "fd00::/8"])
    for address in ("10.1.2.3", "fd00::7"):
        asked = request(REMOTE_ADDR=address)
        caller = who(asked, LegacyAuthentication)
        assert (caller.name, caller.scopes) == (f"network:{address}", set(SCOPES))
        assert who(asked) is None


@pytest.mark.parametrize("address", ["10.2.0.1", "127.0.0.1", "fe80::1", "", "testserver"])
def test_another_network_is_not_trusted(imgo, address):
    imgo(LEGACY_TRUSTED_NETWORKS=["10.1.0.0/16", "fd00::/8"])
    assert who(request(REMOTE_ADDR=address), LegacyAuthentication) is None


def test_no_network_is_trusted_unless_set():
    assert who(request(REMOTE_ADDR="127.0.0.1"), LegacyAuthentication) is None


def test_nobody_can_claim_to_be_in_a_trusted_network(imgo):
    imgo(LEGACY_TRUSTED_NETWORKS=["10.1.0.0/16"])
    asked = request(REMOTE_ADDR="192.0.2.1", HTTP_X_FORWARDED_FOR="10.1.2.3")
    assert who(asked, LegacyAuthentication) is None


def test_a_wrong_key_is_refused_from_a_trusted_network_too(imgo):
    imgo(LEGACY_TRUSTED_NETWORKS=["0.0.0.0/0"])
    with pytest.raises(NotAuthenticated):
        who(request("/?apikey=wrong", REMOTE_ADDR="10.0.0.1"), LegacyAuthentication)


def test_a_proxy_itself_is_never_a_trusted_network(imgo):
    imgo(LEGACY_TRUSTED_NETWORKS=["10.0.0.0/8"], TRUSTED_PROXIES=["10.0.0.1"])
    assert who(request(REMOTE_ADDR="10.0.0.1"), LegacyAuthentication) is None
    assert who(request(REMOTE_ADDR="10.0.0.2"), LegacyAuthentication) is not None
