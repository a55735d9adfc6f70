"""Where a client is: who is believed about it, and how far back."""

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpResponse

from imgo_site.addresses import PEER, client_address, in_networks
from imgo_site.middleware import RequestMiddleware

PROXY, CLIENT = "10.0.0.1", "203.0.113.9"


@pytest.mark.parametrize(
    ("address", "networks", "inside"),
    [
        ("10.0.0.1", ["10.0.0.1"], True),
        ("10.0.0.1", ["10.0.0.99/24"], True),
        ("10.0.0.1", [], False),
        ("10.0.0.1", ["::/0"], False),
        ("::ffff:10.0.0.1", ["10.0.0.0/24"], True),
        ("fd00::7", ["10.0.0.0/8", "fd00::/8"], True),
        ("no address", ["0.0.0.0/0", "::/0"], False),
    ],
)
def test_in_networks(address, networks, inside):
    assert in_networks(address, networks) is inside


@pytest.mark.parametrize("forwarded", ["", CLIENT, f"{PROXY}, {PROXY}", "10.0.0.7,127.0.0.1"])
def test_nobody_is_believed_unless_set(forwarded):
    assert client_address("192.0.2.1", forwarded) == "192.0.2.1"
    assert client_address("127.0.0.1", forwarded) == "127.0.0.1"


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        # Through one proxy, through two, through an address of another kind.
        (PROXY, CLIENT, CLIENT),
        (PROXY, f" {CLIENT} , 10.0.0.2 ", CLIENT),
        (PROXY, f"{CLIENT},fd00::1", CLIENT),
        (f"::ffff:{PROXY}", CLIENT, CLIENT),
        (PROXY, "2001:db8::1", "2001:db8::1"),
        # With a port.
        (PROXY, f"{CLIENT}:4711", CLIENT),
        (PROXY, "[2001:db8::1]:4711", "2001:db8::1"),
        # What the client has put in front says nothing, not even that it is a proxy.
        (PROXY, f"192.168.1.1, {CLIENT}", CLIENT),
        (PROXY, f"{PROXY}, {CLIENT}", CLIENT),
        (PROXY, f"192.168.1.1, nonsense, {CLIENT}, 10.0.0.2", CLIENT),
        # Nobody tells further back.
        (PROXY, "", PROXY),
        (PROXY, "10.0.0.2", "10.0.0.2"),
        (PROXY, f"{CLIENT}, unknown, 10.0.0.2", "10.0.0.2"),
        (PROXY, f"{CLIENT}, <script>", PROXY),
        (PROXY, ",,,", PROXY),
        # Who is no proxy is the client.
        ("192.0.2.1", CLIENT, "192.0.2.1"),
        ("192.0.2.1", PROXY, "192.0.2.1"),
        ("", CLIENT, ""),
    ],
)
def test_each_is_believed_as_long_as_a_proxy_says_it(imgo, peer, forwarded, found):
    imgo(TRUSTED_PROXIES=["10.0.0.0/24", "fd00::/8"])
    assert client_address(peer, forwarded) == found


def test_a_request_has_the_clients_address_and_keeps_its_peers(imgo, rf):
    imgo(TRUSTED_PROXIES=[PROXY])
    request = rf.get("/", REMOTE_ADDR=PROXY, headers={"X-Forwarded-For": CLIENT})
    RequestMiddleware(lambda _: HttpResponse())(request)
    assert (request.META["REMOTE_ADDR"], request.META[PEER]) == (CLIENT, PROXY)


def test_a_site_that_does_not_know_its_proxies_does_not_begin(imgo):
    imgo(TRUSTED_PROXIES=["nginx"])
    with pytest.raises(ImproperlyConfigured, match="TRUSTED_PROXIES: 'nginx'"):
        RequestMiddleware(lambda _: HttpResponse())
