"""Metrics of the sessions of this process's nodes.

A scrape reads them from the sessions, so session events have no metrics cost.
"""

import threading
import time
from collections import Counter
from typing import Protocol

from push.metrics import definitions as metrics
from push.metrics import exposition
from push.session.outgoing import TRANSPORTS, packet_kinds_of
from push.session.session import Session, Written
from push.wire import CloseCode

UPDATE_EVERY = 5.0  # seconds; reading 100,000 sessions takes 30 ms


class SessionTable(Protocol):
    """The part of a hub that the metrics read."""

    sessions: dict[str, Session]
    written: Written


class SessionFigures:
    """Metrics of the sessions of a process, updated for scrapes and periodically.

    A process has one, as it has one set of metrics: they are the sums of its nodes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # a scrape updates in a thread
        # hub → its frames by transport at the last update
        self._hubs: dict[SessionTable, Counter[str]] = {}
        self._updated_at = 0.0  # monotonic seconds

    def begin(self, hub: SessionTable) -> None:
        """Include a node's hub; export all label values from now on."""
        with self._lock:
            self._hubs[hub] = Counter()
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

    def end(self, hub: SessionTable) -> None:
        """Remove a hub, after its last update."""
        self.update()
        with self._lock:
            self._hubs.pop(hub, None)

    def update(self) -> None:
        """Update the metrics from all sessions. Does nothing while no node runs."""
        with self._lock:
            self._updated_at = time.monotonic()
            if not self._hubs:
                return
            sessions, waiting = Counter[str](), Counter[str]()
            for hub, frames in self._hubs.items():
                _count_sessions(hub, sessions, waiting)
                _count_frames(hub, frames)
            for transport in TRANSPORTS:
                metrics.SESSIONS.labels(transport).set(sessions[transport])
                metrics.WAITING.labels(transport).set(waiting[transport])

    def update_if_due(self) -> None:
        """Update the metrics for the scraped process, once in `UPDATE_EVERY` seconds at most.

        Does nothing unless processes share their metrics.
        """
        if exposition.is_shared() and time.monotonic() - self._updated_at >= UPDATE_EVERY:
            self.update()


def _count_sessions(hub: SessionTable, sessions: Counter[str], waiting: Counter[str]) -> None:
    for session in list(hub.sessions.values()):
        transport = session.kind.transport
        sessions[transport] += 1
        waiting[transport] += session.link.waiting


def _count_frames(hub: SessionTable, last: Counter[str]) -> None:
    """Add the frames since the last update, whose numbers are `last`, and replace those."""
    for transport, kinds in TRANSPORTS.items():
        written = sum(
            hub.written.frames[packet_kind]
            for kind in kinds
            for packet_kind in packet_kinds_of(kind)
        )
        metrics.FRAMES.labels(transport).inc(written - last[transport])
        last[transport] = written
