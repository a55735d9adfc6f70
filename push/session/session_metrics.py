"""Metrics of the sessions of this process's node.

They are read from the sessions for a scrape, so that no event of a session costs anything.
"""

import threading
import time
from collections import Counter
from typing import Protocol

from push.metrics import definitions as metrics
from push.metrics import exposition
from push.session.session import TRANSPORTS, Session, frames_written
from push.wire import CloseCode

NOTE_EVERY = 5.0  # seconds; reading 100,000 sessions takes 30 ms


class SessionTable(Protocol):
    """The part of a hub that the metrics read."""

    sessions: dict[str, Session]


class NodeFigures:
    """The sessions of this process's node: looked at now and then, at no cost for an event."""

    def __init__(self) -> None:
        self.hub: SessionTable | None = None  # while the node runs
        self._lock = threading.Lock()  # who is scraped notes in a thread
        self._frames: Counter[str] = Counter()  # what was counted when it was noted last
        self._noted = 0.0  # monotonic seconds

    def begin(self, hub: SessionTable) -> None:
        """The node starts: what it may count is shown from now on."""
        self.hub = hub
        reasons = [metrics.reason_of(code) for code in (0, *CloseCode)]
        for transport in TRANSPORTS:
            for source in metrics.SOURCES:
                metrics.OPENED.labels(transport, source)
            for reason in reasons:
                metrics.CLOSED.labels(transport, reason)
        for reason in reasons[1:]:
            metrics.CLOSES.labels(reason)
            metrics.REFUSED.labels(reason)
        for why in metrics.RECONNECTS:
            metrics.LAYER_RECONNECTS.labels(why)

    def note(self) -> None:
        """Look at all sessions; at none while there is no node."""
        with self._lock:
            hub, self._noted = self.hub, time.monotonic()
            if hub is None:
                return
            sessions, waiting = Counter[str](), Counter[str]()
            for one in list(hub.sessions.values()):
                transport = one.kind.transport
                sessions[transport] += 1
                waiting[transport] += one.link.waiting
            for transport, kinds in TRANSPORTS.items():
                metrics.SESSIONS.labels(transport).set(sessions[transport])
                metrics.WAITING.labels(transport).set(waiting[transport])
                written = sum(sum(frames_written[kind::3]) for kind in kinds)
                metrics.FRAMES.labels(transport).inc(written - self._frames[transport])
                self._frames[transport] = written

    def update_if_due(self) -> None:
        """For whoever is scraped instead of this process; call it as often as you like."""
        if exposition.is_shared() and time.monotonic() - self._noted >= NOTE_EVERY:
            self.note()


node = NodeFigures()
