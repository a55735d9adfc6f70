"""The channel layers of the two modes, and what any layer raises when it is away."""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Any

from channels.exceptions import ChannelFull
from channels.layers import InMemoryChannelLayer
from channels_redis.pubsub import (
    RedisPubSubChannelLayer,
    RedisPubSubLoopLayer,
    RedisSingleShardConnection,
)
from channels_redis.utils import decode_hosts
from redis import RedisError

logger = logging.getLogger(__name__)

# What a channel layer raises when it cannot be reached.
LAYER_ERRORS = (OSError, TimeoutError, RedisError, ChannelFull)

NEVER = float("inf")  # the time when a message expires
CAPACITY = 1_000_000  # messages a hub may lag behind; the layer drops at 100 by default
CONFIRM_TIMEOUT = 5.0  # seconds for Redis to confirm a subscription
RETRY_INTERVAL = 1.0  # seconds until a connection that failed is read again


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


async def groups_add(layer: Any, groups: Sequence[str], channel: str) -> None:
    """Add a channel to many groups of any layer, together where the layer can."""
    if together := getattr(layer, "groups_add", None):
        await together(groups, channel)
        return
    for group in groups:
        await layer.group_add(group, channel)


async def groups_discard(layer: Any, groups: Sequence[str], channel: str) -> None:
    """Take a channel out of many groups of any layer, together where the layer can."""
    if together := getattr(layer, "groups_discard", None):
        await together(groups, channel)
        return
    for group in groups:
        await layer.group_discard(group, channel)


class PubSubChannelLayer(RedisPubSubChannelLayer):  # type: ignore[misc]  # it has no types
    """The Redis pub/sub layer of channels_redis, with `groups_add` and `groups_discard`.

    In a storm of connects every session joins a group of its own. Here the groups of all that
    connect in the same moment are one command, and a join ends when Redis has confirmed it: what
    is published from then on comes in.
    """

    def _get_layer(self) -> "_LoopLayer":
        loop = asyncio.get_running_loop()
        if loop not in self._layers:
            super()._get_layer()  # also sees to the end of the loop
            self._layers[loop] = _LoopLayer(*self._args, **self._kwargs, channel_layer=self)
        layer: _LoopLayer = self._layers[loop]
        return layer


class _LoopLayer(RedisPubSubLoopLayer):  # type: ignore[misc]
    """The layer of one event loop."""

    def __init__(self, hosts: Any = None, **options: Any) -> None:
        super().__init__(hosts, **options)
        self._shards: list[_Connection] = [_Connection(host, self) for host in decode_hosts(hosts)]

    async def groups_add(self, groups: Sequence[str], channel: str) -> None:
        """Add a channel to many groups. Raises what Redis raises, or `TimeoutError`."""
        names = [self._get_group_channel_name(group) for group in groups]
        for name in names:
            self.groups.setdefault(name, set()).add(channel)
        shards = self._by_shard(names).items()
        await asyncio.gather(*(shard.subscribe_all(some) for shard, some in shards))

    async def groups_discard(self, groups: Sequence[str], channel: str) -> None:
        """Take a channel out of many groups. Raises what Redis raises."""
        left = []
        for name in map(self._get_group_channel_name, groups):
            members = self.groups.get(name, set())
            members.discard(channel)
            if not members:
                self.groups.pop(name, None)
                left.append(name)
        shards = self._by_shard(left).items()
        await asyncio.gather(*(shard.unsubscribe_all(some) for shard, some in shards))

    def _by_shard(self, names: Iterable[str]) -> "dict[_Connection, list[str]]":
        shards: dict[_Connection, list[str]] = {}
        for name in names:
            shards.setdefault(self._get_shard(name), []).append(name)
        return shards


class _Connection(RedisSingleShardConnection):  # type: ignore[misc]
    """The connection to one Redis: subscriptions and publications."""

    def __init__(self, host: Any, layer: _LoopLayer) -> None:
        super().__init__(host, layer)
        self._confirmations: dict[bytes, asyncio.Future[None]] = {}

    async def subscribe(self, channel: str) -> None:
        await self.subscribe_all([channel])

    async def subscribe_all(self, channels: Sequence[str]) -> None:
        """Subscribe to channels, and wait until Redis says so."""
        async with self._lock:
            fresh = [name for name in channels if name not in self._subscribed_to]
            if not fresh:
                return
            self._ensure_redis()
            self._ensure_receiver()
            # Redis confirms in order: the last one stands for all.
            last = fresh[-1].encode()
            confirmed = self._confirmations[last] = asyncio.get_running_loop().create_future()
            try:
                await self._pubsub.subscribe(*fresh)
                async with asyncio.timeout(CONFIRM_TIMEOUT):
                    await confirmed
            finally:
                self._confirmations.pop(last, None)
            self._subscribed_to.update(fresh)

    async def unsubscribe_all(self, channels: Sequence[str]) -> None:
        """Give up the subscriptions to channels."""
        async with self._lock:
            there = [name for name in channels if name in self._subscribed_to]
            if there:
                self._ensure_redis()
                self._ensure_receiver()
                await self._pubsub.unsubscribe(*there)
                self._subscribed_to.difference_update(there)

    async def _do_receiving(self) -> None:
        while True:
            try:
                if self._pubsub is None or not self._pubsub.subscribed:
                    await asyncio.sleep(0.01)
                    continue
                reply = await self._pubsub.parse_response(block=True)
                if reply is not None and bytes(reply[0]) == b"message":
                    self._receive_message({"channel": reply[1], "data": reply[2]})
                    continue
                confirmed = self._confirmations.get(reply[1]) if reply is not None else None
                if confirmed is not None and not confirmed.done():
                    confirmed.set_result(None)
                await self._pubsub.handle_message(reply)
            except Exception as error:  # noqa: BLE001 - the reader must outlive any of them
                logger.warning("the connection to Redis failed, connecting again: %s", error)
                await asyncio.sleep(RETRY_INTERVAL)
