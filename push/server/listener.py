"""Listener on one port: accepts connections on every address of HOST while there is room."""

import logging
import socket
from collections.abc import Callable

from imgo_site.conf import conf
from push.server.ports import listen, plain_address
from push.session.link_manager import LinkManager
from push.session.poller import READ

logger = logging.getLogger(__name__)

ACCEPTS = 64  # connections accepted before the event loop gets a turn
ROOM_PAUSE = 0.05  # seconds until the next check whether there is room for one more connection
ACCEPT_PAUSE = 1.0  # seconds to wait when the process is out of file descriptors


class Listener:
    """Listener on one port. Raises `OSError` if it cannot listen.

    `has_room()`: returns whether one more connection may be accepted.
    """

    def __init__(self, manager: LinkManager, has_room: Callable[[], bool], port: int) -> None:
        self.port = port
        self._manager = manager
        self._has_room = has_room
        self._sockets = listen(port, shared=conf.REUSE_PORT)
        self.hosts = [str(sock.getsockname()[0]) for sock in self._sockets]
        for sock in self._sockets:
            manager.poller.add(sock.fileno(), lambda _, sock=sock: self._accept(sock))  # type: ignore[misc]

    def accepted(self, sock: socket.socket, host: str, port: int) -> None:
        """Serve a new connection. `host`, `port`: the peer's."""
        raise NotImplementedError

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS):
            if not self._has_room():
                self._pause(listener, ROOM_PAUSE)
                return
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                # Most likely out of file descriptors. Connections wait in the backlog meanwhile.
                logger.error("connections cannot be accepted: %s", error)
                self._pause(listener, ACCEPT_PAUSE)
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.accepted(sock, plain_address(address[0]), address[1])

    def _pause(self, listener: socket.socket, seconds: float) -> None:
        self._manager.poller.watch(listener.fileno(), 0)
        self._manager.loop.call_later(seconds, self._resume, listener)

    def _resume(self, listener: socket.socket) -> None:
        if listener.fileno() != -1:
            self._manager.poller.watch(listener.fileno(), READ)

    def close(self) -> None:
        """Stop accepting connections."""
        for sock in self._sockets:
            self._manager.poller.remove(sock.fileno())
            sock.close()
