"""Echoes, the messages that a node sends to itself through the channel layer.

An echo that arrives shows that the layer delivers, and that all earlier messages have arrived.
"""

import asyncio
import math
from typing import Any

from push.bus.envelope import as_layer_message, echo_envelope
from push.bus.group_names import node_group


class Echoes:
    """The echoes of one node. `last`: when the latest returned one was sent, monotonic seconds."""

    def __init__(self, layer: Any, node_id: str) -> None:
        self._layer = layer
        self._group = node_group(node_id)
        self.last = 0.0
        self._waiters: dict[float, asyncio.Future[None]] = {}  # by the time the echo was sent

    async def send(self, patience: float) -> bool:
        """Send a message to this node through the layer; return whether it arrives.

        `patience`: seconds for sending it, and again for its arrival.

        Raises what the layer raises; `TimeoutError` if the layer does not accept the message.
        """
        group, loop = self._group, asyncio.get_running_loop()
        sent = loop.time()
        while sent in self._waiters:  # the time identifies the echo
            sent = math.nextafter(sent, math.inf)
        waiter = self._waiters[sent] = loop.create_future()
        try:
            async with asyncio.timeout(patience):
                await self._layer.group_send(group, as_layer_message(echo_envelope(group, sent)))
            await asyncio.wait([waiter], timeout=patience)
            return waiter.done()
        finally:
            del self._waiters[sent]  # else they would pile up while the layer is unavailable

    def arrived(self, sent: float) -> None:
        """Record an echo: all messages published before it was sent have arrived."""
        self.last = max(self.last, sent)
        waiter = self._waiters.get(sent)
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
