"""Relay: leases lanes of one outbox and delivers their rows to the server.

One turn works as follows.

1. Find lanes that have rows and are free, and lease some of them.
2. Read their oldest rows and send them in one request, outside of any transaction.
3. Delete the rows that the server has accepted, and park those that it has refused for good.
4. Release the lanes, so that other relays get their share.

A relay that ends between steps 2 and 3 leaves its rows. The next owner of the lane sends them again
with the same dedupe ids, so the server does not accept them twice. The same holds for a relay that
comes late, after its lease has passed to another one.

If a request fails as a whole (no connection, 401, 403, 5xx), its lanes pause and keep their rows.
A lane that has failed is sent alone until it succeeds, so that it cannot hold others up. A request
that the server cannot read, or that is too large, is divided until the push at fault is parked.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.utils import timezone

from imgo_client import (
    ApiError,
    BadRequest,
    NotFound,
    Publisher,
    PublishError,
    Push,
    Retry,
    TooLarge,
)
from imgo_client.backoff import pause
from imgo_client.django import signals
from imgo_client.django.conf import TIMEOUTS_PER_LEASE, Options, options
from imgo_client.django.models import LANES, Lane, LaneQuerySet, Outbox, OutboxQuerySet
from imgo_client.pushes import pieces

logger = logging.getLogger("imgo_client.relay")

LANES_PER_TURN = LANES // 2  # so that two relays share the work
# Client errors that concern the caller or the moment, not the push.
NOT_ITS_OWN = frozenset({401, 403, 407, 408, 421, 425, 429})
ONCE = Retry(attempts=1, total=0)  # the lanes have their own back-off


@dataclass
class Failing:
    """State of a lane whose last request failed. `retry_at`: a monotonic time."""

    failures: int = 0
    retry_at: float = 0.0


def make_publisher(opts: Options) -> Publisher:
    """Return a publisher for the server that the options name, without retries of its own.

    Raises ImproperlyConfigured.
    """
    http = dict(opts.HTTP)
    try:
        return Publisher(opts.URL, opts.API_KEY, timeout=opts.HTTP_TIMEOUT, retry=ONCE, **http)
    except (OSError, TypeError, ValueError) as error:  # of our own, httpx, or files of certificates
        raise ImproperlyConfigured(f"IMGO_CLIENT: {error}. Run manage.py check.") from error


class Relay:
    """Delivers the outbox of the database `using`. One thread uses a relay at a time."""

    def __init__(self, using: str, publisher: Publisher | None = None) -> None:
        self.using = using
        self._options = options()
        self._publisher = publisher
        self._owner = uuid4().hex
        self._failing: dict[int, Failing] = {}
        self._leased_at = 0.0
        self._has_tried = False  # this turn has settled a row or sent a request
        # Whether the last turn was that of a failing lane. They take turns with healthy lanes.
        self._retries = False

    def close(self) -> None:
        """Close the connections to the server."""
        if self._publisher is not None:
            self._publisher.close()

    @property
    def publisher(self) -> Publisher:
        """The publisher. It is made at its first use, because an empty outbox needs none."""
        if self._publisher is None:
            self._publisher = make_publisher(self._options)
        return self._publisher

    @property
    def rows(self) -> OutboxQuerySet:
        """The rows that are sent, in the database of this relay."""
        return Outbox.objects.using(self.using)

    @property
    def lanes(self) -> LaneQuerySet:
        """The lanes, whose leases relays share."""
        return Lane.objects.using(self.using)

    def turn(self) -> bool:
        """Send rows of some lanes once; return whether another turn may do more.

        A turn that failed returns True: its lanes pause, and others may be due. Raises
        `django.db.Error`, and RuntimeError inside a transaction.
        """
        if connections[self.using].in_atomic_block:
            raise RuntimeError(
                "A relay must not run inside a transaction: see transaction.on_commit."
            )
        chosen = self._choose()
        if not chosen:
            return False
        self._leased_at = time.monotonic()
        leased = self.lanes.lease(self._owner, chosen, self._options.LEASE)
        self._has_tried = False
        try:
            self._send(leased)
        finally:
            self.lanes.release(self._owner, leased)
        return self._has_tried

    def seconds_until_due(self) -> float | None:
        """Return how long to wait until the next turn; None while there is nothing to send."""
        if not self.rows.waiting().exists():
            self._failing.clear()
            return None
        # Lanes that other relays have leased, also dead ones, are checked every POLL seconds.
        pauses = [lane.retry_at - time.monotonic() for lane in self._failing.values()]
        return min([self._options.POLL, *(seconds for seconds in pauses if seconds > 0)])

    def _choose(self) -> list[int]:
        """Return lanes to lease: a failing one whose pause is over, else some healthy ones."""
        free = self.lanes.free_for(self._owner).with_waiting()
        numbers = set(free.values_list("number", flat=True))
        if not numbers and self.lanes.count() < LANES:
            self.lanes.create_missing()
            numbers = set(free.all().values_list("number", flat=True))
        now = time.monotonic()
        due = [n for n, lane in self._failing.items() if n in numbers and lane.retry_at <= now]
        healthy = sorted(numbers - self._failing.keys())
        self._retries = bool(due) and not (healthy and self._retries)
        if self._retries:
            return [min(due, key=lambda number: self._failing[number].retry_at)]
        return random.sample(healthy, min(len(healthy), LANES_PER_TURN))

    # Sending

    def _send(self, lanes: Sequence[int]) -> None:
        rows = self.rows.waiting().filter(lane__in=lanes).order_by("sequence")
        pairs: list[tuple[Outbox, Push]] = []
        for row in rows[: self._options.BATCH]:
            if row.target == Outbox.Target.CANCEL:
                if not self._send_pushes(pairs) or not self._cancel(row):
                    return
                pairs = []
            elif (push := row.as_push()) is None:
                self._park(row, "The row is damaged.")
            else:
                pairs.append((row, push))
        self._send_pushes(pairs)

    def _cancel(self, row: Outbox) -> bool:
        """Cancel a push; return whether that is settled."""
        if not self._has_time():
            return False
        self._has_tried = True
        try:
            self.publisher.cancel_by_dedupe_id(row.name)
        except PublishError as error:
            if isinstance(error, NotFound) and error.code == "not_found":
                logger.info("The push %s is not there to be cancelled.", row.name)
                self._settle([row])
                return True
            if isinstance(error, ApiError) and error.status != 404 and is_refusal(error):
                return bool(self._park(row, str(error)))
            self._fail([row], error)
            return False
        self._settle([row])
        return True

    def _has_time(self) -> bool:
        """Return whether the leases last for another request."""
        left = self._leased_at + self._options.LEASE - time.monotonic()
        return left >= TIMEOUTS_PER_LEASE * self._options.HTTP_TIMEOUT

    def _send_pushes(self, pairs: Sequence[tuple[Outbox, Push]]) -> bool:
        """Send these in order; return whether all are settled."""
        start = 0
        for piece in pieces(push for _, push in pairs):
            end = start + len(piece)
            if self._deliver(pairs[start:end]) < len(piece):
                return False  # later rows must not overtake those that stay
            start = end
        return True

    def _deliver(self, pairs: Sequence[tuple[Outbox, Push]]) -> int:
        """Send these in one request, or in smaller ones if the server requires that.

        Return how many are settled.
        """
        if not self._has_time():
            return 0  # this process was slow, and the lanes may soon be another relay's
        self._has_tried = True
        try:
            results = self.publisher.push_many([push for _, push in pairs])
        except PublishError as error:
            if isinstance(error, TooLarge) or self._is_refused_by_content(error):
                return self._deliver_halves(pairs, error)
            self._fail([row for row, _ in pairs], error)
            return 0
        accepted = [
            row for (row, _), result in zip(pairs, results, strict=True) if not result.error
        ]
        self._settle(accepted)
        settled = len(accepted)
        for (row, _), result in zip(pairs, results, strict=True):
            if result.error is None:
                continue
            if is_refusal(result.error):
                settled += self._park(row, str(result.error))
            else:
                self._fail([row], result.error)
        return settled

    def _is_refused_by_content(self, error: PublishError) -> bool:
        """Return whether the server refused a request because of a push in it.

        The server cannot read a request if one body is JSON only for Python. The same status can
        mean that it refuses all requests, such as those to an unknown host.
        """
        if not isinstance(error, BadRequest):
            return False
        try:
            self.publisher.check()
        except PublishError:
            return False
        return True

    def _deliver_halves(self, pairs: Sequence[tuple[Outbox, Push]], error: PublishError) -> int:
        """Send a refused request in two, or park its only push."""
        if len(pairs) == 1:
            return self._park(pairs[0][0], str(error))
        middle = len(pairs) // 2
        done = self._deliver(pairs[:middle])
        return done + self._deliver(pairs[middle:]) if done == middle else done

    # Outcomes

    def _settle(self, rows: Sequence[Outbox]) -> None:
        """Delete rows that the server has accepted."""
        if not rows:
            return
        self.rows.filter(pk__in=[row.pk for row in rows]).delete()
        if any(row.lane in self._failing for row in rows):
            self._recover({row.lane for row in rows})
        oldest = (timezone.now() - min(row.created_at for row in rows)).total_seconds()
        self._report(signals.pushes_relayed, count=len(rows), oldest=oldest)

    def _park(self, row: Outbox, error: str) -> int:
        self._has_tried = True
        self.rows.filter(pk=row.pk).park(error)
        logger.error("The push %s was refused and is parked: %s", row.push_id, error)
        self._report(signals.push_parked, push_id=row.push_id, error=error)
        return 1

    def _fail(self, rows: Sequence[Outbox], error: PublishError) -> None:
        """Let the lanes of these rows pause."""
        self.rows.filter(pk__in=[row.pk for row in rows]).record_failure(str(error))
        lanes = sorted({row.lane for row in rows})
        for lane in lanes:
            state = self._failing.setdefault(lane, Failing())
            state.failures += 1
            state.retry_at = time.monotonic() + pause(state.failures, self._options.BACKOFF)
        # The lanes' first failure is news; a long outage must not fill the log.
        level = logging.ERROR if self._failing[lanes[0]].failures == 1 else logging.DEBUG
        logger.log(level, "Pushes of the lanes %s stay in the outbox: %s", lanes, error)
        self._report(signals.relay_failed, lanes=lanes, error=error)

    def _recover(self, lanes: set[int]) -> None:
        """Record that these lanes work again, and let the other failing ones be tried at once."""
        for lane in lanes:
            self._failing.pop(lane, None)
        for state in self._failing.values():
            state.retry_at = 0.0
        logger.info("Pushes of the lanes %s are delivered again.", sorted(lanes))

    def _report(self, signal: Any, **values: Any) -> None:
        signal.send_robust(Relay, using=self.using, **values)  # it logs errors of receivers


def is_refusal(error: ApiError) -> bool:
    """Return whether the server will refuse this push also later."""
    return not error.retry and 400 <= error.status < 500 and error.status not in NOT_ITS_OWN
