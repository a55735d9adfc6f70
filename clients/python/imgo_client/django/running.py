"""Runner of relays: runs the relays of all databases until a stop."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from django.core.exceptions import ImproperlyConfigured
from django.db import Error as DatabaseError
from django.db import connections

from imgo_client.backoff import pause
from imgo_client.django.conf import options
from imgo_client.django.models import Delivery, Outbox
from imgo_client.django.pushing import outbox_databases
from imgo_client.django.relay import Relay

logger = logging.getLogger("imgo_client.relay")

LINGER = 5.0  # seconds that a database connection stays open without work
PRUNE_FIRST, PRUNE_EVERY = 600.0, 3600.0  # seconds of a process between two prunings
DATABASE_BACKOFF = (0.5, 30.0)  # shortest and longest pause, seconds

_process = {"prune_at": time.monotonic() + PRUNE_FIRST}


class Runner:
    """Runs relays. Making one opens no connection, because callers must not wait.

    `idle_poll`: seconds between two queries of empty outboxes.
    `linger`: seconds that a database connection stays open without work.
    `step`: entered around each piece of work, such as `ForkGate.step`.
    """

    def __init__(
        self,
        idle_poll: float,
        linger: float = LINGER,
        step: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._idle_poll = idle_poll
        self._linger = linger
        self._step = step
        self._relays: list[Relay] = []
        self._wakeup = threading.Event()
        self._has_work = True
        self._failures = 0  # of the database, in a row
        self._stop_at: float | None = None  # monotonic time

    def wake(self) -> None:
        """Let the runner query the outboxes now. Any thread may call this."""
        self._has_work = True
        self._wakeup.set()

    def stop(self, seconds: float) -> None:
        """End `run` after one more attempt to send due rows, within this time."""
        self._stop_at = time.monotonic() + seconds
        self._wakeup.set()

    def run(self) -> None:
        """Work until `stop` is called. It raises nothing: errors are logged and tried again."""
        while self._stop_at is None or self._has_work:
            self._has_work = False
            self._wakeup.clear()
            seconds = self._drain_safely()
            if self._stop_at is None:
                self._wait(seconds)
        self.close()

    def _drain_safely(self) -> float:
        """Do what `drain` does. Errors, also bugs, are logged and tried again after a pause."""
        try:
            seconds = self.drain()
        except DatabaseError as error:
            logger.error("The relay cannot use the database: %s", error)
        except ImproperlyConfigured as error:
            logger.error("The relay cannot work with these settings: %s", error)
        except Exception:
            logger.exception("The relay failed.")
        else:
            self._failures = 0
            return seconds
        self._failures += 1
        self._close_connections()
        return pause(self._failures, DATABASE_BACKOFF)

    def drain(self, seconds: float = float("inf")) -> float:
        """Send what is due, for at most so many seconds; return how long to wait until more is.

        Raises `django.db.Error`, after all databases had their turn.
        """
        end = time.monotonic() + seconds
        if not self._relays:
            self._relays = [Relay(alias) for alias in outbox_databases()]
        waits: list[float] = []
        errors: list[DatabaseError] = []
        for relay in self._relays:
            self._drain_one(relay, end, waits, errors)
        if errors:
            raise errors[0]
        with self._step():
            self._prune()
        return min([self._idle_poll, *waits])

    def _drain_one(
        self, relay: Relay, end: float, waits: list[float], errors: list[DatabaseError]
    ) -> None:
        """Send what is due in one database; its error must not hold the others up."""
        try:
            has_more = True
            while has_more and not self._is_over(end):
                with self._step():
                    has_more = relay.turn()
            with self._step():
                wait = relay.seconds_until_due()
        except DatabaseError as error:
            errors.append(error)
        else:
            waits += [] if wait is None else [wait]

    def close(self) -> None:
        """Close the connections to the server, and the calling thread's to databases."""
        self.close_http()
        self._close_connections()

    def _close_connections(self) -> None:
        with self._step():
            connections.close_all()

    def close_http(self) -> None:
        """Close the connections to the server."""
        for relay in self._relays:
            relay.close()

    def _is_over(self, end: float) -> bool:
        return time.monotonic() > min(end, self._stop_at or end)

    def _wait(self, seconds: float) -> None:
        """Wait for `wake`; without work the database connection is closed."""
        # Short waits follow failures and leases of others, where the connection is needed again.
        if not self._wakeup.wait(min(seconds, self._linger)) and seconds > self._linger:
            self._close_connections()
            self._wakeup.wait(seconds - self._linger)

    def _prune(self) -> None:
        """Delete old parked rows and webhook ids, now and then."""
        if time.monotonic() < _process["prune_at"]:
            return
        _process["prune_at"] = time.monotonic() + PRUNE_EVERY
        prune()


def prune() -> int:
    """Delete parked rows and ids of webhooks that are older than the options say."""
    opts = options()
    count = 0
    for alias in outbox_databases():
        if opts.PARKED_KEEP:
            count += Outbox.objects.using(alias).prune(opts.PARKED_KEEP)
        count += Delivery.objects.using(alias).prune(opts.WEBHOOK_KEEP)
    return count
