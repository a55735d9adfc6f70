"""Group commit: requests that push at the same time share one transaction.

The first becomes the leader of a group of its own. Those that come while its transaction is under
way wait, and are the next group, led by the first of them. Nobody waits for company: alone, a
push is accepted at once; under load a group has about as many pushes as the server has threads,
and its statement and its task cost little more than those of one push.

A leader's time is bounded by the limits of its statements. A follower has a deadline of its own:
until a leader has taken its push into a transaction, it can take it back.
"""

import threading
import time

from django.db import connection

from imgo_site import tracing
from imgo_site.conf import conf
from imgo_site.errors import OutcomeUnknown, Unavailable
from imgo_site.forks import renew_after_fork
from imgo_site.origin import current_origin
from push.accept.accept import Push, accept_push, accept_pushes

GROUP_MAX = 500  # pushes in one transaction
# Times DATABASE_TIMEOUT: a leader's connection and statement, its commit, and the question what
# became of that.
LEADER_SHARE = 4
HOPE = 0.5  # seconds for a leader after one that failed; others are refused after them
TOO_SLOW = "The database is too slow; nothing was accepted."


class _Waiting:
    """One push, and what became of it. The lock guards `is_taken` and `leads`."""

    __slots__ = ("began", "by", "error", "id", "is_taken", "leads", "origin", "push", "ready")

    def __init__(self, push: Push, by: str) -> None:
        self.push = push
        self.origin = current_origin()  # not that of the leader, whose thread stores the push
        self.by = by
        self.began = time.monotonic()
        self.id = 0
        self.error: Exception | None = None
        self.is_taken = False  # by a leader, into its transaction
        self.leads = False
        self.ready = threading.Event()  # it is settled, or it leads


class GroupCommit:
    """Accepts pushes of many threads in groups."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Begin anew in a forked child: whoever led or waited is a thread of the parent."""
        self._lock = threading.Lock()
        self._waiting: list[_Waiting] = []
        self._is_busy = False
        self._is_failing = False  # the last transaction was not made: the database failed
        self._led = 0.0  # monotonic seconds, at which the leader began

    def accept(self, push: Push, by: str = "") -> int:
        """Accept a push together with those of other threads. Raises as `accept_push` does."""
        if connection.in_atomic_block:
            return accept_push(push, by)  # the transaction around it decides
        with tracing.span("imgo.accept"):
            return self._accept(_Waiting(push, by))

    def _accept(self, mine: _Waiting) -> int:
        with self._lock:
            # One push at a time finds out whether it still fails; others must not take all of
            # the server's threads for as long as that one waits.
            if self._is_failing and self._is_busy and mine.began - self._led > HOPE:
                raise Unavailable(TOO_SLOW)
            self._waiting.append(mine)
            mine.leads, self._is_busy = not self._is_busy, True
            patience = HOPE if self._is_failing else conf.DATABASE_TIMEOUT
        if not mine.leads and not mine.ready.wait(patience):
            self._wait_longer(mine)
        if mine.leads:
            self._lead()
        if mine.error is not None:
            raise mine.error
        return mine.id

    def _wait_longer(self, mine: _Waiting) -> None:
        """Take the push back, or wait for the leader that has it in its transaction."""
        with self._lock:
            if mine.leads or mine.error is not None:
                return
            if not mine.is_taken:
                self._waiting.remove(mine)
                raise Unavailable(TOO_SLOW)
        if not mine.ready.wait(conf.DATABASE_TIMEOUT * LEADER_SHARE):
            raise OutcomeUnknown(bool(mine.push.dedupe_id))

    def _lead(self) -> None:
        group = self._take()
        try:
            _settle(group)
        finally:
            for one in group:
                if not one.id and one.error is None:  # this thread is being ended
                    one.error = OutcomeUnknown(bool(one.push.dedupe_id))
            with self._lock:
                self._is_failing = isinstance(group[0].error, Unavailable | OutcomeUnknown)
                tired = self._refuse_tired() if self._is_failing else []
                following = self._waiting[:1]
                self._is_busy = bool(following)
                for one in following:
                    one.leads = True
            for one in (*group, *tired, *following):
                one.ready.set()

    def _refuse_tired(self) -> list[_Waiting]:
        """Refuse the pushes that have waited for long for a database that has just failed."""
        latest = time.monotonic() - conf.DATABASE_TIMEOUT / 2
        tired = [one for one in self._waiting if one.began < latest]
        self._waiting = [one for one in self._waiting if one.began >= latest]
        for one in tired:
            one.error = Unavailable(TOO_SLOW)
        return tired

    def _take(self) -> list[_Waiting]:
        """Take the pushes of the first one's caller out of those that wait."""
        with self._lock:
            by = self._waiting[0].by
            self._led = time.monotonic()
            group = [one for one in self._waiting if one.by == by][:GROUP_MAX]
            for one in group:
                one.is_taken = True
            self._waiting = [one for one in self._waiting if not one.is_taken]
        return group


def _settle(group: list[_Waiting]) -> None:
    try:
        ids = accept_pushes([one.push for one in group], group[0].by, [one.origin for one in group])
    except Unavailable as error:
        for one in group:
            one.error = Unavailable(error.message)  # each raises its own, with its own traceback
    except OutcomeUnknown:
        for one in group:
            one.error = OutcomeUnknown(bool(one.push.dedupe_id))
    except Exception as error:  # noqa: BLE001 - raised by each of those who wait
        for one in group:
            one.error = error
    else:
        for one, message_id in zip(group, ids, strict=True):
            one.id = message_id


accept_in_group = (group_commit := GroupCommit()).accept
renew_after_fork(group_commit.renew)
