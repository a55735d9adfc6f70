"""Group commit: concurrent pushes share one transaction.

A thread that pushes while no transaction is under way leads a group of its own. Threads that push
meanwhile wait. When the transaction ends, the thread that has waited longest leads the next group.
It takes the waiting pushes of its caller, because dedupe ids belong to a caller.

No thread waits for others to join: a single push is accepted at once. Under load, a group has about
as many pushes as the server has threads. Its statement and its task cost little more than those of
one push.

A leader's time is bounded by the limits of its statements. A follower has a deadline of its own. It
takes its push back at the deadline, unless a leader has the push in its transaction already.

After a failure of the database, one leader at a time tries again. Followers wait for it for only
`RECOVERY_TIMEOUT` seconds, so that they do not occupy all threads of the server.
"""

import threading
import time

from django.db import connection

from imgo_site import tracing
from imgo_site.conf import conf
from imgo_site.errors import OutcomeUnknown, Unavailable
from imgo_site.forks import renew_after_fork
from imgo_site.push_origin import current_origin
from push.accept.accept import Push, accept_push, accept_pushes

GROUP_MAX = 500  # pushes in one transaction
# Times DATABASE_TIMEOUT: for a leader's connection and statement, its commit, and the query for the
# outcome of a lost commit.
LEADER_SHARE = 4
RECOVERY_TIMEOUT = (
    0.5  # seconds for a leader that follows a failed one; after them, other pushes are refused
)
TOO_SLOW = "The database is too slow; nothing was accepted."


class _Waiting:
    """One push and its outcome. The lock of `GroupCommit` guards `is_taken` and `leads`."""

    __slots__ = ("began", "by", "error", "id", "is_taken", "leads", "origin", "push", "ready")

    def __init__(self, push: Push, by: str) -> None:
        self.push = push
        self.origin = current_origin()  # not that of the leader, whose thread stores the push
        self.by = by
        self.began = time.monotonic()
        self.id = 0
        self.error: Exception | None = None
        self.is_taken = False  # a leader has it in its transaction
        self.leads = False
        self.ready = threading.Event()  # it has an outcome, or it leads


class GroupCommit:
    """Group commit for the threads of one process."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Reset the state. In a forked child, the leader and the followers are not there."""
        self._lock = threading.Lock()
        self._waiting: list[_Waiting] = []
        self._is_busy = False  # there is a leader
        self._is_failing = False  # the database failed the last transaction
        self._led = 0.0  # when the last leader began, monotonic seconds

    def accept(self, push: Push, by: str = "") -> int:
        """Accept a push together with those of other threads. Raises as `accept_push` does."""
        if connection.in_atomic_block:
            return accept_push(push, by)  # the caller's transaction decides
        with tracing.span("imgo.accept"):
            return self._accept(_Waiting(push, by))

    def _accept(self, waiting: _Waiting) -> int:
        with self._lock:
            # Only the leader waits to find out whether the database still fails. Others must not
            # occupy all threads of the server for as long.
            if self._is_failing and self._is_busy and waiting.began - self._led > RECOVERY_TIMEOUT:
                raise Unavailable(TOO_SLOW)
            self._waiting.append(waiting)
            waiting.leads, self._is_busy = not self._is_busy, True
            patience = RECOVERY_TIMEOUT if self._is_failing else conf.DATABASE_TIMEOUT
        if not waiting.leads and not waiting.ready.wait(patience):
            self._wait_longer(waiting)
        if waiting.leads:
            self._lead()
        if waiting.error is not None:
            raise waiting.error
        return waiting.id

    def _wait_longer(self, waiting: _Waiting) -> None:
        """Take the push back, or wait for the leader that has it in its transaction.

        Return without an error if the push leads or has an outcome by now.
        Raises `Unavailable` for a push taken back; `OutcomeUnknown` if the leader does not end.
        """
        with self._lock:
            if waiting.leads or waiting.error is not None:
                return
            if not waiting.is_taken:
                self._waiting.remove(waiting)
                raise Unavailable(TOO_SLOW)
        if not waiting.ready.wait(conf.DATABASE_TIMEOUT * LEADER_SHARE):
            raise OutcomeUnknown(bool(waiting.push.dedupe_id))

    def _lead(self) -> None:
        group = self._take()
        try:
            _settle(group)
        finally:
            for waiter in group:
                if not waiter.id and waiter.error is None:  # the leader's thread is being ended
                    waiter.error = OutcomeUnknown(bool(waiter.push.dedupe_id))
            with self._lock:
                self._is_failing = isinstance(group[0].error, Unavailable | OutcomeUnknown)
                overdue = self._refuse_overdue() if self._is_failing else []
                next_leaders = self._waiting[:1]
                self._is_busy = bool(next_leaders)
                for waiter in next_leaders:
                    waiter.leads = True
            for waiter in (*group, *overdue, *next_leaders):
                waiter.ready.set()

    def _refuse_overdue(self) -> list[_Waiting]:
        """Refuse pushes that have waited for half of DATABASE_TIMEOUT; return them."""
        latest = time.monotonic() - conf.DATABASE_TIMEOUT / 2
        overdue = [waiter for waiter in self._waiting if waiter.began < latest]
        self._waiting = [waiter for waiter in self._waiting if waiter.began >= latest]
        for waiter in overdue:
            waiter.error = Unavailable(TOO_SLOW)
        return overdue

    def _take(self) -> list[_Waiting]:
        """Take a group: the longest waiting push, and others of the same caller."""
        with self._lock:
            by = self._waiting[0].by
            self._led = time.monotonic()
            group = [waiter for waiter in self._waiting if waiter.by == by][:GROUP_MAX]
            for waiter in group:
                waiter.is_taken = True
            self._waiting = [waiter for waiter in self._waiting if not waiter.is_taken]
        return group


def _settle(group: list[_Waiting]) -> None:
    try:
        ids = accept_pushes(
            [waiter.push for waiter in group], group[0].by, [waiter.origin for waiter in group]
        )
    except Unavailable as error:
        for waiter in group:
            waiter.error = Unavailable(error.message)  # one for each waiter, with its own traceback
    except OutcomeUnknown:
        for waiter in group:
            waiter.error = OutcomeUnknown(bool(waiter.push.dedupe_id))
    except Exception as error:  # noqa: BLE001 - raised by each waiter
        for waiter in group:
            waiter.error = error
    else:
        for waiter, message_id in zip(group, ids, strict=True):
            waiter.id = message_id


accept_in_group = (group_commit := GroupCommit()).accept
renew_after_fork(group_commit.renew)
