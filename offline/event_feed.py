"""Feed of events in the order of their ids, for a reader that must miss none.

A transaction may commit after another one that has higher ids. A reader that remembers the highest
id it has seen would then miss the lower ids. `Horizon` finds an id up to which all events are
visible or will never be.
"""

from collections.abc import Callable, Collection

from django.db.models import Max

from offline.models import Event
from offline.sql import dialect

# Seconds after which a transaction that has drawn an event's id has a transaction id. Postgres
# assigns both while it inserts the row, microseconds apart.
ASSIGN_TIME = 0.5


class Horizon:
    """Finds ids below which no event can appear any more.

    `clock`: returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._newest = 0  # highest event id when it was noted; 0: none is noted
        self._noted_at = 0.0
        self._guarded = 0  # an earlier one; 0: none
        self._limit = 0  # transactions below this id include all that have ids up to `_guarded`

    def advance(self) -> int:
        """Return an id up to which all events are visible; 0 if none is known now.

        Call it regularly, in autocommit mode. A transaction that stays open delays it.
        """
        first, following = dialect().transaction_bounds()
        newest = newest_id()
        now = self._clock()
        if not following:
            return newest
        # All transactions that have an id up to `_newest` had drawn it when it was noted.
        if not self._guarded and self._newest and now - self._noted_at >= ASSIGN_TIME:
            self._guarded, self._limit, self._newest = self._newest, following, 0
        if not self._newest:
            self._newest, self._noted_at = newest, now
        if self._guarded and first >= self._limit:
            reached, self._guarded = self._guarded, 0
            return reached
        return 0


def newest_id() -> int:
    """Return the highest id of an event; 0 if there is none."""
    return Event.objects.aggregate(newest=Max("pk"))["newest"] or 0


def read(after: int, upto: int, kinds: Collection[str], limit: int) -> list[Event]:
    """Return events with `after` < id ≤ `upto` of these kinds, in order, at most `limit`."""
    rows = Event.objects.filter(pk__gt=after, pk__lte=upto, kind__in=kinds)
    return list(rows.order_by("pk")[:limit])
