"""Raw-TCP listener: accepts connections, and reads clients' addresses from trusted proxies."""

import logging
import socket
from collections.abc import Callable
from typing import Any

from imgo_site.addresses import is_proxy
from imgo_site.conf import conf
from push.metrics import definitions as metrics
from push.server.listener import Listener
from push.server.ports import plain_address
from push.session.link_manager import LinkManager
from push.session.socket_link import SocketLink
from push.session.tcp_link import TcpLink
from push.wire.proxy_protocol import ProxyError, parse_proxy_header

logger = logging.getLogger(__name__)

READ_MAX = 4_096  # bytes

RunLink = Callable[[SocketLink, dict[str, Any]], None]  # link and scope
Begin = Callable[[socket.socket, str, int, bytes], None]


def has_proxy_header(listener: str, peer: str) -> bool:
    """Return whether connections of a peer begin with a PROXY protocol header.

    `listener`: "tcp", "ws" or "http".
    """
    return listener in conf.PROXY_PROTOCOL and is_proxy(peer)


class ProxiedSocket:
    """Connection of a proxy whose PROXY protocol header is not complete yet."""

    def __init__(
        self, manager: LinkManager, sock: socket.socket, begin: Begin, peer: tuple[str, int]
    ):
        self._manager = manager
        self._socket = sock
        self._begin = begin
        self._peer = peer
        self._data = b""
        manager.poller.add(sock.fileno(), self._ready)
        manager.unauthenticated.enter(self)
        manager.requests.begin(self.evict)

    def _ready(self, events: int) -> None:  # noqa: ARG002
        try:
            data = self._socket.recv(READ_MAX)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._data += data
        if not data:
            self.evict()
            return
        try:
            header = parse_proxy_header(self._data)
        except ProxyError as error:
            metrics.CLOSES.labels("proxy_header").inc()
            logger.warning("a connection of the proxy %s was closed: %s", self._peer[0], error)
            self.evict()
            return
        if header is not None:
            self._forget()
            rest = self._data[header.size :]
            if header.address:
                self._begin(self._socket, plain_address(header.address), header.port, rest)
            else:
                self._begin(self._socket, *self._peer, rest)

    def _forget(self) -> None:
        self._manager.requests.cancel(self.evict)
        self._manager.unauthenticated.leave(self)
        self._manager.poller.remove(self._socket.fileno())

    def evict(self) -> None:
        """Close at once."""
        self._forget()
        self._socket.close()


class TcpListener(Listener):
    """Listener for raw TCP connections. Raises `OSError` if it cannot listen.

    `has_room()`: returns whether one more connection may be accepted.
    `run_link(link, scope)`: serves a new connection, given its link and its ASGI scope.
    """

    def __init__(
        self, manager: LinkManager, has_room: Callable[[], bool], run_link: RunLink
    ) -> None:
        self._run_link = run_link
        super().__init__(manager, has_room, conf.TCP_PORT)

    def accepted(self, sock: socket.socket, host: str, port: int) -> None:
        """Serve a client, or read the header of a trusted proxy first."""
        if has_proxy_header("tcp", host):
            ProxiedSocket(self._manager, sock, self._begin, (host, port))
        else:
            self._begin(sock, host, port)

    def _begin(self, sock: socket.socket, host: str, port: int, data: bytes = b"") -> None:
        """Serve a client. `data`: bytes that it has sent already."""
        scope: dict[str, Any] = {
            "type": "tcp",
            "client": [host, port],
            "server": [conf.HOST, conf.TCP_PORT],
        }
        link = TcpLink(self._manager, sock)
        self._run_link(link, scope)
        if data:
            link.received(data)
