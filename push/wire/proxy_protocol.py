"""Parser of PROXY protocol headers, versions 1 and 2: the client's address behind a TCP proxy.

Source: haproxy's doc/proxy-protocol.txt, section 2. A connection has one header, before any other
byte. A bad header is refused at its first wrong byte.
"""

import ipaddress
import re
from typing import NamedTuple

V1_START, V1_MAX = b"PROXY ", 107  # bytes, with the line end
V2_START = b"\r\n\r\n\0\r\nQUIT\n"
V2_HEAD = 16  # bytes: the start, version and command, family, and the length of the rest
V2_MAX = 4_096  # bytes of that rest: the addresses, and TLVs of proxies, such as those about TLS
LOCAL, PROXY = 0x20, 0x21  # version 2 with its commands
SIZES = {0x11: 4, 0x21: 16}  # bytes of an address: TCP over IPv4, over IPv6
_V1 = re.compile(rb"PROXY TCP([46]) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) ([0-9]{1,5}) ([0-9]{1,5})")


class ProxyError(ValueError):
    """Error for bytes that are no header of the PROXY protocol."""


class ProxyHeader(NamedTuple):
    """A parsed header.

    `size`: its length in bytes.
    `address`, `port`: the client's; "" and 0 if the header names no TCP client, such as LOCAL,
    with which a proxy connects for itself.
    """

    size: int
    address: str = ""
    port: int = 0


def parse_proxy_header(data: bytes) -> ProxyHeader | None:
    """Return the header at the start of `data`; None if more bytes are needed.

    Raises `ProxyError`.
    """
    if data.startswith(V1_START[: len(data)]):
        return _parse_v1(data)
    if data.startswith(V2_START[: len(data)]):
        return _parse_v2(data)
    raise ProxyError("a header of the PROXY protocol must come first")


def _parse_v1(data: bytes) -> ProxyHeader | None:
    line, end, _ = data[:V1_MAX].partition(b"\r\n")
    if not end:
        if len(data) >= V1_MAX:
            raise ProxyError(f"a header of version 1 has at most {V1_MAX} bytes")
        return None
    size = len(line) + len(end)
    if line == b"PROXY UNKNOWN" or line.startswith(b"PROXY UNKNOWN "):
        return ProxyHeader(size)
    match = _V1.fullmatch(line)
    if match is None:
        raise ProxyError("a header of version 1 names a family, two addresses and two ports")
    version, source, _, port, _ = match.groups()
    try:
        address = ipaddress.ip_address(source.decode())
    except ValueError:
        raise ProxyError("the client's address is none") from None
    if address.version != int(version) or int(port) > 65_535:
        raise ProxyError("the client's address is not of its family")
    return ProxyHeader(size, str(address), int(port))


def _parse_v2(data: bytes) -> ProxyHeader | None:
    if len(data) < V2_HEAD:
        return None
    command, family = data[12], data[13]
    rest_size = int.from_bytes(data[14:16], "big")
    if command not in (LOCAL, PROXY):
        raise ProxyError("the version is not 2, or the command is unknown")
    if rest_size > V2_MAX:
        raise ProxyError(f"a header of version 2 has at most {V2_MAX} bytes behind its first 16")
    if len(data) < V2_HEAD + rest_size:
        return None
    size = SIZES.get(family, 0)
    if command == LOCAL or not size:
        return ProxyHeader(V2_HEAD + rest_size)
    if rest_size < 2 * size + 4:
        raise ProxyError("the header is too short for its addresses")
    address = ipaddress.ip_address(data[V2_HEAD : V2_HEAD + size])
    port = int.from_bytes(data[V2_HEAD + 2 * size : V2_HEAD + 2 * size + 2], "big")
    return ProxyHeader(V2_HEAD + rest_size, str(address), port)
