"""Checks of security: access without credentials, and weak secrets."""

import ipaddress
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from urllib.parse import urlsplit

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error, register

from accounts.jwts import is_configured, unusable_keys
from imgo_site.browser_requests import is_origin, secure_header
from imgo_site.conf import conf
from push.checks.reading import with_settings

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

API_KEY_MIN = 16  # characters; the keys that `manage.py apikey` makes are longer
SECRET_MIN = 32  # bytes of an HS256 secret (RFC 7518, section 3.2)
LISTENERS = frozenset({"tcp", "ws", "http"})
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]", "::1", "testserver"})


def sends_in_the_clear(url: str) -> bool:
    """Return whether requests to this URL leave the machine without encryption."""
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname not in LOCAL_NAMES


@register
@with_settings
def check_networks() -> Iterator[CheckMessage]:
    """W002: networks whose callers need no API key.

    W004: a network of the internet whose callers need no API key.
    """
    if not conf.LEGACY_TRUSTED_NETWORKS:
        return
    names = ", ".join(conf.LEGACY_TRUSTED_NETWORKS)
    hint = "Give the old tools an API key (?apikey=...) and empty LEGACY_TRUSTED_NETWORKS."
    yield checks.Warning(
        f"Callers in {names} need no API key, on the paths of imgo (Go) and goim.",
        hint=hint,
        id="imgo.W002",
    )
    if public := [name for name in conf.LEGACY_TRUSTED_NETWORKS if _is_public(name)]:
        yield checks.Warning(
            f"LEGACY_TRUSTED_NETWORKS has {', '.join(public)}, which is not a private network: "
            "strangers can push to all keys.",
            hint="Name the private network of the old tools, such as 10.1.0.0/16.",
            id="imgo.W004",
        )


@register
@with_settings
def check_proxies() -> Iterator[CheckMessage]:
    """W017: a TRUSTED_PROXIES that includes every address.

    W018: addresses that are in both TRUSTED_PROXIES and LEGACY_TRUSTED_NETWORKS.
    """
    proxies = _networks(conf.TRUSTED_PROXIES)
    if any(network.prefixlen == 0 for network in proxies):
        yield checks.Warning(
            "TRUSTED_PROXIES includes every address: each client can claim any address.",
            hint="Name only the addresses of your proxies.",
            id="imgo.W017",
        )
    callers = _networks(conf.LEGACY_TRUSTED_NETWORKS)
    if both := [str(each) for each in callers if any(map(partial(_overlap, each), proxies))]:
        yield checks.Warning(
            f"{', '.join(both)} of LEGACY_TRUSTED_NETWORKS includes addresses of TRUSTED_PROXIES: "
            "a caller at such an address can claim another address of the network, and needs no "
            "API key then.",
            hint="Name only the addresses of your proxies in TRUSTED_PROXIES, and networks without "
            "them in LEGACY_TRUSTED_NETWORKS.",
            id="imgo.W018",
        )


def _networks(names: list[str]) -> list[_Network]:
    networks = []
    for name in names:
        with suppress(ValueError):  # E005 reports it
            networks.append(ipaddress.ip_network(name, strict=False))
    return networks


def _overlap(left: _Network, right: _Network) -> bool:
    return left.version == right.version and left.overlaps(right)


def _is_public(name: str) -> bool:
    try:
        network = ipaddress.ip_network(name, strict=False)
    except ValueError:
        return False  # E005 reports it
    return not (network.is_private or network.is_loopback or network.is_link_local)


@register
@with_settings
def check_cors_origins() -> Iterator[CheckMessage]:
    """E051: an entry of CORS_ORIGINS that is no origin; W043: `*` beside other origins."""
    for origin in conf.CORS_ORIGINS:
        if origin != "*" and not is_origin(origin):
            yield Error(
                f"CORS_ORIGINS has {origin!r}, which no browser sends as an origin.",
                hint="Write scheme and host in lower case, with the port if it is unusual, and "
                "without a path: IMGO_CORS_ORIGINS=https://app.example.com.",
                id="imgo.E051",
            )
    if "*" in conf.CORS_ORIGINS and len(conf.CORS_ORIGINS) > 1:
        yield checks.Warning(
            "CORS_ORIGINS has '*', so pages of every site have access, and its other entries mean "
            "nothing.",
            hint="Remove '*', or all others.",
            id="imgo.W043",
        )


@register
@with_settings
def check_forwarded_scheme() -> Iterator[CheckMessage]:
    """E040: DJANGO_BEHIND_TLS_PROXY without TRUSTED_PROXIES."""
    if secure_header() and not conf.TRUSTED_PROXIES:
        yield Error(
            "DJANGO_BEHIND_TLS_PROXY (SECURE_PROXY_SSL_HEADER) is set, but TRUSTED_PROXIES is "
            "empty: X-Forwarded-Proto is read from no address, so every request counts as "
            "unencrypted.",
            hint="Name the addresses of your proxies: IMGO_TRUSTED_PROXIES=10.0.0.5.",
            id="imgo.E040",
        )


@register
@with_settings
def check_proxy_protocol() -> Iterator[CheckMessage]:
    """E041: a PROXY_PROTOCOL with an unknown listener, or without TRUSTED_PROXIES."""
    if unknown := sorted(set(conf.PROXY_PROTOCOL) - LISTENERS):
        yield Error(
            f"PROXY_PROTOCOL names an unknown listener: {', '.join(map(repr, unknown))}.",
            hint="Use tcp, ws or http: IMGO_PROXY_PROTOCOL=tcp.",
            id="imgo.E041",
        )
    if conf.PROXY_PROTOCOL and not conf.TRUSTED_PROXIES:
        yield Error(
            "PROXY_PROTOCOL is set, but TRUSTED_PROXIES is empty: the header is read from no "
            "address.",
            hint="Name the addresses of your proxies: IMGO_TRUSTED_PROXIES=10.0.0.5.",
            id="imgo.E041",
        )


@register
@with_settings
def check_secrets() -> Iterator[CheckMessage]:
    """W003: a JWT_SECRET or API_KEY that is too short; W020: a JWT key that cannot be used."""
    if conf.JWT_SECRET and len(conf.JWT_SECRET.encode()) < SECRET_MIN:
        yield checks.Warning(
            f"JWT_SECRET is shorter than {SECRET_MIN} bytes.",
            hint="Use the output of: openssl rand -hex 32",
            id="imgo.W003",
        )
    if 0 < len(conf.API_KEY) < API_KEY_MIN:
        yield checks.Warning(
            f"API_KEY is shorter than {API_KEY_MIN} characters, and may do everything.",
            hint="Use the output of: openssl rand -hex 32",
            id="imgo.W003",
        )
    for name, why in unusable_keys():
        yield checks.Warning(
            f"{name} cannot be used, so the JWTs that it verifies are refused: {why}",
            hint="Set it to the path of a file with an RSA key that this process can read; a "
            "public key may also be the PEM text itself.",
            id="imgo.W020",
        )


@register
@with_settings
def check_jwt_expiry() -> Iterator[CheckMessage]:
    """W025: JWTs that never expire (JWT_REQUIRE_EXP is off)."""
    if is_configured() and not conf.JWT_REQUIRE_EXP:
        yield checks.Warning(
            "JWT_REQUIRE_EXP is off: a JWT without 'exp' never expires and cannot be revoked.",
            hint="Sign tokens with an 'exp', and unset JWT_REQUIRE_EXP.",
            id="imgo.W025",
        )


@register
@with_settings
def check_goim() -> Iterator[CheckMessage]:
    """W019: GOIM_TRUSTED, which accepts clients without a token."""
    if conf.GOIM_TRUSTED:
        yield checks.Warning(
            "GOIM_TRUSTED is on: any client that reaches this server gets the messages of any key "
            "that it names.",
            hint="Give goim's clients a token to put into their auth body, and unset GOIM_TRUSTED.",
            id="imgo.W019",
        )


@register
@with_settings
def check_public() -> Iterator[CheckMessage]:
    """W012: DEBUG on a server that other machines reach; W013: the demo page behind a proxy."""
    names = [name for name in settings.ALLOWED_HOSTS if name not in LOCAL_NAMES]
    if settings.DEBUG and (names or not _is_loopback(conf.HOST)):
        where = ", ".join(names) or conf.HOST
        yield checks.Warning(
            f"DEBUG is on, and other machines can reach {where}: error pages show settings.",
            hint="Unset DJANGO_DEBUG.",
            id="imgo.W012",
        )
    if conf.DEMO == "on" and settings.SECURE_PROXY_SSL_HEADER:
        yield checks.Warning(
            "The demo page is on behind a proxy. It shows its secrets to callers on this machine, "
            "and every caller that a proxy on this machine passes on counts as one.",
            hint="Set IMGO_DEMO=off.",
            id="imgo.W013",
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
