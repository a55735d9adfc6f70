"""The direct link of a TCP session."""

import socket
from typing import Any

from imgo_site.conf import conf
from push.session.link_manager import LinkManager
from push.session.socket_link import SocketLink
from push.wire import Decoder, Frame


class TcpLink(SocketLink):
    """Link over raw TCP, which carries consecutive frames."""

    __slots__ = ("decoder",)

    def __init__(self, manager: LinkManager, sock: socket.socket) -> None:
        super().__init__(manager, sock)
        self.decoder = Decoder(max(conf.MAX_AUTH_BODY, conf.MAX_CLIENT_BODY))
        assert self._inbox is not None
        self._inbox.put_nowait({"type": "tcp.connect"})

    def received(self, data: bytes) -> None:
        """Handle bytes from the client."""
        self._events_or_frames([{"type": "tcp.receive", "bytes": data}])

    def _decode(self, event: dict[str, Any]) -> list[Frame]:
        return self.decoder.feed(event["bytes"])

    async def send(self, event: dict[str, Any]) -> None:
        """Raise ValueError: a TCP consumer writes only through its session."""
        raise ValueError(f"unknown event type {event['type']!r}")
