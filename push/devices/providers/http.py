"""HTTP client of the providers: bounded, without redirects, to checked addresses.

The address that is connected to is the one that was checked. HTTP/2 has a client of its own: with
httpcore, a request takes three times the CPU. httpcore is for servers without HTTP/2.
"""

import asyncio
import ipaddress
import logging
import socket
import ssl
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

import certifi
import httpcore

from imgo_site.conf import conf
from push.devices.jobs import NoAnswer
from push.devices.providers.answer import BODY_MAX, Answer, Broken, NotProcessed
from push.devices.providers.http2 import Fields, Http2Connection

# At the level DEBUG it logs all headers: the addresses of devices, and the tokens of providers.
logging.getLogger("hpack").setLevel(logging.INFO)

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

# The first 12 bytes of IPv6 addresses that end with an IPv4 address: NAT64 (RFC 6052), and
# compatible ones (RFC 4291, section 2.5.5.1).
BEFORE_IPV4 = (b"\x00\x64\xff\x9b" + bytes(8), bytes(12))
# The first three bits of all public IPv6 addresses, 2000::/3. Python takes others for public too,
# such as site-local ones (RFC 3879), and those that stand for an IPv4 address by RFC 2765.
PUBLIC_IPV6 = 0b001
ORIGINS_MAX = 200  # hosts and ports whose connections are kept
KEEP_IDLE = 300.0  # seconds that an unused connection is kept; APNs asks to keep it open
# Seconds until the next address of a host is tried, and the share of the time for a request.
DIAL_MAX = 3.0
DIAL_SHARE = 0.25
# Connections that one request tries, if the server ends each before it takes the request.
CONNECTIONS_MAX = 6
# The connection ended before its answer. Servers close idle ones at any moment.
BROKEN = (Broken, httpcore.RemoteProtocolError, httpcore.ReadError, httpcore.WriteError)
FAILURES = (
    Broken,
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


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """Network backend that resolves a host once, and connects only if all addresses are public.

    `networks`: private networks (CIDR) that may be called nevertheless.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = [ipaddress.ip_network(network) for network in networks]
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address that answers. Raises `AddressRefused` or `NoAnswer`."""
        addresses = await self.resolve(host, port)
        return await self._connect(addresses, port, timeout, local_address, socket_options)

    async def resolve(self, host: str, port: int) -> list[str]:
        """Return the addresses of a host, if all may be called.

        Raises `AddressRefused`, or `NoAnswer` if it has none.
        """
        addresses = await _resolve(host, port)
        # One private address among public ones is refused too: the order is the host's to choose.
        if not all(map(self._may_be_called, addresses)):
            raise AddressRefused
        return addresses

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
        if any(address in network or target in network for network in self._networks):
            return True
        if isinstance(target, ipaddress.IPv6Address) and target.packed[0] >> 5 != PUBLIC_IPV6:
            return False
        return target.is_global and not target.is_multicast


def _target(address: IpAddress) -> IpAddress:
    """Return the IPv4 address that packets to this address may be sent to, or else the address.

    A gateway of the network may translate or unwrap it.
    """
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.packed[:12] in BEFORE_IPV4:
        return ipaddress.IPv4Address(address.packed[-4:])
    return address.ipv4_mapped or address.sixtofour or address


class _Origin:
    """Server of one host and port. `has_http2`: whether it speaks HTTP/2, as far as is known."""

    def __init__(self) -> None:
        self.dialing = asyncio.Lock()
        self.connection: Http2Connection | None = None
        self.has_http2 = True

    @property
    def is_idle(self) -> bool:
        """Whether nothing is lost if it is forgotten."""
        has_requests = self.connection is not None and not self.connection.is_idle
        return not has_requests and not self.dialing.locked()


class HttpClient:
    """Client of one provider. It keeps connections, and follows no redirect.

    It speaks HTTP/2, and HTTP/1.1 with a server that does not. Callers set a time limit around
    `post`. `is_checked`: whether clients name the hosts, so that private addresses must be refused.
    """

    def __init__(self, *, is_checked: bool) -> None:
        checked = CheckedBackend(conf.WEBPUSH_NETWORKS)
        self._resolve = checked.resolve if is_checked else _resolve
        self._tls = _tls()
        self._tls.set_alpn_protocols(["h2", "http/1.1"])
        self._origins: dict[tuple[str, int], _Origin] = {}
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=_tls(),
            max_connections=conf.NOTIFY_CONCURRENCY,
            keepalive_expiry=KEEP_IDLE,
            network_backend=checked if is_checked else httpcore.AnyIOBackend(),
        )

    async def post(self, url: str, headers: dict[str, str], body: bytes) -> Answer:
        """Return the answer. A request whose connection breaks is repeated once, unchanged.

        One that the server has certainly not processed tries up to `CONNECTIONS_MAX` connections.

        `headers`: with names in lower case. Raises `NoAnswer`.
        """
        try:
            return await self._post_until_taken(url, headers, body)
        except httpcore.ConnectError as error:
            raise NoAnswer("no_tls" if _is_of_tls(error) else "no_connection") from error
        except FAILURES as error:
            raise NoAnswer("connection_broken") from error

    async def _post_until_taken(self, url: str, headers: dict[str, str], body: bytes) -> Answer:
        is_repeated = False
        for _ in range(CONNECTIONS_MAX):
            try:
                return await self._post(url, headers, body)
            except NotProcessed:
                continue
            except BROKEN:
                if is_repeated:
                    raise
                is_repeated = True
        raise NotProcessed

    async def _post(self, url: str, headers: dict[str, str], body: bytes) -> Answer:
        parts = urlsplit(url)
        fields = [(name.encode(), value.encode()) for name, value in headers.items()]
        connection = await self._connection((parts.hostname or "", parts.port or 443))
        if connection is None:
            return await self._post_http1(url, fields, body)
        path = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
        head = [
            (b":method", b"POST"),
            (b":scheme", b"https"),
            (b":authority", parts.netloc.encode()),
            (b":path", path.encode()),
            (b"content-length", str(len(body)).encode()),
        ]
        return await connection.request(head + fields, body)

    async def _connection(self, place: tuple[str, int]) -> Http2Connection | None:
        """Return a connection to a host and port, None if that does not speak HTTP/2.

        Raises `AddressRefused`, or `NoAnswer`.
        """
        origin = self._origins.get(place)
        if origin is None:
            self._forget_idle()
            origin = self._origins[place] = _Origin()
        async with origin.dialing:  # one request opens the connection for all
            known = origin.connection
            if known is not None and known.is_old(KEEP_IDLE):
                known.close()
            if origin.has_http2 and (known is None or not known.is_usable):
                origin.connection = await self._dial(*place)
                origin.has_http2 = origin.connection is not None
            return origin.connection

    async def _dial(self, host: str, port: int) -> Http2Connection | None:
        """Open a connection to the first address that answers; None if it is not HTTP/2."""
        loop = asyncio.get_running_loop()
        failure: OSError | None = None
        addresses = await self._resolve(host, port)
        for address in addresses:
            # An address that is silent, such as an IPv6 one without a route, must leave time for
            # the next one. The limit of the caller ends the last.
            is_last = address == addresses[-1]
            limit = None if is_last else min(DIAL_MAX, conf.NOTIFY_TIMEOUT * DIAL_SHARE)
            try:
                async with asyncio.timeout(limit):
                    transport, connection = await loop.create_connection(
                        Http2Connection, address, port, ssl=self._tls, server_hostname=host
                    )
            except OSError as error:  # the errors of TLS are among them, and TimeoutError
                failure = error
                continue
            if transport.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
                connection.close()
                await connection.wait_closed()
                return None
            connection.begin()
            return connection
        raise NoAnswer("no_tls" if _is_of_tls(failure) else "no_connection") from failure

    def _forget_idle(self) -> None:
        """Make room for one more origin: those that clients name could be many."""
        if len(self._origins) >= ORIGINS_MAX:
            for place in [place for place, known in self._origins.items() if known.is_idle]:
                connection = self._origins.pop(place).connection
                if connection is not None:
                    connection.close()

    async def _post_http1(self, url: str, fields: Fields, body: bytes) -> Answer:
        async with self._pool.stream("POST", url, headers=fields, content=body) as response:
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
        origins = self._origins.values()
        connections = [origin.connection for origin in origins if origin.connection]
        for connection in connections:
            connection.close()
        for connection in connections:
            await connection.wait_closed()
        await self._pool.aclose()


async def _resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host. Raises `NoAnswer` if it has none."""
    loop = asyncio.get_running_loop()
    try:
        infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise NoAnswer("no_connection") from error
    if not infos:
        raise NoAnswer("no_connection")
    return list(dict.fromkeys(str(info[4][0]) for info in infos))


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
