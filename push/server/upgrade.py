"""Connections between imgo and Daphne: given to Daphne, and taken over when they are sessions.

A connection that begins with anything but an upgrade request of the usual form goes to Daphne
(`push/server/http_listener.py`). Its HTTP protocol may then read an unusual upgrade request, or the
request for a stream of Server-Sent Events. The socket is then removed from the reactor, and neither
autobahn nor a second HTTP parser handles it.
"""

import logging
import socket
from typing import Any
from urllib.parse import unquote

from twisted.internet import reactor

from imgo_site.conf import conf
from push.events.paths import is_for_events
from push.server.http_listener import websocket_scope
from push.server.http_request import NodeRequest
from push.session.event_link import EventLink
from push.session.socket_link import DIRECT_LINK, SocketLink
from push.session.websocket_framing import answer_upgrade, refuse_upgrade
from push.session.websocket_link import WebSocketLink
from push.status.instance import INSTANCE, Instance

logger = logging.getLogger(__name__)

# Milliseconds until the kernel ends a connection whose client acknowledges no bytes. A client of
# Server-Sent Events sends nothing itself.
VANISHED_AFTER = 30_000


class DirectRequest(NodeRequest):
    """HTTP request of a node; that of a session becomes a direct link."""

    def process(self) -> Any:
        """Take over the socket of a session's complete request; serve any other request."""
        if not (self.is_upgrade or self._is_for_events) or self.unusable_header():
            return super().process()
        # Not at once: bytes that the client sent directly behind the request are still moving from
        # Twisted's line buffer to the channel's buffer. Bytes read until then go there, too.
        self.server.loop.call_soon(self._take_over)
        return None

    @property
    def _is_for_events(self) -> bool:
        path = unquote(self.uri.partition(b"?")[0].decode("latin1"))
        return is_for_events(self.method.decode("latin1"), path)

    def _take_over(self) -> None:
        transport, channel, server = self.transport, self.channel, self.server
        server.protocol_disconnected(self)
        if not transport.connected:
            return
        behind = b"".join(channel._dataBuffer)  # there is no other way to it
        channel.setTimeout(None)
        server.unauthenticated.leave(channel)
        sock, unsent = detach(transport)
        begin = self._begin_websocket if self.is_upgrade else self._begin_events
        begin(server, sock, unsent, behind)

    def _begin_events(self, server: Any, sock: socket.socket, unsent: bytes, _: bytes) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, VANISHED_AFTER)
        link = EventLink(server.manager, sock)
        scope = self.http_scope(self.method, self.uri)
        self._release()
        if unsent:  # of the response to a previous request
            link.write(unsent)
        server.run_link(link, scope)

    def _begin_websocket(
        self, server: Any, sock: socket.socket, unsent: bytes, behind: bytes
    ) -> None:
        link = WebSocketLink(server.manager, sock, b"")
        try:
            is_accepted, response = self._answer()
            scope = self._scope()
        except Exception:
            logger.exception("an upgrade request could not be answered")
            is_accepted, response, scope = False, refuse_upgrade(500, "Internal error.\n"), {}
        self._release()
        if unsent:
            link.write(unsent)
        if not is_accepted:
            link.refuse(response)
            return
        link.response = response
        server.run_link(link, scope)
        if behind:
            link.received(behind)

    def _release(self) -> None:
        """Free Twisted's objects, which refer to each other.

        Cleared, they are freed now instead of by the garbage collector. In a storm of connects that
        saves kilobytes for each session.
        """
        for part in (self.transport, self.channel, self):
            part.__dict__.clear()

    def _answer(self) -> tuple[bool, bytes]:
        return answer_upgrade(
            self.method.decode("latin1"),
            self.uri.decode("latin1"),
            self.clientproto.decode("latin1"),
            [
                (name.decode("latin1"), value.decode("latin1"))
                for name, values in self.requestHeaders.getAllRawHeaders()
                for value in values
            ],
        )

    def _scope(self) -> dict[str, Any]:
        return websocket_scope(self.http_scope(self.method, self.uri), self.uri)


def detach(transport: Any) -> tuple[socket.socket, bytes]:
    """Detach the socket of a Twisted connection from it and from the reactor.

    Return the socket, and the written bytes that the kernel has not accepted yet.
    """
    transport.stopReading()
    transport.stopWriting()
    transport.unregisterProducer()
    transport.connected = False  # it must not be read from, written to or closed any more
    transport.protocol = None
    unsent = b"".join([transport.dataBuffer[transport.offset :], *transport._tempDataBuffer])
    sock = socket.socket(fileno=transport.socket.detach())
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock, unsent


def http_ports() -> list[int]:
    """Return the ports for HTTP and WebSocket, each once."""
    return list(dict.fromkeys(port for port in (conf.WS_PORT, conf.HTTP_PORT) if port))


def serve_http(factory: Any, sock: socket.socket, accepted: float) -> None:
    """Give a connection, of which nothing was read, to Daphne's HTTP protocol.

    `accepted`: monotonic seconds. The reactor duplicates the descriptor.
    """
    with sock:
        try:
            sock.getpeername()  # raises if the client has gone; the reactor would raise it too late
            transport = reactor.adoptStreamConnection(sock.fileno(), sock.family, factory)
        except OSError as error:
            logger.debug("a connection could not be served: %s", error)
            return
    transport.protocol.count_from(accepted)


def scope_of(scope: dict[str, Any], link: SocketLink, instance: Instance) -> dict[str, Any]:
    """Return a scope for the ASGI application, with its direct link and the server's instance."""
    return {**scope, "asgi": {"version": "3.0"}, DIRECT_LINK: link, INSTANCE: instance}
