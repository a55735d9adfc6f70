"""Checks of security: access without credentials, and weak secrets."""

import ipaddress
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error, register

from accounts.jwts import is_configured, unusable_keys
from imgo_site.conf import conf
from imgo_site.origins import secure_header
from push.checks.reading import with_settings

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

API_KEY_MIN = 16  # characters; the keys that `manage.py apikey` makes are longer
SECRET_MIN = 32  # bytes of an HS256 secret (RFC 7518, section 3.2)
LISTENERS = frozenset({"tcp", "ws", "http"})
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]", "::1", "testserver"})


@register
@with_settings
def check_networks() -> Iterator[CheckMessage]:
    """W002: networks that need no API key; W004: networks of the internet among them."""
    if not conf.LEGACY_TRUSTED_NETWORKS:
        return
    names = ", ".join(conf.LEGACY_TRUSTED_NETWORKS)
    hint = "Give the old tools an API key (?apikey=...) and empty LEGACY_TRUSTED_NETWORKS."
    yield checks.Warning(
        f"Anyone in {names} can push without an API key on imgo's paths.",
        hint=hint,
        id="imgo.W002",
    )
    if public := [name for name in conf.LEGACY_TRUSTED_NETWORKS if _is_public(name)]:
        yield checks.Warning(
            f"{', '.join(public)} is not a private network: strangers can push to all keys.",
            hint="Name the private network that the old tools are in, such as 10.1.0.0/16.",
            id="imgo.W004",
        )


@register
@with_settings
def check_proxies() -> Iterator[CheckMessage]:
    """W017: everybody is a proxy; W018: some are trusted with and without a key."""
    proxies = _networks(conf.TRUSTED_PROXIES)
    if any(network.prefixlen == 0 for network in proxies):
        yield checks.Warning(
            "TRUSTED_PROXIES names every address: each client says itself where it is.",
            hint="Name the addresses of your proxies alone.",
            id="imgo.W017",
        )
    callers = _networks(conf.LEGACY_TRUSTED_NETWORKS)
    if both := [str(each) for each in callers if any(map(partial(_overlap, each), proxies))]:
        yield checks.Warning(
            f"{', '.join(both)} of LEGACY_TRUSTED_NETWORKS has addresses of TRUSTED_PROXIES: who "
            "has one of these needs an API key, and may say that it has one of the others.",
            hint="Name the addresses of your proxies alone, and the networks without them.",
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
def check_forwarded_scheme() -> Iterator[CheckMessage]:
    """E040: a header that nobody may send."""
    if secure_header() and not conf.TRUSTED_PROXIES:
        yield Error(
            "DJANGO_BEHIND_TLS_PROXY (SECURE_PROXY_SSL_HEADER) is set and TRUSTED_PROXIES is "
            "empty: no proxy is believed, so every request counts as unencrypted.",
            hint="Name the addresses of your proxies: IMGO_TRUSTED_PROXIES=10.0.0.5.",
            id="imgo.E040",
        )


@register
@with_settings
def check_proxy_protocol() -> Iterator[CheckMessage]:
    """E041: a listener that there is not, or a header that nobody may send."""
    if unknown := sorted(set(conf.PROXY_PROTOCOL) - LISTENERS):
        yield Error(
            f"PROXY_PROTOCOL names {', '.join(map(repr, unknown))}.",
            hint="The listeners are tcp, ws and http: IMGO_PROXY_PROTOCOL=tcp.",
            id="imgo.E041",
        )
    if conf.PROXY_PROTOCOL and not conf.TRUSTED_PROXIES:
        yield Error(
            "PROXY_PROTOCOL is set and TRUSTED_PROXIES is empty: no proxy is believed.",
            hint="Name the addresses of your proxies: IMGO_TRUSTED_PROXIES=10.0.0.5.",
            id="imgo.E041",
        )


@register
@with_settings
def check_secrets() -> Iterator[CheckMessage]:
    """W003: a secret that can be guessed; W020: a key that verifies no JWT."""
    if conf.JWT_SECRET and len(conf.JWT_SECRET.encode()) < SECRET_MIN:
        yield checks.Warning(
            f"JWT_SECRET is shorter than {SECRET_MIN} bytes.",
            hint="Make one: python -c 'import secrets; print(secrets.token_urlsafe(48))'",
            id="imgo.W003",
        )
    if 0 < len(conf.API_KEY) < API_KEY_MIN:
        yield checks.Warning(
            f"API_KEY is shorter than {API_KEY_MIN} characters, and may do everything.",
            hint="Make one: python -c 'import secrets; print(secrets.token_urlsafe(24))'",
            id="imgo.W003",
        )
    for name, why in unusable_keys():
        yield checks.Warning(
            f"{name} cannot be used, so the tokens it is for are refused: {why}",
            hint="Say the path of a file that this process can read, with an RSA key; a public key "
            "may also be the PEM text itself.",
            id="imgo.W020",
        )


@register
@with_settings
def check_jwt_expiry() -> Iterator[CheckMessage]:
    """W025: tokens that nothing ever ends."""
    if is_configured() and not conf.JWT_REQUIRE_EXP:
        yield checks.Warning(
            "JWT_REQUIRE_EXP is off: a JWT without 'exp' opens sessions for ever, and nothing can "
            "take it back.",
            hint="Sign tokens with an 'exp', and unset JWT_REQUIRE_EXP.",
            id="imgo.W025",
        )


@register
@with_settings
def check_goim() -> Iterator[CheckMessage]:
    """W019: clients that are believed without a token."""
    if conf.GOIM_TRUSTED:
        yield checks.Warning(
            "GOIM_TRUSTED is on: whoever reaches this server gets the messages of any key by "
            "naming it.",
            hint="Give goim's clients a token to put into their auth body, and unset GOIM_TRUSTED.",
            id="imgo.W019",
        )


@register
@with_settings
def check_public() -> Iterator[CheckMessage]:
    """W012: DEBUG where strangers come; W013: the demo behind a proxy."""
    names = [name for name in settings.ALLOWED_HOSTS if name not in LOCAL_NAMES]
    if settings.DEBUG and (names or not _is_loopback(conf.HOST)):
        where = ", ".join(names) or conf.HOST
        yield checks.Warning(
            f"DEBUG is on and {where} can be reached from elsewhere: error pages show settings.",
            hint="Unset DJANGO_DEBUG.",
            id="imgo.W012",
        )
    if conf.DEMO == "on" and settings.SECURE_PROXY_SSL_HEADER:
        yield checks.Warning(
            "The demo page is on behind a proxy: it shows its secrets to whoever comes from this "
            "machine, and so does everyone whom a proxy on it lets in.",
            hint="Set IMGO_DEMO=off.",
            id="imgo.W013",
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
