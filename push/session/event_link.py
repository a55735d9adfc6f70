"""The direct link of a session of Server-Sent Events: the body of one endless HTTP response."""

import socket
from typing import Any

from push.session.link_manager import LinkManager
from push.session.outgoing import Kind
from push.session.replies import encode_reply
from push.session.socket_link import PAUSE_RATE, SocketLink
from push.wire import Op, disconnect_body


class EventLink(SocketLink):
    """Link over the response to a GET. The end of the connection is the end of the response.

    `head`: the head of the response, which goes before the first bytes that are written after it
    was set. `has_begun`: whether it was written. Until then the request can be refused.
    """

    __slots__ = ("has_begun", "head")

    def __init__(self, manager: LinkManager, sock: socket.socket) -> None:
        super().__init__(manager, sock)
        self.head = b""
        self.has_begun = False
        manager.unauthenticated.serve(self)  # its client has sent all that is needed

    def write(self, data: bytes, receipt: int = 0) -> None:
        """Send `data` to the kernel, behind the head of the response."""
        if self.head:
            data, self.head, self.has_begun = self.head + data, b"", True
        super().write(data, receipt)

    def refuse(self, response: bytes) -> None:
        """Send another response instead of a stream, then close."""
        self.head = b""
        self.write(response)
        self._close_soon()

    def _write_closing(self, code: int, reason: str) -> None:
        """Tell a slow reader why the stream ends; a session tells its client itself."""
        if self._is_giving_up:
            body = disconnect_body(code, reason)
            self.write(encode_reply(self, Kind.EVENTS, Op.DISCONNECT, 0, body=body))

    def received(self, data: bytes) -> None:  # noqa: ARG002
        """Drop bytes behind the request: nothing can be answered on this connection any more."""
        if self._is_open and self._manager.spend(self, 1):
            self._pause(PAUSE_RATE)

    async def send(self, event: dict[str, Any]) -> None:
        """Raise ValueError: a consumer of events writes only through its link."""
        raise ValueError(f"unknown event type {event['type']!r}")
