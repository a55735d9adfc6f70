"""Metrics of the sessions of this process's node.

A scrape reads them from the sessions, so session events have no metrics cost.
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
    """Metrics of the sessions of this process's node, updated for scrapes and periodically."""

    def __init__(self) -> None:
        self.hub: SessionTable | None = None  # None while no node runs
        self._lock = threading.Lock()  # a scrape updates in a thread
        self._frames: Counter[str] = Counter()  # frames by transport at the last update
        self._updated_at = 0.0  # monotonic seconds

    def begin(self, hub: SessionTable) -> None:
        """Start with the node's hub; export all its label values from now on."""
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
        """Update the metrics from all sessions. Does nothing while no node runs."""
        with self._lock:
            hub, self._updated_at = self.hub, time.monotonic()
            if hub is None:
                return
            sessions, waiting = Counter[str](), Counter[str]()
            for session in list(hub.sessions.values()):
                transport = session.kind.transport
                sessions[transport] += 1
                waiting[transport] += session.link.waiting
            for transport, kinds in TRANSPORTS.items():
                metrics.SESSIONS.labels(transport).set(sessions[transport])
                metrics.WAITING.labels(transport).set(waiting[transport])
                written = sum(sum(frames_written[kind::3]) for kind in kinds)
                metrics.FRAMES.labels(transport).inc(written - self._frames[transport])
                self._frames[transport] = written

    def update_if_due(self) -> None:
        """Update the metrics for the process that is scraped, at most once in `NOTE_EVERY` seconds.

        Does nothing unless processes share their metrics.
        """
        if exposition.is_shared() and time.monotonic() - self._updated_at >= NOTE_EVERY:
            self.note()


node = NodeFigures()
