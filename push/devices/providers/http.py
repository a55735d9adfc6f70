"""HTTP client of the providers: HTTP/2, bounded, without redirects, to checked addresses.

It uses httpcore, the engine of httpx: there the address that is connected to can be the one that
was checked. httpx itself would resolve the host again.
"""

import asyncio
import ipaddress
import json
import logging
import socket
import ssl
import sys
import time
from collections.abc import Iterable, Sequence
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from typing import Any, NamedTuple

import certifi
import httpcore

from imgo_site.conf import conf
from push.devices.jobs import NoAnswer

# At the level DEBUG it logs all headers: the addresses of devices, and the tokens of providers.
logging.getLogger("hpack").setLevel(logging.INFO)

# httpcore tries to import sniffio some times for each request. Where it is not installed, each of
# them would search the disk, a fifth of the CPU of a notification.
if find_spec("sniffio") is None:
    sys.modules["sniffio"] = None  # type: ignore[assignment]

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052
LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")  # RFC 8215
COMPATIBLE = ipaddress.IPv6Network("::/96")  # RFC 4291, section 2.5.5.1
BODY_MAX = 16_384  # bytes that are read of an answer
KEEP_IDLE = 300.0  # seconds that an unused connection is kept; APNs asks to keep it open
# The connection ended before its answer. Servers close idle ones at any moment.
BROKEN = (httpcore.RemoteProtocolError, httpcore.ReadError, httpcore.WriteError)
FAILURES = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.TimeoutException,
    httpcore.UnsupportedProtocol,
    OSError,
)


class AddressRefused(NoAnswer):
    """The host resolves to an address that must not be called."""

    def __init__(self) -> None:
        super().__init__("private_address")


class Answer(NamedTuple):
    """An answer. `headers`: with names in lower case. `body`: its first `BODY_MAX` bytes."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def retry_after(self) -> float:
        """Return the seconds of Retry-After, which is a number or a date; 0 without one."""
        text = self.headers.get("retry-after", "").strip()
        if text.isascii() and text.isdigit():
            return float(text)
        try:
            return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
        except (ValueError, TypeError, OverflowError):
            return 0.0

    @property
    def json(self) -> dict[str, Any]:
        """Return the JSON object of the body, {} if it has none."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """Network backend that resolves a host once, and connects only if all addresses are public.

    `networks`: private networks (CIDR) that may be called nevertheless.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = [ipaddress.ip_network(one) for one in networks]
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address that answers. Raises `AddressRefused`."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore.ConnectError(f"no address: {error.strerror}") from error
        addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
        # One private address among public ones is refused too: the order is the host's to choose.
        if not addresses or not all(map(self._may_be_called, addresses)):
            raise AddressRefused
        return await self._connect(addresses, port, timeout, local_address, socket_options)

    async def _connect(self, addresses: Sequence[str], *rest: Any) -> httpcore.AsyncNetworkStream:
        for address in addresses[:-1]:
            try:
                return await self._backend.connect_tcp(address, *rest)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._backend.connect_tcp(addresses[-1], *rest)

    def _may_be_called(self, text: str) -> bool:
        address = ipaddress.ip_address(text.partition("%")[0])
        target = _target(address)
        if any(one in network for network in self._networks for one in (address, target)):
            return True
        return target.is_global and not target.is_multicast and target not in LOCAL_NAT64


def _target(address: IpAddress) -> IpAddress:
    """Return the IPv4 address that packets to this address may be sent to, or else the address.

    A gateway of the network may translate or unwrap it.
    """
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in NAT64 or address in COMPATIBLE:
        return ipaddress.IPv4Address(address.packed[-4:])
    return address.ipv4_mapped or address.sixtofour or address


class HttpClient:
    """Client of one provider. It keeps connections, and follows no redirect.

    Callers set a time limit around `post`. `is_checked`: whether hosts come from clients, so that
    private addresses must be refused.
    """

    def __init__(self, *, is_checked: bool) -> None:
        backend = CheckedBackend(conf.WEBPUSH_NETWORKS) if is_checked else httpcore.AnyIOBackend()
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=_tls(),
            max_connections=conf.NOTIFY_CONCURRENCY,
            keepalive_expiry=KEEP_IDLE,
            http1=True,
            http2=True,
            network_backend=backend,
        )

    async def post(self, url: str, headers: dict[str, str], body: bytes) -> Answer:
        """Return the answer. A request whose connection breaks is repeated once, unchanged.

        Raises `NoAnswer`.
        """
        try:
            try:
                return await self._post(url, headers, body)
            except BROKEN:
                return await self._post(url, headers, body)
        except httpcore.ConnectError as error:
            raise NoAnswer("no_tls" if _is_of_tls(error) else "no_connection") from error
        except FAILURES as error:
            raise NoAnswer("connection_broken") from error

    async def _post(self, url: str, headers: dict[str, str], body: bytes) -> Answer:
        given = [(name.encode(), value.encode()) for name, value in headers.items()]
        async with self._pool.stream("POST", url, headers=given, content=body) as response:
            received = bytearray()
            async for part in response.aiter_stream():
                received += part
                if len(received) > BODY_MAX:
                    break
            names = {
                name.decode("latin1").lower(): v.decode("latin1") for name, v in response.headers
            }
            return Answer(response.status, names, bytes(received[:BODY_MAX]))

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.aclose()


def _is_of_tls(error: BaseException | None) -> bool:
    """Return whether TLS has failed, such as for a certificate. The cause is a few steps down."""
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certifi.where())
    if conf.NOTIFY_CA_FILE:
        context.load_verify_locations(cafile=conf.NOTIFY_CA_FILE)
    return context
