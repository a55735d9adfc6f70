"""Client addresses: the connection's own, or the one that a trusted proxy reports."""

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

from django.core.exceptions import ImproperlyConfigured

from imgo_site.conf import conf

HEADER = "x-forwarded-for"
DROPPED = (
    "imgo.dropped"  # in META: whether an untrusted peer sent headers that only proxies may set
)
PEER = "imgo.peer"  # in META: the address of the connection, regardless of headers

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def client_address(peer: str, forwarded: str) -> str:
    """Return the client's IP address.

    Each proxy appends the address of its own peer to X-Forwarded-For. So the list is read from
    its end, while the address that was just read is a trusted proxy. Entries that a client has
    put in front are never reached.

    `peer`: the address of the connection's other end. It is the client if it is not in
    `TRUSTED_PROXIES`.
    `forwarded`: the whole X-Forwarded-For, "" if there is none.

    Raises ValueError if the setting is invalid.
    """
    if not conf.TRUSTED_PROXIES or not is_proxy(peer):
        return peer
    client = peer
    for text in reversed(forwarded.split(",")):
        address = _address(_without_port(text.strip()))
        if address is None:  # `unknown`, or a socket's name: earlier entries are unverified
            break
        client = str(address)
        if not is_proxy(client):
            break
    return client


def is_proxy(address: str) -> bool:
    """Return whether the address is in `TRUSTED_PROXIES`. Raises ValueError if that is invalid."""
    return in_networks(address, conf.TRUSTED_PROXIES)


def check() -> None:
    """Raise `ImproperlyConfigured` if `TRUSTED_PROXIES` is invalid."""
    try:
        is_proxy("")
    except ValueError as error:
        raise ImproperlyConfigured(f"TRUSTED_PROXIES: {error}") from None


def in_networks(address: str, networks: Iterable[str]) -> bool:
    """Return whether the IP `address` is in one of the CIDR `networks`; False if it is none.

    Raises ValueError for an invalid network.
    """
    ip, parsed = _address(address), _parsed(tuple(networks))
    return ip is not None and any(ip in network for network in parsed)


@lru_cache(maxsize=8)
def _parsed(networks: tuple[str, ...]) -> tuple[_Network, ...]:
    return tuple(ipaddress.ip_network(network, strict=False) for network in networks)


def _address(text: str) -> _Address | None:
    """Return a text as an IP address; None if it is none.

    A dual-stack socket reports an IPv4 address as ::ffff:10.0.0.1; return that as IPv4.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _without_port(text: str) -> str:
    """Remove the port of `10.0.0.1:80` and `[::1]:80`, which some proxies write."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text
