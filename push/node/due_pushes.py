"""Due pushes: stores scheduled pushes as messages when they are due."""

from imgo_site.conf import conf
from imgo_site.logs import note_push
from imgo_site.push_origin import request_of
from offline import schedule
from offline.outbox_queue import Busy
from push.bus.groups import partitions_of
from push.metrics import definitions as metrics


def store() -> frozenset[int]:
    """Store one batch of due pushes; return the partitions that fan them out.

    The result is empty if no push is due, or if another node is storing them.
    """
    if not schedule.is_due():
        return frozenset()
    count = conf.PARTITIONS
    try:
        stored = schedule.store_due(lambda names: partitions_of(names, count), count)
    except Busy:
        return frozenset()
    for reason, ended in stored.ended.items():
        metrics.DROPS.labels(reason).inc(ended)
    for due in stored.due:
        metrics.SCHEDULE_SECONDS.observe(due.late)
        note_push(due.message_id, "due", request_of(due.origin))
    return frozenset(partition for due in stored.due for partition in due.partitions)
