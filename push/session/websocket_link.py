"""The direct link of a WebSocket session."""

import socket
from typing import Any

from imgo_site.conf import conf
from push.session.link_manager import LinkManager
from push.session.socket_link import PAUSE_RATE, PAUSE_UPGRADE, Gone, SocketLink
from push.session.websocket_framing import Framing, packet, refuse_upgrade
from push.wire import Frame, decode_binary, decode_text


class WebSocketLink(SocketLink):
    """Link over WebSocket. A message carries one frame, or several binary frames."""

    __slots__ = ("_early", "_framing", "response")

    wraps = True

    def __init__(
        self,
        manager: LinkManager,
        sock: socket.socket,
        response: bytes,
        *,
        is_watched: bool = False,
    ) -> None:
        super().__init__(manager, sock, is_watched=is_watched)
        self._framing: Framing | None = None
        self._early = b""  # bytes received before the response was sent
        self.response = response  # to the upgrade request; b"" after it was sent
        assert self._inbox is not None
        self._inbox.put_nowait({"type": "websocket.connect"})

    @staticmethod
    def wrap(payload: bytes, is_text: bool) -> bytes:
        """Return one WebSocket message."""
        return packet(payload, is_text)

    def received(self, data: bytes) -> None:
        """Handle bytes from the client, including those of the closing handshake.

        Bytes before the upgrade's response are kept: a reply to a frame must not precede it.
        """
        if self.response:
            if self._is_open:
                self._early += data
                self._pause(PAUSE_UPGRADE)
            return
        framing = self._framing or self._manager.framings.take()
        messages = framing.feed(data)
        out = framing.out()
        if framing.parts and self._manager.spend(self, framing.parts):
            self._pause(PAUSE_RATE)
        if framing.is_idle:
            self._manager.framings.give_back(framing)
            self._framing = None
        else:
            self._framing = framing
        if out and framing.is_open:  # pongs; their pings may have arrived inside of a message
            self.write(out)
            out = b""
        if messages:
            self._events_or_frames([_event(message) for message in messages])
        if out:
            self.write(out)  # does nothing after our own close frame, which was an answer already
        if framing.is_done and self not in self._manager.closing and self._socket.fileno() != -1:
            # The peer's end of the stream, or the timeout, closes the socket. Closing it while
            # the peer is still sending would reset the connection and lose our close frame.
            self._close_soon()

    def refuse(self, response: bytes) -> None:
        """Send the response to an upgrade request that cannot be accepted, then close."""
        self._inbox = None
        self.response = response
        self.write(response)
        self._close_soon()

    def _write_closing(self, code: int, reason: str) -> None:
        framing = self._framing = self._framing or self._manager.framings.take()
        if self.response:
            self.write(refuse_upgrade(403, f"{reason}\n"))
        else:
            framing.close(code, reason)
            if out := framing.out():
                self.write(out)

    def _decode(self, event: dict[str, Any]) -> list[Frame]:
        text = event.get("text")
        if text is None:
            return decode_binary(event["bytes"], conf.MAX_CLIENT_BODY, conf.MAX_AUTH_BODY)
        return [decode_text(text, conf.MAX_CLIENT_BODY, conf.MAX_AUTH_BODY)]

    async def send(self, event: dict[str, Any]) -> None:
        """Accept or close the connection: the ASGI application's `send`. Raises `Gone`."""
        if self._socket.fileno() == -1:
            raise Gone("the client disconnected")
        if event["type"] == "websocket.accept":
            response, self.response = self.response, b""
            early, self._early = self._early, b""
            self.write(response)
            self._resume(PAUSE_UPGRADE)
            if early:
                self.received(early)
        elif event["type"] == "websocket.close":
            self.close(event.get("code", 1000), event.get("reason") or "")
        else:
            raise ValueError(f"unknown event type {event['type']!r}")


def _event(message: str | bytes) -> dict[str, Any]:
    kind = "text" if isinstance(message, str) else "bytes"
    return {"type": "websocket.receive", kind: message}
