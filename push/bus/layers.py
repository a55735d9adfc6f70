"""The channel layers of the two modes, and what any layer raises when it is away."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from channels.exceptions import ChannelFull
from channels.layers import InMemoryChannelLayer
from channels_redis.pubsub import RedisPubSubChannelLayer, RedisPubSubLoopLayer
from channels_redis.utils import create_pool, decode_hosts
from redis import RedisError
from redis import asyncio as aioredis

from push.bus.redis_listener import Listener

# What a channel layer raises when it cannot be reached.
LAYER_ERRORS = (OSError, TimeoutError, RedisError, ChannelFull)

NEVER = float("inf")  # the time when a message expires
CAPACITY = 1_000_000  # messages a hub may lag behind; the layer drops at 100 by default
PIPELINE_MAX = 500  # messages in one pipeline


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


def on_reconnect(layer: Any, lost: Callable[[], None], regained: Callable[[], None]) -> None:
    """Have a layer that can lose its connection say so. For the running loop."""
    if tell := getattr(layer, "on_reconnect", None):
        tell(lost, regained)


async def reconnect(layer: Any) -> None:
    """Have a layer that can lose its connection make it anew."""
    if again := getattr(layer, "reconnect", None):
        await again()


async def groups_send(layer: Any, messages: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """Send messages to their groups, in order, together where the layer can."""
    if together := getattr(layer, "groups_send", None):
        await together(messages)
        return
    for group, message in messages:
        await layer.group_send(group, message)


class PubSubChannelLayer(RedisPubSubChannelLayer):  # type: ignore[misc]  # it has no types
    """The Redis pub/sub layer of channels_redis, with `groups_add` and `groups_discard`.

    In a storm of connects every session joins a group of its own. Here the groups of all that
    connect in the same moment are one command, and a join ends when Redis has confirmed it: what
    is published from then on comes in. Many messages are sent in pipelines. And it says when a
    connection had to be made again, for pub/sub keeps nothing for who was away.
    """

    def on_reconnect(self, lost: Callable[[], None], regained: Callable[[], None]) -> None:
        """Call `lost` before the first message that comes after a gap, and `regained` when all
        groups are subscribed to again. For the running loop."""
        layer = self._get_layer()
        layer.lost, layer.regained = lost, regained

    async def reconnect(self) -> None:
        """Take the connections of the running loop for dead, and make them again."""
        await self._get_layer().reconnect()

    async def groups_send(self, messages: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """Send messages to their groups, in order. Raises what Redis raises."""
        await self._get_layer().groups_send(messages)

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
        self._shards: list[_Shard] = [_Shard(host, self) for host in decode_hosts(hosts)]
        self._in_gap: set[_Shard] = set()
        self.lost: Callable[[], None] = _nothing
        self.regained: Callable[[], None] = _nothing

    def shard_lost(self, shard: "_Shard") -> None:
        """Say that messages may be missed from now on."""
        self._in_gap.add(shard)
        self.lost()

    def shard_regained(self, shard: "_Shard") -> None:
        """Say that all groups are subscribed to again, if that is so in every shard."""
        self._in_gap.discard(shard)
        if not self._in_gap:
            self.regained()

    async def reconnect(self) -> None:
        """Break the connections; their readers make them again."""
        for shard in self._shards:
            await shard.listener.reconnect()

    async def groups_send(self, messages: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """Send messages to their groups, in order for each group. Raises what Redis raises."""
        serialize = self.channel_layer.serialize
        by_shard: dict[_Shard, list[tuple[str, bytes]]] = {}
        for group, message in messages:
            name = self._get_group_channel_name(group)
            by_shard.setdefault(self._get_shard(name), []).append((name, serialize(message)))
        for shard, some in by_shard.items():
            await shard.publish_all(some)

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

    def received(self, name: str, data: bytes) -> None:
        """Queue what was published: to a channel, or to every channel in a group."""
        if name in self.channels:
            self.channels[name].put_nowait(data)
            return
        for channel in self.groups.get(name, ()):
            if channel in self.channels:
                self.channels[channel].put_nowait(data)

    def _by_shard(self, names: Iterable[str]) -> "dict[_Shard, list[str]]":
        shards: dict[_Shard, list[str]] = {}
        for name in names:
            shards.setdefault(self._get_shard(name), []).append(name)
        return shards


class _Shard:
    """One Redis: a listener for subscriptions, a pool of its own for publications.

    It stands for channels_redis' `RedisSingleShardConnection`.
    """

    def __init__(self, host: Any, layer: _LoopLayer) -> None:
        self._pool = create_pool(host)
        self._redis = aioredis.Redis(connection_pool=self._pool)
        self._lock = asyncio.Lock()  # what is published by one after the other arrives so
        self.listener = Listener(
            self._pool.make_connection, lambda name, data: layer.received(name.decode(), data)
        )
        self.listener.lost = lambda: layer.shard_lost(self)
        self.listener.regained = lambda: layer.shard_regained(self)

    async def publish(self, channel: str, message: bytes) -> None:
        """Publish one message. Raises what Redis raises."""
        async with self._lock:
            await self._redis.publish(channel, message)

    async def publish_all(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Publish messages, in order, many with one way to Redis and back."""
        async with self._lock:
            for start in range(0, len(messages), PIPELINE_MAX):
                pipe = self._redis.pipeline(transaction=False)
                for name, data in messages[start : start + PIPELINE_MAX]:
                    pipe.publish(name, data)
                await pipe.execute()

    async def subscribe(self, channel: str) -> None:
        """Subscribe to one channel. Raises what Redis raises, or `TimeoutError`."""
        await self.subscribe_all([channel])

    async def unsubscribe(self, channel: str) -> None:
        """Give up the subscription to one channel. Raises what Redis raises."""
        await self.unsubscribe_all([channel])

    async def subscribe_all(self, channels: Sequence[str]) -> None:
        """Subscribe to channels, and wait until Redis has confirmed it."""
        await self.listener.subscribe([name.encode() for name in channels])

    async def unsubscribe_all(self, channels: Sequence[str]) -> None:
        """Give up the subscriptions to channels."""
        await self.listener.unsubscribe([name.encode() for name in channels])

    async def flush(self) -> None:
        """Close the connections; the next use makes new ones."""
        await self.listener.close()
        await self._redis.aclose(close_connection_pool=True)


def _nothing() -> None:
    pass
