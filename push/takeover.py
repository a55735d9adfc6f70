"""Where sockets leave Daphne and asyncio: upgrade requests, and accepted TCP connections.

Daphne's HTTP protocol reads an upgrade request; then its socket is taken off the reactor, so that
neither autobahn nor a second HTTP parser sees it. Raw TCP connections are accepted here at once.
"""

import logging
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from daphne.http_protocol import WebRequest
from twisted.internet import reactor, tcp

from imgo_site.conf import conf
from push.poller import READ
from push.processes import listen
from push.sockets import DIRECT_LINK, Care, SocketLink, TcpLink, WebSocketLink
from push.websocket import answer_upgrade

if TYPE_CHECKING:
    from push.door import ImgoServer

logger = logging.getLogger(__name__)

ACCEPTS = 64  # connections accepted before the event loop gets a turn
ACCEPT_PAUSE = 1.0  # seconds to wait when the process is out of file descriptors


class DirectRequest(WebRequest):  # type: ignore[misc]  # Daphne has no types
    """Daphne's HTTP request, except that an upgrade of a plain socket becomes a direct link."""

    def process(self) -> Any:
        """All of the request is there."""
        upgrade = self.requestHeaders.getRawHeaders(b"upgrade") or [b""]
        plain = type(self.transport) is tcp.Server and not self.transport.TLS
        if upgrade[0].lower() != b"websocket" or not plain:
            return super().process()
        # Not at once: what the client sent right behind the request is still on its way from
        # Twisted's line buffer to the channel's, where anything read until then goes as well.
        self.server.loop.call_soon(self._take_over)
        return None

    def _take_over(self) -> None:
        transport, channel = self.transport, self.channel
        self.server.protocol_disconnected(self)
        if not transport.connected:
            return
        behind = b"".join(channel._dataBuffer)  # there is no other way to it
        sock = detach(transport)
        channel.setTimeout(None)
        headers = [
            (name.lower(), value)
            for name, values in self.requestHeaders.getAllRawHeaders()
            for value in values
        ]
        is_accepted, response = answer_upgrade(
            self.method.decode("latin1"),
            self.uri.decode("latin1"),
            self.clientproto.decode("latin1"),
            [(name.decode("latin1"), value.decode("latin1")) for name, value in headers],
        )
        path, _, query = self.uri.partition(b"?")
        scope = {
            "type": "websocket",
            "path": unquote(path.decode("latin1")) if b"%" in path else path.decode("latin1"),
            "raw_path": path,
            "root_path": "",
            "query_string": query,
            "headers": headers,
            "client": [self.client.host, self.client.port],
            "server": [self.host.host, self.host.port],
            "subprotocols": [],
        }
        server = self.server
        # Twisted's objects hold each other: taken apart they go now, and not when the garbage
        # collector comes by, which would be kilobytes for each session of a storm.
        for part in (transport, channel, self):
            part.__dict__.clear()
        link = WebSocketLink(server.care, sock, response)
        if not is_accepted:
            link.refuse(response)
            return
        server.run_link(link, scope)
        if behind:
            link.received(behind)


def detach(transport: Any) -> socket.socket:
    """Take the socket of a Twisted connection away from it and from the reactor."""
    transport.stopReading()
    transport.stopWriting()
    transport.unregisterProducer()
    transport.connected = False  # it must not be read from, written to or closed any more
    transport.protocol = None
    sock = socket.socket(fileno=transport.socket.detach())
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def http_ports() -> list[int]:
    """Where HTTP and WebSocket are listened for, each port once."""
    return list(dict.fromkeys(port for port in (conf.WS_PORT, conf.HTTP_PORT) if port))


def listen_shared(factory: Any) -> Iterator[Any]:
    """Listen for HTTP and WebSocket on ports that other nodes listen on too. Raises OSError."""
    for number in http_ports():
        with listen(number, shared=True) as sock:
            sock.setblocking(False)
            # It takes a copy of the descriptor.
            yield reactor.adoptStreamPort(sock.fileno(), sock.family, factory)


class TcpListener:
    """Accepts raw TCP connections. Raises OSError when it cannot listen."""

    def __init__(self, server: "ImgoServer", care: Care) -> None:
        self._server = server
        self._care = care
        self._socket = listen(conf.TCP_PORT, shared=conf.REUSE_PORT)
        self._socket.setblocking(False)
        care.poller.add(self._socket.fileno(), self._accept)

    def _accept(self, events: int) -> None:  # noqa: ARG002
        for _ in range(ACCEPTS):
            try:
                sock, address = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                # Out of file descriptors, most likely. What waits in the backlog keeps waiting.
                logger.error("connections cannot be accepted: %s", error)
                self._care.poller.watch(self._socket.fileno(), 0)
                self._care.loop.call_later(ACCEPT_PAUSE, self._resume)
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            scope = {
                "type": "tcp",
                "client": list(address[:2]),
                "server": [conf.HOST, conf.TCP_PORT],
            }
            self._server.run_link(TcpLink(self._care, sock), scope)

    def _resume(self) -> None:
        if self._socket.fileno() != -1:
            self._care.poller.watch(self._socket.fileno(), READ)

    def close(self) -> None:
        """Accept no more."""
        self._care.poller.remove(self._socket.fileno())
        self._socket.close()


def scope_of(scope: dict[str, Any], link: SocketLink) -> dict[str, Any]:
    """A scope for the ASGI application, with its direct link."""
    return {**scope, "asgi": {"version": "3.0"}, DIRECT_LINK: link}
