"""Checks of a browser's request: the page that sent it, its scheme, and its host.

A browser lets any page on the web send requests to any server, with the browser's cookies and from
the browser's address. So neither authenticates a request of a foreign page.
"""

import ipaddress
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import SplitResult, urlsplit

from django.conf import settings
from django.http.request import split_domain_port, validate_host
from django.utils.http import is_same_domain

from imgo_site.addresses import is_proxy

FORWARDED = ("HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST", "HTTP_X_FORWARDED_PORT")
DEFAULT_PORTS = {"http": 80, "https": 443}
OWN_SITES = frozenset({"", "none", "same-origin"})  # of Sec-Fetch-Site; old browsers omit it


def may_forward(peer: str) -> bool:
    """Return whether a peer may report the scheme and host of its client's request.

    A peer without an address is connected through a Unix socket of this machine.
    """
    return not peer or is_proxy(peer)


def secure_header() -> tuple[str, str] | None:
    """Return (header, value) with which a proxy reports that its client used HTTPS, or None."""
    header: tuple[str, str] | None = getattr(settings, "SECURE_PROXY_SSL_HEADER", None)
    return header


def forwarding_headers() -> set[str]:
    """Return the names, in the form of META, of headers that only a proxy may set."""
    header = secure_header()
    return {*FORWARDED, header[0]} if header else set(FORWARDED)


def client_scheme(is_secure: bool, peer: str, headers: Mapping[str, str]) -> str:
    """Return "https" or "http": the client's scheme, as reported by a trusted proxy.

    `is_secure`: whether the connection to this process uses TLS; it decides without a report.
    `headers`: with names in lower case.
    """
    if (header := secure_header()) and may_forward(peer):
        name, secure = header
        value = headers.get(name.removeprefix("HTTP_").replace("_", "-").lower())
        if value is not None:
            return "https" if value.split(",", 1)[0].strip() == secure else "http"
    return "https" if is_secure else "http"


def is_own_origin(headers: Mapping[str, str], scheme: str) -> bool:
    """Return whether the page that sent a request is of this host or of `CSRF_TRUSTED_ORIGINS`.

    Without an Origin header the result is False. Native clients send none; they have tokens.
    """
    try:
        origin = urlsplit(headers.get("origin", ""))
        own = urlsplit(f"{scheme}://{headers.get('host', '')}")
        if not origin.netloc or "@" in origin.netloc:
            return False
        if _origin_of(origin) == _origin_of(own):
            return True
    except ValueError:
        return False
    return any(
        origin.scheme == trusted.scheme
        and is_same_domain(origin.netloc, trusted.netloc.lstrip("*"))
        for trusted in map(urlsplit, settings.CSRF_TRUSTED_ORIGINS)
    )


def _origin_of(url: SplitResult) -> tuple[str, str | None, int | None]:
    return url.scheme, url.hostname, url.port or DEFAULT_PORTS.get(url.scheme)


def is_origin(text: str) -> bool:
    """Return whether a text is an origin as browsers send it: scheme, host, and port if unusual."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    if not parts.scheme or not parts.hostname or "@" in text or text != text.lower():
        return False
    if (parts.scheme, port) in (("http", 80), ("https", 443)):
        return False  # browsers leave these out
    return text == f"{parts.scheme}://{parts.netloc}"


def is_foreign_page(headers: Mapping[str, str], scheme: str) -> bool:
    """Return whether a foreign page made the browser send this request."""
    if headers.get("origin"):
        return not is_own_origin(headers, scheme)
    return headers.get("sec-fetch-site", "") not in OWN_SITES


def is_allowed_host(headers: Mapping[str, str]) -> bool:
    """Return whether the Host header names this server, by ALLOWED_HOSTS.

    Without an Origin header an IP address is accepted too: native clients connect to nodes by
    address. Only a browser can be led to this server by a foreign name. A missing Host is
    accepted here; the server of the connection decides whether one is required.
    """
    if "host" not in headers:
        return True
    allowed = settings.ALLOWED_HOSTS
    if settings.DEBUG and not allowed:
        allowed = [".localhost", "127.0.0.1", "[::1]"]
    return _is_allowed(headers["host"], bool(headers.get("origin")), tuple(allowed))


@lru_cache(maxsize=64)  # in a storm of connects nearly all requests name the same host
def _is_allowed(host: str, has_origin: bool, allowed: tuple[str, ...]) -> bool:
    domain, _ = split_domain_port(host)
    if not domain:
        return False
    return validate_host(domain, allowed) or (not has_origin and _is_address(domain))


def _is_address(domain: str) -> bool:
    try:
        ipaddress.ip_address(domain.strip("[]"))
    except ValueError:
        return False
    return True
