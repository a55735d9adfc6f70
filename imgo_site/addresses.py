"""Where a client is: the address of its connection, or what a trusted proxy says of it."""

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

from django.core.exceptions import ImproperlyConfigured

from imgo_site.conf import conf

HEADER = "x-forwarded-for"
DROPPED = "imgo.dropped"  # in META: whether a proxy's headers came from a peer that is none
PEER = "imgo.peer"  # in a request's META: the address of the connection, whatever a header says

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def client_address(peer: str, forwarded: str) -> str:
    """The client's IP address.

    `peer` is the connection's other end; unless that is in `TRUSTED_PROXIES` it is the client.
    `forwarded` is all of X-Forwarded-For. Each proxy adds at its end whom it heard it from, so
    from there on each is believed as long as who said it is one of ours: what a client has put
    in front is never reached. Raises ValueError when the setting makes no sense.
    """
    if not conf.TRUSTED_PROXIES or not is_proxy(peer):
        return peer
    found = peer
    for text in reversed(forwarded.split(",")):
        address = _address(_without_port(text.strip()))
        if address is None:  # as `unknown` or of a socket's name: further back nobody vouches
            break
        found = str(address)
        if not is_proxy(found):
            break
    return found


def is_proxy(address: str) -> bool:
    """Whether this is one of our proxies, in `TRUSTED_PROXIES`. Raises ValueError like it."""
    return in_networks(address, conf.TRUSTED_PROXIES)


def check() -> None:
    """Raises `ImproperlyConfigured` when `TRUSTED_PROXIES` makes no sense."""
    try:
        is_proxy("")
    except ValueError as error:
        raise ImproperlyConfigured(f"TRUSTED_PROXIES: {error}") from None


def in_networks(address: str, networks: Iterable[str]) -> bool:
    """Whether the IP `address` is in one of the CIDR `networks`. Raises ValueError for theirs."""
    found, parsed = _address(address), _parsed(tuple(networks))
    return found is not None and any(found in network for network in parsed)


@lru_cache(maxsize=8)
def _parsed(networks: tuple[str, ...]) -> tuple[_Network, ...]:
    return tuple(ipaddress.ip_network(network, strict=False) for network in networks)


def _address(text: str) -> _Address | None:
    """An IPv4 address is one too when a socket for both kinds writes it as ::ffff:10.0.0.1."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def _without_port(text: str) -> str:
    """Of `10.0.0.1:80` and `[::1]:80`, which some proxies write."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text
