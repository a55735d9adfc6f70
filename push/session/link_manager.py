"""State that all direct links of a node share: the poller, framings, and links with a deadline."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from imgo_site.conf import conf
from push.bus.background_tasks import Background
from push.session.deadlines import Deadlines
from push.session.poller import Poller
from push.session.read_pace import Pace
from push.session.unauthenticated_connections import UnauthenticatedConnections
from push.session.websocket_framing import FramingPool

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT = 2.0  # seconds for a peer to answer a close
# Bytes read of a peer in that time. A peer that sends more gets a reset.
CLOSING_BYTES = 1024 * 1024


class ManagedLink(Protocol):
    """The part of a direct link that deadlines need."""

    def give_up(self) -> None:
        """Close it as a slow reader."""

    def abort(self) -> None:
        """Close it at once."""

    def lose(self) -> None:
        """End it after a fault."""

    def keep_reading(self) -> None:
        """Read again after its client was too fast."""


class ClosingLimits:
    """Limits of a closed link that waits for its peer: `until` in monotonic seconds, bytes left."""

    __slots__ = ("bytes_left", "until")

    def __init__(self) -> None:
        self.until = time.monotonic() + CLOSE_TIMEOUT
        self.bytes_left = CLOSING_BYTES


class LinkManager:
    """State that all direct links of a node share: the poller, framings, and links with a deadline.

    The node calls `tick` once a second for the deadlines of all links, so no link has a timer.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        unauthenticated: UnauthenticatedConnections | None = None,
    ) -> None:
        self.loop = loop
        self.unauthenticated = unauthenticated or UnauthenticatedConnections()
        self.poller = Poller(loop)
        self.framings = FramingPool(max(8 * conf.MAX_CLIENT_BODY, conf.MAX_AUTH_BODY) + 4096)
        # Of connections whose clients have sent no whole request, or no whole header of a proxy.
        self.requests = Deadlines(loop, conf.HANDSHAKE_TIMEOUT)
        # Links with waiting bytes: monotonic seconds of the last progress.
        self.stalled: dict[ManagedLink, float] = {}
        self.closing: dict[ManagedLink, ClosingLimits] = {}
        self.paces: dict[ManagedLink, Pace] = {}  # of links that have received frames lately
        self.background = Background("a session's handler failed")

    def tick(self) -> None:
        """Close slow readers and peers that do not answer a close; resume throttled links."""
        now = time.monotonic()
        for link, since in list(self.stalled.items()):
            if now - since > conf.SLOW_READER_TIMEOUT:
                _guarded(link, link.give_up)
        for link, farewell in list(self.closing.items()):
            if now > farewell.until:
                _guarded(link, link.abort)
        for link, pace in list(self.paces.items()):
            pace.renew()
            if pace.is_idle:
                del self.paces[link]
            if not pace.is_over:
                _guarded(link, link.keep_reading)

    def spend(self, link: ManagedLink, frames: int, ids: int = 0) -> bool:
        """Count the frames and ids that a link has received; return whether reading must pause."""
        pace = self.paces.get(link)
        if pace is None:
            pace = self.paces[link] = Pace()
        pace.spend(frames, ids)
        return pace.is_over

    def close(self) -> None:
        """Close stalled and closing links, and the poller."""
        for link in [*self.stalled, *self.closing]:
            link.abort()
        self.poller.close()


def _guarded(link: ManagedLink, action: Callable[[], None]) -> None:
    """Call `action`; an error closes only that link."""
    try:
        action()
    except Exception:
        logger.exception("a connection failed, it is closed")
        link.lose()
