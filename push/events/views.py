"""Views for clients of Server-Sent Events: their frames by POST, and CORS preflights.

Any process serves them. The stream itself is no view, because a session owns its socket: see
`push/events/consumer.py`.
"""

from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.db import Error as DatabaseError
from django.db.transaction import non_atomic_requests
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt

from accounts.auth_body import AuthBody
from accounts.identity import Facts
from imgo_site.browser_requests import client_scheme
from imgo_site.conf import conf
from imgo_site.database_clock import DatabaseClock
from imgo_site.errors import BadRequest, Forbidden, ImgoError, NotFound, TooLarge, Unavailable
from push.api.problems import as_imgo_error
from push.bus.envelope import frame_envelope
from push.bus.group_names import node_group
from push.bus.publish import publish
from push.connect.events_request import token_of_query
from push.connect.handlers import HANDLERS
from push.events.consumer import TRANSPORT
from push.events.cors import PREFLIGHT_HEADERS, cors_headers, is_allowed, refusal_of
from push.events.responses import refusing_response
from push.events.verification import key_of_client
from push.node.node import STOPPING
from push.node.node_instance import NodeInstance
from push.registry.base import Entry
from push.registry.select import get_registry
from push.status.instance import Instance, instance_of
from push.wire import CloseCode, Frame, FrameError, decode_text

LAYER_TIMEOUT = 1.5  # seconds that a client waits for the channel layer
NO_NODE = "The node of this session receives nothing now: send the frame again."
NO_SESSION = "There is no such session of this client: open a stream again."


class Misdirected(ImgoError):
    """Error of a request that only another process can serve."""

    code = "misdirected"
    status = 421


@method_decorator([login_not_required, csrf_exempt, non_atomic_requests], name="dispatch")
class ClientView(View):
    """Base of the views for clients: problem details, and access for pages by `CORS_ORIGINS`."""

    facts: Facts

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Answer a request; add the headers for its page to any answer."""
        self.facts = facts_of(request)
        headers = cors_headers(self.facts.headers, self.facts.scheme)
        try:
            if why := refusal_of(self.facts.headers, self.facts.scheme):
                raise Forbidden(why)
            response = super().dispatch(request, *args, **kwargs)
        except Exception as error:
            imgo_error = as_imgo_error(error)
            if imgo_error is None:
                raise
            return refusing_response(imgo_error, headers)
        for name, value in headers.items():
            response[name] = value
        return response  # type: ignore[return-value]

    def http_method_not_allowed(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        """Refuse a method with 405 and `Allow`, in the format of all errors."""
        allowed = [name.upper() for name in ("get", "post", "options") if hasattr(self, name)]
        error = BadRequest(f"The method {request.method} is not allowed here.")
        error.status, error.code = 405, "method_not_allowed"
        response = refusing_response(error, {})
        response["Allow"] = HttpResponseNotAllowed(allowed)["Allow"]
        return response

    def options(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:  # noqa: ARG002
        """Answer a CORS preflight. Raises `Forbidden` if the origin has no access."""
        if not is_allowed(self.facts.headers, self.facts.scheme):
            origin = self.facts.headers["origin"][:200]
            raise Forbidden(f"Pages of {origin!r} have no access: add it to CORS_ORIGINS.")
        response = HttpResponse(status=204)
        for name, value in PREFLIGHT_HEADERS.items():
            response[name] = value
        return response


class StreamView(ClientView):
    """The path of a stream, where no stream can be served."""

    def setup(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        """Prepare a request; HEAD is no method of a stream, which has no end."""
        super().setup(request, *args, **kwargs)
        vars(self).pop("head", None)  # Django's copy of `get`

    def get(self, request: HttpRequest) -> HttpResponse:  # noqa: ARG002
        """Answer 421: a node serves streams, and this process has none."""
        raise Misdirected(
            "Streams of events are served by imgo's nodes (manage.py imgo, or imgo's ASGI "
            "application), not by this process: send this request to a node's HTTP_PORT."
        )


class PostedFrameView(ClientView):
    """Frames that a client sends to its session, which any node may hold."""

    body_setting = "MAX_FORM"

    def post(self, request: HttpRequest, session: str) -> HttpResponse:
        """Pass a frame to its session; the reply comes as an event of its stream."""
        query = request.META.get("QUERY_STRING", "").encode("latin1")
        token = token_of_query(query, self.facts.headers)
        frame = read_frame(request.body)
        body = AuthBody(token=token, names=True, raw=token.encode("utf-8", "surrogateescape"))
        instance = instance_of(request)
        try:
            key = key_of_client(body, self.facts, instance)
        except DatabaseError:
            raise Unavailable("The token cannot be verified now.") from None
        if not pass_on_here(instance, session, key, frame):
            pass_on(session, key, frame)
        return HttpResponse(status=202)


def pass_on_here(instance: Instance, session: str, key: str, frame: Frame) -> bool:
    """Pass a frame to its session if this server's own node holds it; return whether it does.

    This saves a query of the registry and a way through the channel layer.

    Raises `NotFound` if the session is another client's, `Unavailable` if the server has stopped.
    """
    running = instance.running if isinstance(instance, NodeInstance) else None
    if running is None:
        return False
    node, loop = running
    local_session = node.hub.sessions.get(session)
    if local_session is None:
        return False
    if local_session.key != key or local_session.kind.transport != TRANSPORT:
        raise NotFound(NO_SESSION)
    try:
        loop.call_soon_threadsafe(node.hub.receive_frame, session, key, frame)
    except RuntimeError:  # the loop is closed
        raise Unavailable(STOPPING) from None
    return True


def pass_on(session: str, key: str, frame: Frame) -> None:
    """Pass a frame to the node that the registry has for its session.

    A node that was killed stays in the registry until its lease ends, but is subscribed to nothing.

    Raises `NotFound`, or `Unavailable` if the node receives nothing now.
    """
    envelope = frame_envelope(node_group(entry_of(key, session).node), session, key, frame)
    if publish([envelope], LAYER_TIMEOUT) == 0:
        raise Unavailable(NO_NODE)


def entry_of(key: str, session: str) -> Entry:
    """Return the registry's entry of a key's session. Raises `NotFound` or `Unavailable`."""
    for entry in get_registry().sessions(key):
        if entry.id == session and entry.transport == TRANSPORT:
            return entry
    raise NotFound(NO_SESSION)


def read_frame(data: bytes) -> Frame:
    """Return the frame of a request's body. Raises `BadRequest` or `TooLarge`."""
    try:
        frame = decode_text(data.decode(), conf.MAX_CLIENT_BODY, conf.MAX_AUTH_BODY)
    except UnicodeDecodeError:
        raise BadRequest("A frame is JSON in UTF-8.") from None
    except FrameError as error:
        kind = TooLarge if error.code == CloseCode.FRAME_TOO_LARGE else BadRequest
        raise kind(f"The body is no frame: {error.message}.") from None
    if frame.op not in HANDLERS:
        raise BadRequest(f"There is no operation {frame.op} that a client may send here.")
    return frame


def facts_of(request: HttpRequest) -> Facts:
    """Return the facts that authentication needs, as for the request of a stream."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    address = request.META["REMOTE_ADDR"]
    peer = request.META.get("imgo.peer", address)
    is_secure = request.META.get("wsgi.url_scheme") == "https" or request.scheme == "https"
    scheme = client_scheme(is_secure, peer, headers)
    return Facts(TRANSPORT, address, headers, DatabaseClock(), scheme)
