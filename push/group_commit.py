"""Group commit: requests that push at the same time share one transaction.

The first becomes the leader of a group of its own. Those that come while its transaction is under
way wait, and are the next group, led by the first of them. Nobody waits for company: alone, a
push is accepted at once; under load a group has about as many pushes as the server has threads,
and its statement and its task cost little more than those of one push.
"""

import threading
from dataclasses import replace
from itertools import groupby
from operator import attrgetter

from django.db import connection

from imgo_site import tracing
from imgo_site.errors import Unavailable
from imgo_site.origin import current_origin
from push.services import Push, accept_push, accept_pushes

GROUP_MAX = 500  # pushes in one transaction


class _Waiting:
    """One push, and what became of it."""

    __slots__ = ("by", "error", "id", "push", "ready")

    def __init__(self, push: Push, by: str) -> None:
        self.push = push
        self.by = by
        self.id = 0
        self.error: Exception | None = None
        self.ready = threading.Event()  # it is settled, or it is to lead


class GroupCommit:
    """Accepts pushes of many threads in groups."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[_Waiting] = []
        self._is_busy = False

    def accept(self, push: Push, by: str = "") -> int:
        """`accept_push`, together with those of other threads. Raises what that raises."""
        if push.dedupe_id or connection.in_atomic_block:
            # Whether it is accepted depends on more than the transaction of a group: on other
            # pushes, on a transaction around it.
            return accept_push(push, by)
        push.check()
        with tracing.span("imgo.accept"):
            return self._accept(_Waiting(replace(push, origin=current_origin()), by))

    def _accept(self, mine: _Waiting) -> int:
        with self._lock:
            self._waiting.append(mine)
            follows, self._is_busy = self._is_busy, True
        if follows:
            mine.ready.wait()
        if not mine.id and mine.error is None:
            self._lead()
        if mine.error is not None:
            raise mine.error
        return mine.id

    def _lead(self) -> None:
        with self._lock:
            group, self._waiting = self._waiting[:GROUP_MAX], self._waiting[GROUP_MAX:]
        try:
            for by, some in groupby(group, attrgetter("by")):
                _settle(list(some), by)
        finally:
            for one in group:
                if not one.id and one.error is None:  # this thread is being ended
                    one.error = Unavailable("The server is stopping; nothing was accepted.")
            with self._lock:
                following = self._waiting[:1]
                self._is_busy = bool(following)
            for one in (*group, *following):
                one.ready.set()


def _settle(group: list[_Waiting], by: str) -> None:
    try:
        ids = accept_pushes([one.push for one in group], by)
    except Unavailable as error:
        for one in group:
            one.error = Unavailable(error.message)  # each raises its own, with its own traceback
    except Exception as error:  # noqa: BLE001 - raised by each of those who wait
        for one in group:
            one.error = error
    else:
        for one, message_id in zip(group, ids, strict=True):
            one.id = message_id


accept_in_group = GroupCommit().accept
