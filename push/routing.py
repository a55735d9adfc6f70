"""Which consumer serves which kind of connection."""

from typing import Any

from channels.routing import ProtocolTypeRouter

from push.consumers import TcpConsumer, WebSocketConsumer

WEBSOCKET_PATH = "/sub"  # imgo's


class WebSocketRouter:
    """The one WebSocket path; any other is refused with HTTP 403 before the upgrade."""

    def __init__(self, application: Any) -> None:
        self.application = application

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Serve `/sub`, refuse the rest."""
        if scope["path"].rstrip("/") == WEBSOCKET_PATH:
            await self.application(scope, receive, send)
        else:
            await receive()
            await send({"type": "websocket.close"})


def get_application(http: Any) -> ProtocolTypeRouter:
    """The ASGI application around Django's `http` one."""
    return ProtocolTypeRouter(
        {
            "http": http,
            "websocket": WebSocketRouter(WebSocketConsumer.as_asgi()),
            "tcp": TcpConsumer.as_asgi(),
        }
    )
