"""The registry in Redis, for several nodes and for API processes without a node.

Keys, all under `PREFIX`:

- `nodes`: the ids of nodes; `node:<id>`: a node's lease
- `count:<node>`: its number of sessions
- `deliveries:<node>`: the number of messages it has written to sessions
- `waiting:<node>`: session id → unsent bytes
- `fullest:<node>`: its rooms, scored by the number of its sessions in each
- `room:<node>:<hash>`: its sessions in a room
- `key:<hash>`: the sessions of a subscriber key, each with the id of its node

Keys of only one node expire soon after its lease. Several nodes share the sessions of a key, so
readers check them against the leases.
"""

from push.registry.redis_reader import RedisReader
from push.registry.redis_writer import RedisWriter


class RedisRegistry(RedisWriter, RedisReader):
    """The registry in Redis. Its methods raise `Unavailable` if Redis is unavailable."""

    def __init__(self, url: str) -> None:
        RedisWriter.__init__(self, url)
        RedisReader.__init__(self, url)

    async def stop(self) -> None:
        """Remove the node and all that it wrote, and close the connections."""
        try:
            await super().stop()
        finally:
            self.close()
