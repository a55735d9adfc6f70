"""Consumer of Server-Sent Events: opens a session for a GET, and answers it with a stream.

Under a node the session then owns its socket, like that of a WebSocket. Under another ASGI server
the consumer stays, and writes through that server.
"""

from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any

from accounts.identity import Facts
from imgo_site.browser_requests import is_allowed_host
from imgo_site.conf import conf
from imgo_site.database_clock import DatabaseClock
from imgo_site.errors import BadRequest, Forbidden, ImgoError, NotAuthenticated, Unavailable
from push.api.raw_response import closing_bytes
from push.connect import handlers
from push.connect.consumers import Gone, SessionConsumer, request_facts
from push.connect.events_request import read_events_request
from push.connect.handshake import AuthRequest, Refusal, establish, ready_node
from push.connect.handshake_deadline import Expired, HandshakeDeadline
from push.connect.posted_frames import accept_frames
from push.events.cors import cors_headers, refusal_of
from push.events.paths import is_for_events
from push.events.responses import STREAM_HEADERS, error_of, refusing_response, stream_head
from push.session.event_link import EventLink
from push.session.outgoing import Kind
from push.session.replies import encode_reply
from push.session.socket_link import DIRECT_LINK
from push.status.instance import INSTANCE
from push.wire import CloseCode, Frame, Op, disconnect_body

TRANSPORT = Kind.EVENTS.transport
AUTH = Frame(1, Op.AUTH, 0)  # a request takes the place of this frame
OTHER_HOST = "This server does not answer to this host: see DJANGO_ALLOWED_HOSTS."


class EventsConsumer(SessionConsumer):
    """Consumer of one GET."""

    kind = Kind.EVENTS
    has_auth = True  # the request has all that identifies the client
    headers: Mapping[str, str] = MappingProxyType({})  # of every answer, for pages
    has_begun = False  # of a resident link: the head of the response was sent
    refusal: ImgoError | None = None  # of a resident link, until it is sent

    async def _serve_link(self) -> None:
        if DIRECT_LINK in self.scope:
            await super()._serve_link()
        else:
            with suppress(Gone):
                await self._serve_resident()

    async def _serve(self) -> None:
        try:
            with HandshakeDeadline(conf.HANDSHAKE_TIMEOUT, self._expire) as deadline:
                self.session = await self._open(deadline)
        except Expired:
            await self._until_gone()
        except (BadRequest, Forbidden, NotAuthenticated) as error:
            is_mistake = isinstance(error, BadRequest)
            code = CloseCode.BAD_FRAME if is_mistake else CloseCode.UNAUTHORIZED
            self._answer(error, code, error.message)
            await self._until_gone()
        except Refusal as refusal:
            self._answer(error_of(refusal), refusal.code, refusal.reason, refusal.key)
            await self._until_gone()
        else:
            if isinstance(self.link, EventLink):
                self.link.adopt(self.node, handlers, [])
                self.has_handed_over = True
            else:
                await self._until_gone()

    async def _open(self, deadline: HandshakeDeadline) -> Any:
        facts = self.facts(DatabaseClock())
        self.headers = cors_headers(facts.headers, facts.scheme)
        if why := refusal_of(facts.headers, facts.scheme):
            raise Forbidden(why)
        if not is_allowed_host(facts.headers):
            raise BadRequest(OTHER_HOST)
        body, events_request = read_events_request(self.scope["query_string"], facts.headers)
        self.node = await ready_node(self.scope[INSTANCE])  # type: ignore[literal-required]
        if isinstance(self.link, EventLink):
            self.link.head = stream_head(self.headers)
        accept_frames(self.node)
        facts = self.facts(self.node.clock)
        request = AuthRequest(AUTH, body, Kind.EVENTS, self.link, facts, events_request)
        return await establish(self.node, request, deadline)

    def _close_refused(self, code: CloseCode, reason: str = "", key: str = "") -> None:
        """Refuse the request because its deadline has passed."""
        self._answer(Unavailable("The session could not be opened in time."), code, reason, key)

    def _answer(self, error: ImgoError, code: CloseCode, reason: str, key: str = "") -> None:
        """Answer with an error; if the stream has begun, end it with op 6."""
        self._record_refusal(code, reason or code.reason, key)
        link = self.link
        if isinstance(link, EventLink) and not link.has_begun:
            link.refuse(closing_bytes(refusing_response(error, self.headers)))
            return
        if isinstance(link, EventLink) or self.has_begun:
            self._write(Op.DISCONNECT, 0, disconnect_body(code, reason))
        else:
            self.refusal = error
        link.close(code, reason or code.reason)

    def facts(self, clock: DatabaseClock) -> Facts:
        """Return the facts of the request: address, headers and scheme."""
        return request_facts(self.scope, TRANSPORT, clock)

    # Under another ASGI server

    async def _send_data(self, data: bytes) -> None:
        if not self.has_begun:
            self.has_begun = True
            await self._send_start(200, {**STREAM_HEADERS, **self.headers})
        await self.send_event({"type": "http.response.body", "body": data, "more_body": True})

    async def _send_close(self, code: int, reason: str) -> None:
        body = b""
        if self.has_begun and code == CloseCode.SLOW_READER:  # a session tells its client itself
            farewell = disconnect_body(code, reason)
            body = encode_reply(self.link, Kind.EVENTS, Op.DISCONNECT, 0, body=farewell)
        if not self.has_begun:
            self.has_begun = True
            response = refusing_response(self.refusal or Unavailable("Try again."), self.headers)
            body = response.content
            await self._send_start(response.status_code, dict(response.items()))
        await self.send_event({"type": "http.response.body", "body": body})

    async def _send_start(self, status: int, headers: dict[str, str]) -> None:
        lines = [(k.lower().encode("latin1"), v.encode("latin1")) for k, v in headers.items()]
        await self.send_event({"type": "http.response.start", "status": status, "headers": lines})


class EventsRouter:
    """Router of HTTP requests: those for a stream of events go to `events`, the rest to `http`."""

    def __init__(self, events: Any, http: Any) -> None:
        self._events = events
        self._http = http

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Serve a request."""
        is_events = is_for_events(scope["method"], scope["path"])
        await (self._events if is_events else self._http)(scope, receive, send)
