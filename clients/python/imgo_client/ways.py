"""How a client connects, and what it says of itself then: by frames, or by Server-Sent Events."""

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


class Way(Protocol):
    """A way to one server, for all sessions of a client."""

    async def connect(self, max_size: int) -> Transport:
        """Open a connection. `max_size`: bytes that one message of the server may have.

        When cancelled it leaves nothing open.
        """

    def first_body(
        self, about: Mapping[str, Any], rooms: Rooms, subscriptions: Subscriptions, max_body: int
    ) -> dict[str, Any]:
        """What the first frame of a session says."""

    def begin(self) -> None:
        """The client begins anew."""


class Frames:
    """By WebSocket or TCP."""

    def __init__(self, url: str, tls: ssl.SSLContext | None) -> None:
        self._url = url
        self._tls = tls

    async def connect(self, max_size: int) -> Transport:
        """See `Way`; raises OSError or websockets' own exceptions."""
        return await transports.connect(self._url, max_size, self._tls)

    def first_body(
        self, about: Mapping[str, Any], rooms: Rooms, subscriptions: Subscriptions, max_body: int
    ) -> dict[str, Any]:
        """The body of the auth frame."""
        return auth_body(about, rooms, subscriptions, max_body)

    def begin(self) -> None:
        """Nothing is kept from one session to the next."""


class Events:
    """By Server-Sent Events."""

    def __init__(self, url: str, tls: ssl.SSLContext | None) -> None:
        self._url = url
        self._tls = tls
        self._resumption = Resumption()

    async def connect(self, max_size: int) -> Transport:
        """See `Way`. The connection is made with the first frame."""
        return EventTransport(self._url, max_size, self._tls, self._resumption)

    def first_body(
        self,
        about: Mapping[str, Any],
        rooms: Rooms,
        subscriptions: Subscriptions,
        max_body: int,  # noqa: ARG002 - a query has another limit
    ) -> dict[str, Any]:
        """What the request says."""
        return events_body(about, rooms, subscriptions, self._resumption)

    def begin(self) -> None:
        """What was received and not handled comes again."""
        self._resumption.begin()


def way_to(url: str, tls: ssl.SSLContext | None) -> Way:
    """Return the way that the scheme of a URL names. Raises ValueError for a wrong URL.

    `tls`: for the ones with an s; None: the system's certificates.
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
        return Frames(url, tls)
    if parts.username is not None:
        raise ValueError("the url carries no user: the token says who it is")
    if parts.path in ("", "/"):
        raise ValueError(
            "the url has the path of the events, such as https://example.org/sub/events"
        )
    return Events(url, tls)
