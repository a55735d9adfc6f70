"""Detection of requests that came directly from a client, without a proxy."""

from typing import Any

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest

from imgo_site import addresses

PROXY_HEADERS = tuple(
    f"HTTP_{name}"
    for name in (
        *("FORWARDED", "VIA", "X_REAL_IP", "X_FORWARDED_FOR", "X_FORWARDED_HOST"),
        *("X_FORWARDED_PROTO", "X_FORWARDED_PORT", "X_FORWARDED_SERVER", "X_FORWARDED_PREFIX"),
        *("X_CLIENT_IP", "X_CLUSTER_CLIENT_IP", "TRUE_CLIENT_IP", "CF_CONNECTING_IP"),
    )
)


def is_direct(request: HttpRequest) -> bool:
    """Return whether the request has no sign of a proxy.

    The signs are a header that names a client, and HTTP/1.0. Browsers do not use HTTP/1.0; nginx
    does by default.
    """
    meta = request.META
    is_passed_on = meta.get(addresses.DROPPED) or any(name in meta for name in PROXY_HEADERS)
    return not is_passed_on and _protocol(request) != "1.0"


def has_websocket(request: HttpRequest) -> bool:
    """Return whether the requested address may serve the WebSocket too.

    A node serves it. An API process does not, but a proxy may route WebSockets to a node.
    """
    return isinstance(request, ASGIRequest) or not is_direct(request)


def _protocol(request: HttpRequest) -> str:
    """Return the HTTP version of the request, as `1.1`; "" if the server does not report it."""
    scope: dict[str, Any] = getattr(request, "scope", {})
    protocol = scope.get("http_version") or request.META.get("SERVER_PROTOCOL", "")
    return str(protocol).rpartition("/")[2]
