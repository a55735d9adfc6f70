"""ASGI routing of connections to their consumers."""

from contextlib import suppress
from typing import Any

from channels.routing import ProtocolTypeRouter
from django.urls import get_script_prefix

from imgo_site.browser_requests import is_allowed_host
from imgo_site.prefix import without_prefix
from push.connect.consumers import TcpConsumer, WebSocketConsumer
from push.events.consumer import EventsConsumer, EventsRouter
from push.node.node_instance import NodeInstance
from push.server.http_concurrency import HttpConcurrency
from push.status.instance import INSTANCE

WEBSOCKET_PATH = "/sub"  # imgo's
CHECKED = {b"host": "host", b"origin": "origin"}  # the headers that `is_allowed_host` reads


def websocket_path() -> str:
    """Return the WebSocket path for a page's clients, with the prefix that imgo is served below."""
    return get_script_prefix().rstrip("/") + WEBSOCKET_PATH


class WebSocketRouter:
    """Router of WebSockets: refuses other paths than `/sub` with HTTP 403 before the upgrade."""

    def __init__(self, application: Any) -> None:
        self.application = application

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Serve `/sub` under an allowed host; refuse all other connections."""
        named = dict(scope["headers"])
        headers = {
            text: named[name].decode("latin1") for name, text in CHECKED.items() if name in named
        }
        if without_prefix(scope["path"]).rstrip("/") != WEBSOCKET_PATH:
            refusal = f"There is no WebSocket at this path, but at {WEBSOCKET_PATH}."
        elif not is_allowed_host(headers):
            refusal = "This server does not answer to this host: see DJANGO_ALLOWED_HOSTS."
        else:
            await self.application(scope, receive, send)
            return
        await receive()
        with suppress(OSError):  # the client has closed the connection
            await send({"type": "websocket.close", "reason": refusal})


class Application(ProtocolTypeRouter):
    """The ASGI application, with the instance of servers that bring none of their own."""

    def __init__(self, application_mapping: dict[str, Any]) -> None:
        super().__init__(application_mapping)
        self.instance = NodeInstance()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve a connection or a request."""
        if INSTANCE not in scope:
            scope = {**scope, INSTANCE: self.instance}
        await super().__call__(scope, receive, send)


def get_application(http: Any) -> Application:
    """Return the ASGI application; `http` is Django's application for HTTP requests."""
    return Application(
        {
            "http": EventsRouter(EventsConsumer.as_asgi(), HttpConcurrency(http)),
            "websocket": WebSocketRouter(WebSocketConsumer.as_asgi()),
            "tcp": TcpConsumer.as_asgi(),
        }
    )
