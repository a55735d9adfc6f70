"""Upgrade requests of the usual form, and the many that are left to Daphne."""

from typing import Any

import pytest
from twisted.internet.testing import StringTransport
from twisted.web.http import HTTPChannel, Request

from push.server.early_upgrade import read_upgrade

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
LINES = {
    "Host": "push.example",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
    "Cookie": "a=b; c=d",
}


def upgrade(first: str = "GET /sub?a=b HTTP/1.1", **changes: str) -> bytes:
    """The request. `changes`: values by names with `_`; "" leaves the header out."""
    headers = LINES | {name.replace("_", "-"): value for name, value in changes.items()}
    lines = [first, *(f"{name}: {value}" for name, value in headers.items() if value), "", ""]
    return "\r\n".join(lines).encode("latin1")


def test_usual_request_is_read_whole():
    request = read_upgrade(upgrade())
    assert request is not None
    assert request.target == b"/sub?a=b"
    assert request.key == KEY
    headers = [(name.lower().encode(), value.encode()) for name, value in LINES.items()]
    assert request.headers == headers


def test_part_of_a_request_and_bytes_behind_it_are_left_to_daphne():
    whole = upgrade()
    assert not any(read_upgrade(whole[:size]) for size in range(len(whole)))
    assert read_upgrade(whole + b"\x81") is None
    assert read_upgrade(whole + whole) is None


@pytest.mark.parametrize(
    "unusual",
    [
        upgrade("POST /sub HTTP/1.1"),
        upgrade("get /sub HTTP/1.1"),
        upgrade("GET /sub HTTP/1.0"),
        upgrade("GET /sub HTTP/1.1 "),
        upgrade("GET  /sub HTTP/1.1"),
        upgrade("GET /sub  HTTP/1.1"),
        upgrade("GET http://push.example/sub HTTP/1.1"),
        upgrade("GET /sub#part HTTP/1.1"),
        upgrade("GET /s\xfcb HTTP/1.1"),
        b"\r\n" + upgrade(),
        upgrade().replace(b"\r\n", b"\n"),
        upgrade().replace(b"a=b; ", b"a=b\n"),
        upgrade().replace(b"a=b; ", b"a=b;\r\n "),
        upgrade().replace(b"a=b; ", b"a=b\t"),
        upgrade().replace(b"a=b; ", b"a=b\r"),
        upgrade().replace(b"a=b; ", b"a=b\r\r\n\n"),
        upgrade().replace(b"a=b; ", b"a=b\0"),
        upgrade().replace(b"Host:", b"Host :"),
        upgrade().replace(b"Cookie", b"HOST"),
        upgrade().replace(b"Cookie", b"Coo kie"),
        upgrade().replace(b"Cookie: ", b": "),
        upgrade(Host=""),
        upgrade(Upgrade="h2c"),
        upgrade(Connection="close"),
        upgrade(Sec_WebSocket_Key=""),
        upgrade(Sec_WebSocket_Key="short"),
        upgrade(Sec_WebSocket_Version="12"),
        upgrade(Sec_WebSocket_Protocol="chat"),
        upgrade(Content_Length="0"),
        upgrade(Content_Length="5"),
        upgrade(Transfer_Encoding="chunked"),
        upgrade(Expect="100-continue"),
        upgrade(Daphne_Root_Path="/p"),
        upgrade(**{f"X_{number}": "y" for number in range(100)}),
        b"",
    ],
)
def test_unusual_request_is_left_to_daphne(unusual):
    assert read_upgrade(unusual) is None


class Kept(Request):
    """A request that is kept instead of answered."""

    def process(self) -> None:
        self.channel.kept = self


def by_twisted(data: bytes) -> tuple[bytes, bytes, list[tuple[bytes, bytes]]] | None:
    """Method, target and headers as Twisted reads them; None if it does not."""
    channel: Any = HTTPChannel()
    channel.requestFactory = Kept
    channel.kept = None
    channel.makeConnection(StringTransport())
    channel.setTimeout(None)
    channel.dataReceived(data)
    if channel.kept is None:
        return None
    found = channel.kept.requestHeaders.getAllRawHeaders()
    headers = sorted((name.lower(), value) for name, values in found for value in values)
    return channel.kept.method, channel.kept.uri, headers


def test_request_that_is_read_early_is_the_same_to_twisted():
    """One byte more at every place: if the request is still usual, both parsers agree."""
    whole = upgrade()
    count = 0
    for place in range(len(whole)):
        for extra in (b" ", b":", b"\r\n", b"x", b"%"):
            data = whole[:place] + extra + whole[place:]
            if (request := read_upgrade(data)) is not None:
                assert by_twisted(data) == (b"GET", request.target, sorted(request.headers))
                count += 1
    assert count > 100
