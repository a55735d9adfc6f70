"""Reaper: removes the keys of dead nodes from the store. Every node tries; a script decides.

A live node changes its *beat* every few seconds. A node is dead if its beat has stayed the same for
`NODE_LEASE` seconds, by the measure of `imgo_site/silence_watch.py`. No expiry in Redis has a part
in it.
"""

from collections.abc import Mapping

from imgo_site.silence_watch import SilenceWatch
from push.metrics import definitions as metrics
from push.presence.base import DEAD, GONE, PresenceStore


class BeatWatch:
    """Time for which the beats of other nodes have stayed the same.

    `lease`: seconds after which a silent node is dead. `grace`: the same for a node that was
    stopped. `every`: seconds between two readings.
    """

    def __init__(self, own_id: str, lease: float, grace: float, every: float) -> None:
        self._own_id = own_id
        self._limits = {DEAD: 0.0, GONE: grace}  # by the beats that nodes do not give themselves
        self._lease = lease
        self._watch = SilenceWatch(every)

    def dead(self, beats: Mapping[str, str], now: float) -> list[str]:
        """Return the nodes that are dead, by these beats. `now`: monotonic seconds."""
        others = {node_id: beat for node_id, beat in beats.items() if node_id != self._own_id}
        return [
            node_id
            for node_id, silent in self._watch.seconds(others, now).items()
            if silent >= self._limits.get(others[node_id], self._lease)
        ]


class Reaper:
    """Reaper of one node."""

    def __init__(self, store: PresenceStore, watch: BeatWatch) -> None:
        self._store = store
        self._watch = watch

    async def round(self, now: float) -> None:
        """Remove the keys of nodes that are dead. Raises `Unavailable`."""
        beats = await self._store.beats()
        dead = self._watch.dead(beats.by_node, now)
        if not beats.is_settling:  # else a live node may not have written its keys yet
            for node_id in dead:
                await self._reap(node_id, beats.by_node[node_id])

    async def _reap(self, node_id: str, beat: str) -> None:
        if beat != DEAD:
            if not await self._store.condemn(node_id, beat):
                return  # it has beaten meanwhile
            metrics.PRESENCE_REAPED.inc()
        for room in await self._store.rooms_of(node_id):
            rest = 1
            while rest > 0:
                rest = await self._store.reap(room, node_id)
            if rest < 0:
                return  # it has come back
        await self._store.forget(node_id)
