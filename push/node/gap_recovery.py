"""Recovery of what a node missed while the layer's connection was lost.

The messages of all keys are held from the loss until the pending messages of their sessions have
been read (`push/node/missed_messages.py`), a part of the keys at a time.
"""

from offline.node_io import Acknowledger
from push.bus.group_names import key_group
from push.metrics import definitions as metrics
from push.node.held_messages import HoldToken
from push.node.hub import Hub
from push.node.missed_messages import recover

TOGETHER = 250  # keys that are held until all of them are recovered
MARGIN = 2.0  # seconds added to a gap, for messages under way when it began


class GapRecovery:
    """Holds and recovers the keys of one node around gaps in the layer's connection."""

    def __init__(self, hub: Hub, acknowledger: Acknowledger) -> None:
        self._hub = hub
        self._acknowledger = acknowledger
        self._holds: list[HoldToken] = []  # of the present gap
        self._began = 0.0  # monotonic seconds

    @property
    def is_open(self) -> bool:
        """Return whether a gap has begun whose end has not been noticed."""
        return bool(self._holds)

    def begin(self) -> None:
        """Hold the messages of all keys: from now on some may be missed."""
        metrics.LAYER_RECONNECTS.labels("lost").inc()
        self._hub.gaps += 1
        if not self._holds:
            self._began = self._hub.echoes.last - MARGIN
        self._hold_keys()

    def end(self) -> None:
        """Recover what was missed, in a task of its own, and release what is held."""
        self._hold_keys()  # includes keys of sessions that were opened during the gap
        keys = list({session.key for session in self._hub.sessions.values()})
        holds, self._holds = self._holds, []
        self._hub.background.run(self._recover(keys, self._began, holds))

    def _hold_keys(self) -> None:
        groups = {key_group(session.key) for session in self._hub.sessions.values()}
        groups.difference_update(*(hold.groups for hold in self._holds))
        self._holds.append(self._hub.holds.hold(groups))

    async def _recover(self, keys: list[str], since: float, holds: list[HoldToken]) -> None:
        try:
            for start in range(0, len(keys), TOGETHER):
                part = keys[start : start + TOGETHER]
                await recover(self._hub, self._acknowledger, part, since)
                groups = {key_group(key) for key in part}
                for hold in holds:
                    self._hub.holds.release(hold, groups)
        finally:
            for hold in holds:
                self._hub.holds.release(hold)
