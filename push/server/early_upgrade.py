"""Parser of upgrade requests of the usual form, for connections that Twisted has not seen.

Nearly every WebSocket client sends its request of a few hundred bytes at once, and then waits for
the response. httptools, the parser of Node.js and uvicorn, reads such a request. Twisted's objects
for a connection and a request would take as much time as all the rest of opening a session.

Only one parser decides about a request. `read_upgrade` returns None for every request that Twisted
may read in another way, and for every one that is refused. Those stay unread in the kernel, for
Daphne. What is left has these properties:

- It is complete, and no bytes follow it.
- It consists of printable ASCII characters in lines that end with CRLF. No line begins
  or ends with a space.
- It is a GET of HTTP/1.1 for a path, with a Host header, without a body and without `Expect`.
- No header is there twice, and there are at most `MAX_HEADERS`.
- It is a valid upgrade to WebSocket that names no subprotocol.
"""

from typing import NamedTuple

import httptools

from imgo_site.conf import conf
from push.session.websocket_framing import usual_key

_PRINTABLE = bytes(range(0x20, 0x7F))
# Headers for which Twisted or Daphne do more than hand them on. Others may have any value.
_SPECIAL = frozenset({"content-length", "transfer-encoding", "expect", "daphne-root-path"})


class UpgradeRequest(NamedTuple):
    """A valid upgrade request: target, headers with names in lower case, Sec-WebSocket-Key."""

    target: bytes
    headers: list[tuple[bytes, bytes]]
    key: str


class _Parts:
    """Parts of a request, as the parser reports them."""

    __slots__ = ("headers", "target")

    def __init__(self) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        """Keep the target."""
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header."""
        self.headers.append((name.lower(), value))


def read_upgrade(data: bytes) -> UpgradeRequest | None:
    """Return the upgrade request of the usual form that `data` consists of, None for others."""
    if not (data.startswith(b"GET /") and _has_usual_lines(data)):
        return None
    parts = _Parts()
    parser = httptools.HttpRequestParser(parts)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade as upgrade:
        if upgrade.args[0] != len(data):
            return None
    except httptools.HttpParserError:
        return None
    else:
        return None  # it asks for no upgrade, or it is incomplete
    named = {name.decode(): value.decode() for name, value in parts.headers}
    is_usual = (
        data.startswith(b"GET %b HTTP/1.1\r\n" % parts.target)
        and len(named) == len(parts.headers) <= conf.MAX_HEADERS
        and "host" in named
        and _SPECIAL.isdisjoint(named)
        and b"#" not in parts.target
    )
    key = usual_key(named) if is_usual else ""
    return UpgradeRequest(parts.target, parts.headers, key) if key else None


def _has_usual_lines(data: bytes) -> bool:
    """Return whether these are whole lines of printable ASCII, an empty one last."""
    ends = b"\r\n" * data.count(b"\r\n")
    return (
        data.endswith(b"\r\n\r\n")
        and data.translate(None, _PRINTABLE) == ends
        and b"\r\n " not in data  # a line that continues the one before: RFC 9112, section 5.2
        and b" \r\n" not in data  # llhttp keeps spaces behind a value, Twisted does not
    )
