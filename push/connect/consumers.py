"""WebSocket and TCP consumers: the steps that happen once per session, or rarely.

A consumer reads frames, lets `handshake.establish` open the session, and passes each later frame
to the handler of its op (`push/connect/handlers.py`).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from channels.consumer import AsyncConsumer

from accounts.auth_body import AuthBody, parse_auth_body
from accounts.identity import Facts
from imgo_site.addresses import HEADER, client_address
from imgo_site.browser_requests import client_scheme
from imgo_site.conf import conf
from imgo_site.database_clock import DatabaseClock
from push.connect import handlers
from push.connect.handshake import AuthRequest, Refusal, establish, ready_node
from push.connect.handshake_deadline import Expired, HandshakeDeadline
from push.node.node import Node
from push.session.outgoing import Kind
from push.session.paced_link import PacedLink
from push.session.read_pace import TimedPace, weigh
from push.session.replies import encode_reply
from push.session.resident_link import ResidentLink
from push.session.session import Link, Session
from push.session.session_log import clean, log_refusal
from push.session.session_records import SessionEvent
from push.session.socket_link import DIRECT_LINK, SocketLink
from push.session.tcp_link import TcpLink
from push.status.instance import INSTANCE
from push.wire import (
    CloseCode,
    Frame,
    FrameError,
    Op,
    decode_binary,
    decode_text,
    disconnect_body,
)

logger = logging.getLogger(__name__)

SECURE = frozenset({"wss", "https"})  # schemes of a scope
ACCEPTS_MAX = 1_000  # ops that a session may name

Event = dict[str, Any]


class Gone(Exception):
    """The client has disconnected."""


def request_facts(scope: Any, transport: str, clock: DatabaseClock) -> Facts:
    """Return the facts of an HTTP request or an upgrade: address, headers and scheme."""
    client = scope.get("client") or ("", 0)
    pairs = [
        (raw.decode("latin1").lower(), text.decode("latin1")) for raw, text in scope["headers"]
    ]
    headers = dict(pairs)
    if len(headers) < len(pairs) and HEADER in headers:  # it came in several parts
        headers[HEADER] = ",".join(text for name, text in pairs if name == HEADER)
    address = client_address(client[0], headers.get(HEADER, ""))
    scheme = client_scheme(scope.get("scheme") in SECURE, client[0] or "", headers)
    return Facts(transport, address, headers, clock, scheme)


class SessionConsumer(AsyncConsumer):
    """Base of the two transports' consumers. A subclass defines how frames and bytes travel."""

    # Messages reach sessions through the hub; a consumer needs no channel of its own.
    channel_layer_alias = None  # type: ignore[assignment]

    kind: Kind | None = None
    session: Session | None = None
    node: Node
    bad: FrameError | None = None
    has_auth = False  # the auth frame has arrived
    has_handed_over = False
    pace: TimedPace
    link: ResidentLink | SocketLink

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection from its first event to its last."""
        self.scope = scope
        self.receive_event: Callable[[], Awaitable[Event]] = receive
        self.send_event: Callable[[Event], Awaitable[None]] = send
        self.pace = TimedPace()
        try:
            await self._serve_link()
        except Gone:
            pass
        except OSError as error:
            # ASGI servers raise it when they send to a client that has disconnected.
            logger.debug("the client has gone: %s", error)
        finally:
            if self.session is not None and not self.has_handed_over:
                await self.node.dismiss(self.session)

    async def _serve_link(self) -> None:
        """Serve a direct link: a socket that this process owns."""
        self.link = self.scope[DIRECT_LINK]  # type: ignore[literal-required]  # ours
        await self._serve()

    async def _serve_resident(self) -> None:
        """Serve a connection that stays with its ASGI server."""
        link = self.link = ResidentLink(
            self._send_data, self._send_close, conf.SESSION_BYTES, conf.SLOW_READER_TIMEOUT
        )
        writer = asyncio.get_running_loop().create_task(link.run())
        try:
            await self._serve()
        finally:
            writer.cancel()
            (outcome,) = await asyncio.gather(writer, return_exceptions=True)
            if isinstance(outcome, Exception) and not isinstance(outcome, OSError):
                logger.error("a session's writer failed", exc_info=outcome)

    async def _send_data(self, data: bytes) -> None:
        """Send the bytes of one write through the ASGI server."""
        raise NotImplementedError

    async def _send_close(self, code: int, reason: str) -> None:
        """End the connection through the ASGI server."""
        raise NotImplementedError

    async def _serve(self) -> None:
        await self.connect()
        try:
            with HandshakeDeadline(conf.HANDSHAKE_TIMEOUT, self._expire) as deadline:
                auth, *behind = await self._frames_from_auth()
                self.has_auth = True
                self.authenticated()
                self.node = await ready_node(self.scope[INSTANCE])  # type: ignore[literal-required]  # ours
                assert self.kind is not None
                body = parse_auth_body(auth.body)
                link, facts = self.link_for(body), self.facts(self.node.clock)
                request = AuthRequest(auth, body, self.kind, link, facts)
                self.session = await establish(self.node, request, deadline)
        except Expired:
            await self._until_gone()
        except FrameError as error:
            await self._refuse(error.code, error.message)
        except Refusal as refusal:
            await self._refuse(refusal.code, refusal.reason, refusal.key)
        else:
            if isinstance(self.link, SocketLink) and self.bad is None:
                self.link.adopt(self.node, handlers, behind)
                self.has_handed_over = True
            else:
                await self._serve_session(self.session, behind)

    async def _serve_session(self, session: Session, frames: list[Frame]) -> None:
        """Handle frames until the client has disconnected."""
        while True:
            for frame in frames:
                if not session.is_closed or frame.op == Op.ACK:
                    await handlers.handle(self.node, session, frame)
            if self.bad is not None:
                session.disconnect(self.bad.code, self.bad.message)
            frames = await self.frames()

    async def frames(self) -> list[Frame]:
        """Return the valid frames of the next event; keep the error of an invalid one in `bad`.

        Wait first if the client has sent frames too fast.
        """
        await self.pace.wait()
        try:
            frames = await self.next_frames()
        except FrameError as error:
            self.bad = error
            frames = list(error.frames)
        self.pace.spend(*weigh(frames))
        return frames

    async def _frames_from_auth(self) -> list[Frame]:
        """Return the auth frame and the frames that arrived with it.

        Raises `Refusal` if another frame comes first; `FrameError` for an invalid frame.
        """
        while True:
            frames = await self.frames()
            for place, frame in enumerate(frames):
                if frame.op == Op.AUTH:
                    return frames[place:]
                if frame.op != Op.HANDSHAKE:
                    code = CloseCode.NOT_AUTHENTICATED
                    raise Refusal(code, code.reason)
                self._write(Op.HANDSHAKE_REPLY, frame.seq, ver=frame.ver)
            if self.bad is not None:
                raise self.bad

    def _expire(self) -> None:
        """Close the connection because the handshake's deadline has passed."""
        code = CloseCode.UNAVAILABLE if self.has_auth else CloseCode.HANDSHAKE_TIMEOUT
        if self.has_auth:
            logger.warning("a session could not be opened within HANDSHAKE_TIMEOUT")
        if (session := self.link.session) is not None:
            session.is_closed, session.close_code = True, code
        self._close_refused(code, key=session.key if session is not None else "")

    async def _refuse(self, code: CloseCode, reason: str = "", key: str = "") -> None:
        """Close without a session, and wait until the client has disconnected."""
        self._close_refused(code, reason, key)
        await self._until_gone()

    def _close_refused(self, code: CloseCode, reason: str = "", key: str = "") -> None:
        """Record a refusal, send op 6 (DISCONNECT) if frames are binary, and close with the code.

        `reason`: "" for the code's own.
        `key`: the client's; "" if it has not been verified.
        """
        self._record_refusal(code, reason or code.reason, key)
        if self.kind in (Kind.TCP, Kind.BINARY):
            self._write(Op.DISCONNECT, 0, disconnect_body(code, reason))
        self.link.close(code, reason or code.reason)

    def _record_refusal(self, code: CloseCode, reason: str, key: str) -> None:
        node = getattr(self, "node", None)  # none before the first auth frame
        facts = self.facts(DatabaseClock())
        event = SessionEvent(
            0.0, "", facts.transport, facts.address, code=int(code), reason=clean(reason)
        )
        if node is not None and key:
            node.session_log.refused(key, event)
        log_refusal(key, event)

    async def _until_gone(self) -> None:
        """Drop all further events until `Gone` is raised."""
        while True:
            await self.next_event()

    def _write(self, op: Op, seq: int, body: bytes = b"", ver: int = 1) -> None:
        """Send a frame without a session."""
        assert self.kind is not None
        self.link.write(encode_reply(self.link, self.kind, op, seq, body=body, ver=ver))

    # Methods that a transport may override

    async def connect(self) -> None:
        """Accept the connection."""
        raise NotImplementedError

    async def next_event(self) -> Event:
        """Return the next event of the ASGI server. Raises `Gone` if it is the last."""
        event = await self.receive_event()
        if event["type"].endswith(".disconnect"):
            raise Gone
        return event

    async def next_frames(self) -> list[Frame]:
        """Return the frames of the next event. Raises `Gone` or `FrameError`."""
        raise NotImplementedError

    @property
    def max_body(self) -> int:
        """Return the limit of the next frame's body, bytes; that of op 7 is never lower."""
        first = 0 if self.has_auth else conf.MAX_AUTH_BODY
        return max(first, conf.MAX_CLIENT_BODY)

    def authenticated(self) -> None:
        """Limit further frames, now that the auth frame has arrived."""

    def link_for(self, body: AuthBody) -> Link:  # noqa: ARG002 - for TCP
        """Return the link for a session with this auth body."""
        return self.link

    def facts(self, clock: DatabaseClock) -> Facts:
        """Return the facts of the connection, for its authentication."""
        client = self.scope.get("client") or ("", 0)
        return Facts(transport="tcp", address=client[0], clock=clock)


class WebSocketConsumer(SessionConsumer):
    """Consumer of WebSockets. The kind of the first message, text or binary, is the session's."""

    async def _serve_link(self) -> None:
        """Serve a direct link; under another ASGI server, a `ResidentLink` with a writer task."""
        if DIRECT_LINK in self.scope:
            await super()._serve_link()
        else:
            await self._serve_resident()

    async def connect(self) -> None:
        """Accept the upgrade; the auth frame will identify the client."""
        await self.next_event()
        await self.send_event({"type": "websocket.accept"})

    async def next_frames(self) -> list[Frame]:
        """Return the frame of a text message, or the frames of a binary one."""
        event = await self.next_event()
        text = event.get("text")
        if self.kind is None:
            self.kind = Kind.BINARY if text is None else Kind.TEXT
        if text is None:
            return decode_binary(event.get("bytes") or b"", self.max_body, conf.MAX_AUTH_BODY)
        return [decode_text(text, self.max_body, conf.MAX_AUTH_BODY)]

    async def _send_data(self, data: bytes) -> None:
        """Send one WebSocket message."""
        if self.kind is Kind.TEXT:
            await self.send_event({"type": "websocket.send", "text": data.decode()})
        else:
            await self.send_event({"type": "websocket.send", "bytes": data})

    async def _send_close(self, code: int, reason: str) -> None:
        """Send a close frame. The reason is cut to the length that a close frame can carry."""
        reason = reason.encode()[:120].decode(errors="ignore")
        await self.send_event({"type": "websocket.close", "code": int(code), "reason": reason})

    def facts(self, clock: DatabaseClock) -> Facts:
        """Return the facts of the upgrade request: address, headers and scheme."""
        return request_facts(self.scope, "websocket", clock)


class TcpConsumer(SessionConsumer):
    """Consumer of raw TCP: the `tcp` scope of imgo's Daphne server."""

    kind = Kind.TCP

    async def connect(self) -> None:
        """Get the decoder; the connection is accepted already."""
        # The link's decoder, so that half a frame is kept when the link takes over.
        assert isinstance(self.link, TcpLink)
        self.decoder = self.link.decoder
        await self.next_event()

    async def next_frames(self) -> list[Frame]:
        """Return the frames that the next bytes complete."""
        event = await self.next_event()
        return self.decoder.feed(event["bytes"])

    def authenticated(self) -> None:
        """Limit further frames, now that the auth frame has arrived."""
        self.decoder.limit(conf.MAX_CLIENT_BODY, conf.MAX_AUTH_BODY)

    def link_for(self, body: AuthBody) -> Link:
        """Return a paced link for imgo's clients, which authenticate with a bare token."""
        assert isinstance(self.link, TcpLink)
        if conf.TCP_FRAME_GAP and body.is_bare:
            return PacedLink(self.link, self.node.pacer)
        return self.link
