"""Number of sessions in a room, for the replies to heartbeats of goim's clients.

Sessions of this node are counted on each call. Sessions of other nodes are queried from the
registry every few seconds, in one query for all rooms that calls have named.
"""

import asyncio
from itertools import islice

from push.bus.group_names import room_group
from push.node.hub import Hub
from push.registry.base import Registry

EVERY = 2.0  # seconds between two queries
ROOMS_MAX = 2_000  # rooms of one query; if there are more, they take turns


class RoomSizes:
    """The sizes of the rooms that goim's clients of one node are in."""

    def __init__(self, hub: Hub, registry: Registry, node_id: str) -> None:
        self._hub = hub
        self._registry = registry
        self._node_id = node_id
        self._elsewhere: dict[str, int] = {}  # by room, least recently queried first

    def of(self, room: str) -> int:
        """Return the number of sessions in a room, on other nodes as of the last query.

        `room`: "" has no sessions.
        """
        if not room:
            return 0
        here = len(self._hub.groups.get(room_group(room), ()))
        return here + self._elsewhere.setdefault(room, 0)

    async def refresh(self) -> None:
        """Query the numbers of the other nodes' sessions.

        Raises `Unavailable`; the numbers then stay as they are.
        """
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
