"""Search for leases of dead nodes: a dead node no longer changes the beat of its lease."""

from collections.abc import Iterable

from imgo_site.conf import conf
from imgo_site.deployment import is_shared_database
from imgo_site.silence_watch import SilenceWatch
from push.online.store import Lease

READ_EVERY = 1.0  # seconds between two readings


class LeaseWatch:
    """The last beats that one node has read, of the leases of all nodes."""

    def __init__(self) -> None:
        self._watch = SilenceWatch(READ_EVERY)

    def silent(self, leases: Iterable[Lease], own_id: str | None, now: float) -> list[Lease]:
        """Return the leases whose nodes are dead or stopped, and that have not ended.

        `own_id`: this node's lease. `now`: monotonic seconds.
        """
        others = {lease.id: lease for lease in leases if lease.id != own_id and not lease.is_ended}
        silent = self._watch.seconds({id_: lease.beat for id_, lease in others.items()}, now)
        return [lease for id_, lease in others.items() if silent[id_] >= _patience(lease)]


def _patience(lease: Lease) -> float:
    """Return the seconds after which a silent lease is ended."""
    # With SQLite there is one process: all other leases are those of earlier ones. Their clients
    # get the time to come back.
    if lease.is_stopped or not is_shared_database():
        return conf.PRESENCE_GRACE
    return conf.NODE_LEASE
