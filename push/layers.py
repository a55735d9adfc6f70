"""The channel layer of the embedded mode, and what any layer raises when it is away."""

import asyncio
from typing import Any

from channels.exceptions import ChannelFull
from channels.layers import InMemoryChannelLayer
from redis import RedisError

# What a channel layer raises when it cannot be reached.
LAYER_ERRORS = (OSError, TimeoutError, RedisError, ChannelFull)

NEVER = float("inf")  # the time when a message expires
CAPACITY = 1_000_000  # messages a hub may lag behind; the layer drops at 100 by default


class InProcessChannelLayer(InMemoryChannelLayer):
    """`InMemoryChannelLayer` without its expiry.

    The stock layer drops messages at a capacity of 100, forgets a group's members after a day
    (and at once when a message waited for a minute), and looks through all groups on every send,
    so that a push to one key would cost more with every room there is. The hub leaves its groups
    itself and reads its one channel without pause.
    """

    def __init__(self, capacity: int = CAPACITY, **kwargs: Any) -> None:
        super().__init__(capacity=capacity, **kwargs)

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        """Queue the message itself, at once: nobody changes it, and a copy and a task for each
        send would let other work of the loop come between any two messages of a burst.

        Raises `ChannelFull` when a hub lags behind by more than the capacity.
        """
        self.require_valid_group_name(group)
        for channel in self.groups.get(group, ()):
            capacity = self.get_capacity(channel)
            queue = self.channels.setdefault(channel, asyncio.Queue(maxsize=capacity))
            try:
                queue.put_nowait((NEVER, message))
            except asyncio.QueueFull:
                raise ChannelFull(channel) from None

    def _clean_expired(self) -> None:
        """Nothing expires here."""
