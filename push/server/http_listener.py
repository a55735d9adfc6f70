"""Listener for HTTP and WebSocket: WebSockets are served at once, all else goes to Daphne."""

import socket
import time
from collections.abc import Callable
from typing import Any

from imgo_site.conf import conf
from push.server.early_upgrade import UpgradeRequest, read_upgrade
from push.server.http_request import request_scope
from push.server.listener import Listener
from push.server.tcp_listener import RunLink, has_proxy_header
from push.session.link_manager import LinkManager
from push.session.websocket_framing import accepting
from push.session.websocket_link import WebSocketLink

REQUEST_MAX = 8_192  # bytes of an upgrade request that is read here

# Serves a connection of which nothing was read: its socket, and when it was accepted, in monotonic
# seconds.
ServeHttp = Callable[[socket.socket, float], None]


class HttpListener(Listener):
    """Listener for HTTP and WebSocket. Raises `OSError` if it cannot listen.

    `has_room()`: returns whether one more connection may be accepted.
    `run_link(link, scope)`: serves a new WebSocket, given its link and its ASGI scope.
    `serve_http(sock, accepted)`: serves any other connection, of which nothing was read.
    """

    def __init__(
        self,
        manager: LinkManager,
        has_room: Callable[[], bool],
        port: int,
        run_link: RunLink,
        serve_http: ServeHttp,
    ) -> None:
        self._run_link = run_link
        self._serve_http = serve_http
        self._name = "ws" if port == conf.WS_PORT else "http"
        super().__init__(manager, has_room, port)

    def accepted(self, sock: socket.socket, host: str, port: int) -> None:
        """Wait for the first bytes; leave a proxy's header to Daphne's channel."""
        if has_proxy_header(self._name, host):
            self._serve_http(sock, time.monotonic())
        else:
            UnreadConnection(self._manager, sock, (host, port), self)

    def received(self, connection: "UnreadConnection", data: bytes) -> None:
        """Serve a connection by its first bytes, which the kernel still has."""
        request = read_upgrade(data)
        if request is None:
            connection.release()
            self._serve_http(connection.socket, connection.accepted)
            return
        connection.leave()
        connection.socket.recv(len(data))
        response = accepting(request.key)
        link = WebSocketLink(self._manager, connection.socket, response, is_watched=True)
        self._run_link(link, self._scope(request, connection.peer))

    def _scope(self, request: UpgradeRequest, peer: tuple[str, int]) -> dict[str, Any]:
        scope = request_scope(
            "GET",
            request.target,
            request.headers,
            client=[*peer],
            server=[conf.HOST, self.port],
            scheme="ws",
        )
        return websocket_scope(scope, request.target)


def websocket_scope(scope: dict[str, Any], target: bytes) -> dict[str, Any]:
    """Return the scope of a WebSocket from that of its upgrade request."""
    return {
        **scope,
        "type": "websocket",
        "scheme": "ws",
        "raw_path": target.partition(b"?")[0],
        "root_path": "",
        "subprotocols": [],
    }


class UnreadConnection:
    """Accepted connection of which nothing has been read.

    `peer`: the client's address.
    `accepted`: monotonic seconds.
    """

    __slots__ = ("_listener", "_manager", "accepted", "peer", "socket")

    def __init__(
        self,
        manager: LinkManager,
        sock: socket.socket,
        peer: tuple[str, int],
        listener: HttpListener,
    ) -> None:
        self.socket = sock
        self.peer = peer
        self.accepted = time.monotonic()
        self._manager = manager
        self._listener = listener
        manager.poller.add(sock.fileno(), self._ready)
        manager.unauthenticated.enter(self)
        manager.requests.begin(self.evict)

    def _ready(self, events: int) -> None:  # noqa: ARG002
        try:
            data = self.socket.recv(REQUEST_MAX, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._listener.received(self, data)
        else:
            self.evict()

    def leave(self) -> None:
        """Stop waiting. The poller still watches the socket, for its next owner."""
        self._manager.requests.cancel(self.evict)
        self._manager.unauthenticated.leave(self)

    def release(self) -> None:
        """Stop waiting, and stop watching the socket."""
        self.leave()
        self._manager.poller.remove(self.socket.fileno())

    def evict(self) -> None:
        """Close at once."""
        self.release()
        self.socket.close()
