"""How many sessions are in a room, for the answers to the heartbeats of goim's clients.

Those of this node are counted when it is asked for; those of the others, in the rooms that were
asked for, every few seconds in one look at the registry.
"""

import asyncio
from itertools import islice

from push.bus.groups import room_group
from push.node.hub import Hub
from push.registry.base import Registry

EVERY = 2.0  # seconds between two looks
ROOMS_MAX = 2_000  # rooms of one look; where there are more, they take turns


class RoomSizes:
    """The sizes of the rooms that goim's clients of one node are in."""

    def __init__(self, hub: Hub, registry: Registry, node_id: str) -> None:
        self._hub = hub
        self._registry = registry
        self._node_id = node_id
        self._elsewhere: dict[str, int] = {}  # by room, what was looked at last at the end

    def of(self, room: str) -> int:
        """The sessions in a room, of other nodes as of the last look; no room has none."""
        if not room:
            return 0
        here = len(self._hub.groups.get(room_group(room), ()))
        return here + self._elsewhere.setdefault(room, 0)

    async def look(self) -> None:
        """Count the sessions of the other nodes. Raises `Unavailable`; then the numbers stay."""
        rooms = list(islice(self._elsewhere, ROOMS_MAX))
        for room in rooms:
            if room_group(room) not in self._hub.groups:
                del self._elsewhere[room]
        rooms = [room for room in rooms if room in self._elsewhere]
        if rooms:
            counts = await asyncio.to_thread(self._registry.sizes, rooms, self._node_id)
            for room, count in zip(rooms, counts, strict=True):
                self._elsewhere.pop(room, None)
                self._elsewhere[room] = count
