"""Due pushes: stores scheduled pushes as messages when they are due."""

from typing import NamedTuple

from imgo_site.logs import note_push
from imgo_site.push_origin import request_of
from offline import schedule
from offline.outbox_queue import Busy
from push.metrics import definitions as metrics


class Batch(NamedTuple):
    """Partitions that fan out a batch of due pushes. `is_full`: more may be due."""

    partitions: frozenset[int]
    is_full: bool


def store() -> Batch:
    """Store one batch of due pushes; return it.

    It is empty if no push is due, or if another node is storing them.
    """
    if not schedule.is_due():
        return Batch(frozenset(), is_full=False)
    try:
        stored = schedule.store_due()
    except Busy:
        return Batch(frozenset(), is_full=False)
    for reason, ended in stored.ended.items():
        metrics.DROPS.labels(reason).inc(ended)
    for due in stored.due:
        metrics.SCHEDULE_SECONDS.observe(due.late)
        note_push(due.message_id, "due", request_of(due.origin))
    partitions = frozenset(partition for due in stored.due for partition in due.partitions)
    return Batch(partitions, is_full=len(stored.due) == schedule.BATCH)
