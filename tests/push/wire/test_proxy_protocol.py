"""The PROXY protocol: what proxies send, cut anywhere, and what is none of it."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from push.wire.proxy_protocol import (
    V1_MAX,
    V2_MAX,
    V2_START,
    ProxyError,
    ProxyHeader,
    parse_proxy_header,
)


def v2(command: int, family: int, rest: bytes) -> bytes:
    return V2_START + bytes([command, family]) + len(rest).to_bytes(2, "big") + rest


def packed(source: str, port: int, more: bytes = b"") -> bytes:
    address = ipaddress.ip_address(source).packed
    return address * 2 + port.to_bytes(2, "big") * 2 + more


GOOD = [
    (b"PROXY TCP4 192.0.2.1 10.0.0.1 56324 443\r\n", "192.0.2.1", 56324),
    (b"PROXY TCP6 2001:db8::1 fd00::1 1 65535\r\n", "2001:db8::1", 1),
    (b"PROXY UNKNOWN\r\n", "", 0),
    (b"PROXY UNKNOWN ffff:: ffff:: 65535 65535\r\n", "", 0),
    (v2(0x21, 0x11, packed("192.0.2.1", 56324)), "192.0.2.1", 56324),
    (v2(0x21, 0x11, packed("192.0.2.1", 56324, b"\x04\x00\x01x")), "192.0.2.1", 56324),
    (v2(0x21, 0x21, packed("2001:db8::1", 1)), "2001:db8::1", 1),
    (v2(0x20, 0x00, b""), "", 0),
    (v2(0x20, 0x11, packed("192.0.2.1", 1)), "", 0),
    (v2(0x21, 0x31, b"\0" * 216), "", 0),
]


@pytest.mark.parametrize(("sent", "address", "port"), GOOD)
def test_header_cut_anywhere_is_read_once_it_is_whole(sent, address, port):
    for end in range(len(sent)):
        assert parse_proxy_header(sent[:end]) is None
    assert parse_proxy_header(sent + b"rest") == ProxyHeader(len(sent), address, port)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n",
        b"proxy TCP4",
        b"PROXY TCP4 192.0.2.1 10.0.0.1 56324\r\n",
        b"PROXY TCP4 2001:db8::1 10.0.0.1 1 1\r\n",
        b"PROXY TCP4 999.0.2.1 10.0.0.1 1 1\r\n",
        b"PROXY TCP4 192.0.2.1 10.0.0.1 65536 1\r\n",
        b"PROXY UDP4 192.0.2.1 10.0.0.1 1 1\r\n",
        b"PROXY " + b"x" * V1_MAX,
        v2(0x31, 0x11, b""),
        v2(0x22, 0x11, b""),
        v2(0x21, 0x11, b"\0" * 11),
        v2(0x21, 0x00, b"\0" * (V2_MAX + 1))[:16],
        b"\r\n\r\nx",
    ],
)
def test_header_that_is_none_is_refused(sent):
    with pytest.raises(ProxyError):
        parse_proxy_header(sent)


@given(st.binary(max_size=64), st.sampled_from([b"", b"PROXY ", V2_START, V2_START + b"\x21\x11"]))
def test_header_of_any_bytes_is_read_or_refused(data, start):
    try:
        header = parse_proxy_header(start + data)
    except ProxyError:
        return
    assert header is None or header.size <= len(start + data)
