"""Raw TCP connections: clients themselves, and proxies that send the client's address first."""

import asyncio
import socket
from typing import Any

import pytest

from imgo_site.conf import conf
from push.metrics import definitions as metrics
from push.server.tcp_listener import TcpListener
from push.session.link_manager import LinkManager
from push.session.socket_link import SocketLink
from tests import PATIENCE, eventually
from tests.services import free_port

HEADER = b"PROXY TCP4 203.0.113.7 127.0.0.1 4711 80\r\n"
LOCAL = b"PROXY UNKNOWN\r\n"


class Node:
    """A listener, and the links that it has begun."""

    def __init__(self, port: int) -> None:
        self.links: list[tuple[SocketLink, dict[str, Any]]] = []
        self.port = port
        self.manager = LinkManager(asyncio.get_running_loop())
        self.listener = TcpListener(self.manager, lambda: True, self._run_link)
        self._own = len(self.manager.poller)
        self.clients: list[socket.socket] = []

    def _run_link(self, link: SocketLink, scope: dict[str, Any]) -> None:
        self.links.append((link, scope))

    def connect(self) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port))
        client.setblocking(False)
        self.clients.append(client)
        return client

    def connections(self) -> int:
        """How many sockets of clients are watched."""
        return len(self.manager.poller) - self._own

    async def begun(self) -> tuple[SocketLink, list[Any]]:
        """The next link, and the address of its client."""
        await eventually(lambda: bool(self.links))
        link, scope = self.links.pop()
        assert scope["server"] == ["127.0.0.1", self.port]
        assert await link.receive() == {"type": "tcp.connect"}
        return link, scope["client"]

    def close(self) -> None:
        self.listener.close()
        for client in self.clients:
            client.close()
        self.manager.close()


@pytest.fixture
async def node(imgo):
    imgo(HOST="127.0.0.1", TCP_PORT=free_port(), PROXY_PROTOCOL=[], TRUSTED_PROXIES=["127.0.0.1"])
    one = Node(conf.TCP_PORT)
    yield one
    one.close()


@pytest.fixture
def proxied(node, imgo):
    imgo(PROXY_PROTOCOL=["tcp"])
    return node


async def test_client_has_the_address_of_its_socket(node):
    client = node.connect()
    link, address = await node.begun()
    assert tuple(address) == client.getsockname()
    link.abort()


async def test_client_of_a_proxy_has_the_address_of_the_header(proxied):
    client = proxied.connect()
    client.send(HEADER[:9])
    await eventually(lambda: len(proxied.manager.unauthenticated) == 1)
    client.send(HEADER[9:] + b"begin")
    link, address = await proxied.begun()
    assert address == ["203.0.113.7", 4711]
    event = await asyncio.wait_for(link.receive(), PATIENCE)
    assert event == {"type": "tcp.receive", "bytes": b"begin"}
    assert list(proxied.manager.unauthenticated._waiting) == [link]
    link.abort()


async def test_header_without_an_address_leaves_that_of_the_proxy(proxied):
    client = proxied.connect()
    client.send(LOCAL)
    link, address = await proxied.begun()
    assert tuple(address) == client.getsockname()
    link.abort()


async def test_peer_that_is_no_proxy_sends_no_header(proxied, imgo):
    imgo(TRUSTED_PROXIES=["192.0.2.1"])
    client = proxied.connect()
    client.send(HEADER)
    link, address = await proxied.begun()
    assert tuple(address) == client.getsockname()
    link.abort()


async def assert_closed(node: Node, client: socket.socket) -> None:
    """The node has closed the connection and forgotten it, and no link has begun."""
    await eventually(lambda: node.connections() == 0)
    assert await asyncio.get_running_loop().sock_recv(client, 1) == b""
    assert len(node.manager.unauthenticated) == 0
    assert node.links == []


async def test_connection_of_a_proxy_with_another_start_is_closed(proxied, caplog):
    before = metrics.CLOSES.labels("proxy_header")._value.get()
    client = proxied.connect()
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    await eventually(lambda: metrics.CLOSES.labels("proxy_header")._value.get() == before + 1)
    await assert_closed(proxied, client)
    assert "a connection of the proxy 127.0.0.1 was closed" in caplog.text


@pytest.mark.parametrize("is_reset", [False, True])
async def test_proxy_that_leaves_before_its_header_is_forgotten(proxied, is_reset):
    client = proxied.connect()
    client.send(HEADER[:9])
    await eventually(lambda: proxied.connections() == 1)
    if is_reset:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    await eventually(lambda: proxied.connections() == 0)
    assert len(proxied.manager.unauthenticated) == 0
    assert proxied.links == []


async def test_connection_whose_header_is_late_is_evicted(proxied):
    client = proxied.connect()
    await eventually(lambda: len(proxied.manager.unauthenticated) == 1)
    (expire,) = proxied.manager.requests._expiries
    expire()
    await assert_closed(proxied, client)
    assert not proxied.manager.requests._expiries
