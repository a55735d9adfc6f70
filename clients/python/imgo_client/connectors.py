"""Connectors: the choice of the transport by the URL, and the first frame for it."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

from imgo_client import transports
from imgo_client.auth import auth_body, events_body
from imgo_client.event_transport import EventTransport
from imgo_client.resumption import Resumption
from imgo_client.rooms import Rooms
from imgo_client.subscriptions import Subscriptions
from imgo_client.transports import Transport

SCHEMES = ("ws", "wss", "tcp", "tcps", "http", "https")
SECURE = ("wss", "tcps", "https")


class Connector(Protocol):
    """Opener of connections to one server, for all sessions of a client."""

    async def connect(self, max_size: int) -> Transport:
        """Open a connection. `max_size`: limit of one message of the server, in bytes.

        A cancelled call leaves nothing open.
        """

    def first_body(
        self, about: Mapping[str, Any], rooms: Rooms, subscriptions: Subscriptions, max_body: int
    ) -> dict[str, Any]:
        """Return the body of a session's first frame."""

    def begin(self) -> None:
        """Forget the earlier sessions, because the client starts without its earlier state."""


class FrameConnector:
    """Connector for WebSocket and raw TCP."""

    def __init__(self, url: str, tls: ssl.SSLContext | None) -> None:
        self._url = url
        self._tls = tls

    async def connect(self, max_size: int) -> Transport:
        """Open a connection. Raises OSError or websockets' own exceptions."""
        return await transports.connect(self._url, max_size, self._tls)

    def first_body(
        self, about: Mapping[str, Any], rooms: Rooms, subscriptions: Subscriptions, max_body: int
    ) -> dict[str, Any]:
        """Return the body of the auth frame."""
        return auth_body(about, rooms, subscriptions, max_body)

    def begin(self) -> None:
        """Do nothing: no state is kept between sessions."""


class EventConnector:
    """Connector for Server-Sent Events."""

    def __init__(self, url: str, tls: ssl.SSLContext | None) -> None:
        self._url = url
        self._tls = tls
        self._resumption = Resumption()

    async def connect(self, max_size: int) -> Transport:
        """Return a transport, which connects when the first frame is sent."""
        return EventTransport(self._url, max_size, self._tls, self._resumption)

    def first_body(
        self,
        about: Mapping[str, Any],
        rooms: Rooms,
        subscriptions: Subscriptions,
        max_body: int,  # noqa: ARG002 - a query has another limit
    ) -> dict[str, Any]:
        """Return the members of the request for events."""
        return events_body(about, rooms, subscriptions, self._resumption)

    def begin(self) -> None:
        """Forget the last id, so that messages that were not handled are sent again."""
        self._resumption.begin()


def connector_for(url: str, tls: ssl.SSLContext | None) -> Connector:
    """Return the connector for the scheme of a URL. Raises ValueError for a wrong URL.

    `tls`: for the schemes that end in s; None: the system's certificates.
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        named = ", ".join(f"{scheme}://" for scheme in SCHEMES[:-1])
        raise ValueError(f"the url begins with {named} or {SCHEMES[-1]}://, not {url[:40]!r}")
    if not parts.hostname:
        raise ValueError(f"there is no host in {url[:40]!r}")
    _ = parts.port  # looks if it is a number
    if parts.scheme not in SECURE:
        tls = None
    elif tls is None:
        tls = ssl.create_default_context()
    if not parts.scheme.startswith("http"):
        return FrameConnector(url, tls)
    if parts.username is not None:
        raise ValueError("the url carries no user: the token says who it is")
    if parts.path in ("", "/"):
        raise ValueError(
            "the url has the path of the events, such as https://example.org/sub/events"
        )
    return EventConnector(url, tls)
