"""Log of sessions: a line for each opening, refusal and closing, and a record of each key's last.

The lines depend on `LOG_SESSIONS`. Only verified keys have records: a client that cannot
authenticate adds no row.
"""

import logging
from collections.abc import Callable
from typing import Any

from django.db import DataError, IntegrityError

from accounts.staff import is_dashboard_key
from imgo_site.database_threads import cluster_threads
from imgo_site.names import printable
from push.metrics import definitions as metrics
from push.registry.base import Entry
from push.session.session_records import EVENTS, Row, SessionEvent, SessionRecord
from push.wire import CloseCode

logger = logging.getLogger(__name__)
lines = logging.getLogger("imgo.session")  # INFO with LOG_SESSIONS

KEYS_MAX = 50_000  # keys with unwritten events
BATCH = 2_000  # keys in one statement
FLUSH_EVERY = 1.0  # seconds
TEXT_MAX = 200  # characters kept of a reason


class SessionLog:
    """Log of one node's sessions, which writes the last events of each key in batches.

    While the database is unavailable, the events of up to `KEYS_MAX` keys are kept. Above that
    the oldest are dropped and counted in `imgo_session_records_lost_total`.

    `node`: the node's id.
    `now`: the database's clock, Unix time in seconds.
    """

    def __init__(self, node: str, now: Callable[[], float]) -> None:
        self._node = node
        self._now = now
        self._waiting: dict[str, Row] = {}

    def opened(self, entry: Entry) -> SessionEvent:
        """Record the opening of a session, and return it."""
        event = self.event_of(entry)
        self._add(entry.key, "opened", event)
        if lines.isEnabledFor(logging.INFO):
            text = "session %s of %r opened: %s from %s"
            _log(text, entry.id, entry.key, entry.transport, entry.address, key=entry.key, of=event)
        return event

    def closed(self, entry: Entry, code: int) -> SessionEvent:
        """Record the end of a session, and return it.

        `code`: the server's close code, 0 if the client disconnected.
        """
        event = self.event_of(entry, code, reason_of(code))
        event.seconds = round(max(0.0, event.at - entry.since), 3)
        self._add(entry.key, "closed", event)
        if lines.isEnabledFor(logging.INFO):
            text = "session %s of %r closed after %.1f s: %d %s"
            arguments = (entry.id, entry.key, event.seconds, code, event.reason)
            _log(text, *arguments, key=entry.key, of=event)
        return event

    def refused(self, key: str, event: SessionEvent) -> None:
        """Record the refusal of a session of a verified key."""
        event.node, event.at = self._node, self._now()
        self._add(key, "refused", event)

    def event_of(self, entry: Entry, code: int = 0, reason: str = "") -> SessionEvent:
        """Return an event of a session that happens now."""
        return SessionEvent(
            self._now(),
            self._node,
            entry.transport,
            entry.address,
            clean(entry.platform) if entry.platform else "",
            entry.id,
            code,
            reason,
        )

    def _add(self, key: str, name: str, event: SessionEvent) -> None:
        if is_dashboard_key(key):
            return
        row = self._waiting.get(key)
        if row is None:
            if len(self._waiting) >= KEYS_MAX:
                del self._waiting[next(iter(self._waiting))]
                metrics.SESSION_RECORDS_LOST.inc()
            row = self._waiting[key] = Row(key)
        setattr(row, name, event)

    async def flush(self) -> None:
        """Write the unwritten events. Raises `DatabaseError`; unwritten rows are kept then.

        Rows that the database refuses as invalid are logged, counted and dropped.
        """
        while self._waiting:
            keys = list(self._waiting)[:BATCH]
            rows = [self._waiting.pop(key) for key in keys]
            try:
                await cluster_threads.run(SessionRecord.objects.write, rows)
            except (DataError, IntegrityError, ValueError):
                metrics.SESSION_RECORDS_LOST.inc(len(rows))
                logger.exception("%d session records cannot be written; dropped", len(rows))
            except BaseException:
                self._put_back(rows)
                raise

    def _put_back(self, rows: list[Row]) -> None:
        """Keep rows for the next attempt; newer events of the same key take precedence."""
        for row in rows:
            newer = self._waiting.get(row.key)
            if newer is None:
                if len(self._waiting) >= KEYS_MAX:
                    metrics.SESSION_RECORDS_LOST.inc()
                    continue
                self._waiting[row.key] = row
                continue
            for name in EVENTS:
                if getattr(newer, name) is None:
                    setattr(newer, name, getattr(row, name))


def log_refusal(key: str, event: SessionEvent) -> None:
    """Log and count a refused connection. `key`: "" if it is unknown."""
    metrics.REFUSED.labels(metrics.reason_of(event.code)).inc()
    if lines.isEnabledFor(logging.INFO):
        subject = f"a session of {key!r}" if key else "a connection"
        text = "%s was refused: %d %s (%s from %s)"
        arguments = (subject, event.code, event.reason, event.transport, event.address)
        _log(text, *arguments, key=key, of=event)


def _log(text: str, *arguments: Any, key: str, of: SessionEvent) -> None:
    fields = {
        "key": key,
        "session": of.session,
        "node": of.node,
        "transport": of.transport,
        "address": of.address,
        "platform": of.platform,
        "code": of.code,
        "reason": of.reason,
    }
    lines.info(text, *arguments, extra={name: value for name, value in fields.items() if value})


def reason_of(code: int) -> str:
    """Return the text of a close code; 0 means that the client closed."""
    if not code:
        return "the client has gone"
    return CloseCode(code).reason if code in CloseCode._value2member_map_ else ""


def clean(text: str) -> str:
    """Return a client's text in printable characters, cut to `TEXT_MAX`, for rows and the log."""
    return printable(text)[:TEXT_MAX]
