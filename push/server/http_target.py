"""Parser of a request's target, its path and host, by RFC 9112, sections 3.2 and 3.3."""

import re
from typing import Any
from urllib.parse import urlsplit

ABSOLUTE = re.compile(rb"https?://[^/?#]+", re.IGNORECASE)


class BadTarget(ValueError):
    """A request without one clear host and resource."""


def read_target(target: bytes, version: bytes, headers: Any) -> bytes:
    """Return the path and query of a request target; set the Host header from an absolute URI.

    `headers`: Twisted's.

    Clients send an absolute URI to a proxy. A server must accept it, too, and the URI's host takes
    precedence over the header's.

    Raises `BadTarget`.
    """
    hosts = headers.getRawHeaders(b"Host") or []
    if len(hosts) > 1 or (version == b"HTTP/1.1" and not hosts):
        raise BadTarget("A request of HTTP/1.1 has exactly one Host header.")
    if target.startswith(b"/") or target == b"*":
        return target
    if ABSOLUTE.match(target) is None:
        raise BadTarget(
            "The target of a request is a path, or an absolute http:// or https:// URI."
        )
    try:
        parts = urlsplit(target)
    except ValueError:
        raise BadTarget("The target of the request is not a valid URI.") from None
    headers.setRawHeaders(b"Host", [parts.netloc.rpartition(b"@")[2]])
    path = parts.path or b"/"
    return path + b"?" + parts.query if parts.query else path
