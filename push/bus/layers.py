"""The channel layers of the two modes, and the errors of an unavailable layer.

The functions `groups_add`, `groups_discard` and `groups_send` work with any layer. They use a
layer's batch method if it has one.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from channels.exceptions import ChannelFull
from channels.layers import InMemoryChannelLayer
from channels_redis.pubsub import RedisPubSubChannelLayer, RedisPubSubLoopLayer
from channels_redis.utils import decode_hosts
from redis import RedisError
from redis import asyncio as aioredis

from push.bus.redis_clients import layer_pool
from push.bus.redis_listener import Listener
from push.bus.redis_publications import Publications

# Errors that a channel layer raises if it cannot be reached.
LAYER_ERRORS = (OSError, TimeoutError, RedisError, ChannelFull)

NEVER = float("inf")  # the expiry time of a message in the in-process layer
CAPACITY = 1_000_000  # messages that a hub may lag behind; the stock layer drops at 100


class GapWatcher(Protocol):
    """User of a layer that must know about its lost connections."""

    def layer_lost(self) -> None:
        """Record that messages may be missed: called before the first message after a gap."""

    def layer_regained(self) -> None:
        """Record that all groups are subscribed to again."""


class InProcessChannelLayer(InMemoryChannelLayer):
    """`InMemoryChannelLayer` without its expiry.

    The stock layer drops messages at a capacity of 100. It forgets a group's members after a
    day, and at once if a message waited for a minute. It scans all groups on every send, so the
    cost of a push to one key would grow with the number of rooms. None of this is needed: the
    hub leaves its groups itself and reads its one channel continuously.
    """

    def __init__(self, capacity: int = CAPACITY, **kwargs: Any) -> None:
        super().__init__(capacity=capacity, **kwargs)

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        """Queue the message itself, without a copy and without a task.

        No receiver changes the message, so no copy is needed. A task for each send would let
        other work of the loop run between two messages of a burst.

        Raises `ChannelFull` if a hub lags behind by more than the capacity.
        """
        self.require_valid_group_name(group)
        for channel in self.groups.get(group, ()):
            capacity = self.get_capacity(channel)
            queue = self.channels.setdefault(channel, asyncio.Queue(maxsize=capacity))
            try:
                queue.put_nowait((NEVER, message))
            except asyncio.QueueFull:
                raise ChannelFull(channel) from None

    async def leave(self, groups: Sequence[str], channel: str) -> None:
        """Remove a channel and its messages; `group_send` would queue messages for ever."""
        for group in groups:
            await self.group_discard(group, channel)
        self.channels.pop(channel, None)

    def _clean_expired(self) -> None:
        """Do nothing: messages and groups of this layer do not expire."""


async def groups_add(layer: Any, groups: Sequence[str], channel: str) -> None:
    """Add a channel to many groups, with one command if the layer supports that."""
    if add_all := getattr(layer, "groups_add", None):
        await add_all(groups, channel)
        return
    for group in groups:
        await layer.group_add(group, channel)


async def groups_discard(layer: Any, groups: Sequence[str], channel: str) -> None:
    """Remove a channel from many groups, with one command if the layer supports that."""
    if discard_all := getattr(layer, "groups_discard", None):
        await discard_all(groups, channel)
        return
    for group in groups:
        await layer.group_discard(group, channel)


async def leave(layer: Any, groups: Sequence[str], channel: str) -> None:
    """Remove a channel, which is no longer read, from these groups and from the layer."""
    if leave_all := getattr(layer, "leave", None):
        await leave_all(groups, channel)
        return
    await groups_discard(layer, groups, channel)


def watch_gaps(layer: Any, watcher: "GapWatcher") -> None:
    """Report lost connections of the running loop to a watcher, if the layer has such."""
    if watch := getattr(layer, "watch_gaps", None):
        watch(watcher)


def forget_watcher(layer: Any, watcher: "GapWatcher") -> None:
    """Report no more lost connections to a watcher."""
    if forget := getattr(layer, "forget_watcher", None):
        forget(watcher)


async def reconnect(layer: Any) -> None:
    """Break and renew the layer's connections, if it has any."""
    if renew := getattr(layer, "reconnect", None):
        await renew()


async def groups_send(layer: Any, messages: Sequence[tuple[str, dict[str, Any]]]) -> int | None:
    """Send (group, message) pairs in order, in pipelines if the layer supports that.

    Return how many processes receive them, summed over the messages; None if the layer does not
    report it.
    """
    if send_all := getattr(layer, "groups_send", None):
        receivers: int | None = await send_all(messages)
        return receivers
    for group, message in messages:
        await layer.group_send(group, message)
    return None


class PubSubChannelLayer(RedisPubSubChannelLayer):  # type: ignore[misc]  # it has no types
    """The Redis pub/sub layer of channels_redis with batches, confirmed joins and gap reports.

    In a storm of connects each session joins a group of its own. `groups_add` joins the groups
    of many sessions with one command. A join returns when Redis has confirmed it; every message
    published after that is received. `groups_send` sends messages in pipelines.

    Pub/sub stores nothing, so messages published during a lost connection are missed.
    The layer reports such a gap to its watchers, and a node then reads the missed messages from
    the database.

    One object serves all event loops. Each loop has a `_LoopLayer`, which has one `_Shard` for
    each Redis host.
    """

    def watch_gaps(self, watcher: GapWatcher) -> None:
        """Report lost connections of the running loop to a watcher."""
        self._get_layer().watchers.append(watcher)

    def forget_watcher(self, watcher: GapWatcher) -> None:
        """Report no more lost connections to a watcher."""
        self._get_layer().watchers.remove(watcher)

    async def leave(self, groups: Sequence[str], channel: str) -> None:
        """Remove a channel of the running loop; without another one, close the connections."""
        await self._get_layer().leave(groups, channel)

    async def reconnect(self) -> None:
        """Break the connections of the running loop and connect again."""
        await self._get_layer().reconnect()

    async def groups_send(self, messages: Sequence[tuple[str, dict[str, Any]]]) -> int:
        """Send (group, message) pairs in order; return their receivers. Raises `RedisError`."""
        return await self._get_layer().groups_send(messages)

    def _get_layer(self) -> "_LoopLayer":
        loop = asyncio.get_running_loop()
        if loop not in self._layers:
            super()._get_layer()  # also registers the cleanup at the end of the loop
            self._layers[loop] = _LoopLayer(*self._args, **self._kwargs, channel_layer=self)
        layer: _LoopLayer = self._layers[loop]
        return layer


class _LoopLayer(RedisPubSubLoopLayer):  # type: ignore[misc]
    """The layer of one event loop."""

    def __init__(self, hosts: Any = None, **options: Any) -> None:
        super().__init__(**options)  # its shards are replaced at once, and know no Sentinels
        self._shards: list[_Shard] = [_Shard(host, self) for host in decode_hosts(hosts)]
        self._in_gap: set[_Shard] = set()
        self.watchers: list[GapWatcher] = []

    def shard_lost(self, shard: "_Shard") -> None:
        """Report that messages may be missed from now on."""
        self._in_gap.add(shard)
        for watcher in tuple(self.watchers):
            watcher.layer_lost()

    def shard_regained(self, shard: "_Shard") -> None:
        """Report that all groups are subscribed to again, if every shard has regained its own."""
        self._in_gap.discard(shard)
        if not self._in_gap:
            for watcher in tuple(self.watchers):
                watcher.layer_regained()

    async def reconnect(self) -> None:
        """Break the connections; their readers connect again."""
        for shard in self._shards:
            await shard.listener.reconnect()

    async def groups_send(self, messages: Sequence[tuple[str, dict[str, Any]]]) -> int:
        """Send (group, message) pairs, in order for each group; return their receivers.

        Raises `RedisError`.
        """
        serialize = self.channel_layer.serialize
        by_shard: dict[_Shard, list[tuple[str, bytes]]] = {}
        for group, message in messages:
            name = self._get_group_channel_name(group)
            by_shard.setdefault(self._get_shard(name), []).append((name, serialize(message)))
        receivers = 0
        for shard, pairs in by_shard.items():
            receivers += await shard.publish_all(pairs)
        return receivers

    async def groups_add(self, groups: Sequence[str], channel: str) -> None:
        """Add a channel to many groups. Raises `RedisError`, `OSError` or `TimeoutError`."""
        names = [self._get_group_channel_name(group) for group in groups]
        for name in names:
            self.groups.setdefault(name, set()).add(channel)
        shards = self._by_shard(names).items()
        await asyncio.gather(*(shard.subscribe_all(its_names) for shard, its_names in shards))

    async def groups_discard(self, groups: Sequence[str], channel: str) -> None:
        """Remove a channel from many groups. Raises `RedisError`."""
        empty_names = []
        for name in map(self._get_group_channel_name, groups):
            members = self.groups.get(name, set())
            members.discard(channel)
            if not members:
                self.groups.pop(name, None)
                empty_names.append(name)
        shards = self._by_shard(empty_names).items()
        await asyncio.gather(*(shard.unsubscribe_all(its_names) for shard, its_names in shards))

    async def leave(self, groups: Sequence[str], channel: str) -> None:
        """Remove a channel from these groups and from the layer. Raises `RedisError`.

        Without another channel the connections are closed, which costs no command.
        """
        if not self.channels.keys() - {channel}:
            self._in_gap.clear()
            await self.flush()
            return
        await self.groups_discard(groups, channel)
        if self.channels.pop(channel, None) is not None:
            await self._get_shard(channel).unsubscribe(channel)

    def received(self, name: str, data: bytes) -> None:
        """Queue data published under `name`: for that channel, or for each channel of the group."""
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
    """One Redis host: a listener for subscriptions and a pool for publications.

    It replaces channels_redis' `RedisSingleShardConnection`.
    """

    def __init__(self, host: Any, layer: _LoopLayer) -> None:
        self._pool = layer_pool(host)
        self._redis = aioredis.Redis(connection_pool=self._pool)
        self._publications = Publications(self._redis)
        self.listener = Listener(
            self._pool.make_connection, lambda name, data: layer.received(name.decode(), data)
        )
        self.listener.lost = lambda: layer.shard_lost(self)
        self.listener.regained = lambda: layer.shard_regained(self)

    async def publish(self, channel: str, message: bytes) -> None:
        """Publish one message. Raises `RedisError`."""
        await self.publish_all([(channel, message)])

    async def publish_all(self, messages: Sequence[tuple[str, bytes]]) -> int:
        """Publish messages in order; return their receivers. Raises `RedisError`."""
        return await self._publications.send(messages)

    async def subscribe(self, channel: str) -> None:
        """Subscribe to one channel. Raises `RedisError`, `OSError` or `TimeoutError`."""
        await self.subscribe_all([channel])

    async def unsubscribe(self, channel: str) -> None:
        """Unsubscribe from one channel. Raises `RedisError`."""
        await self.unsubscribe_all([channel])

    async def subscribe_all(self, channels: Sequence[str]) -> None:
        """Subscribe to channels, and wait until Redis has confirmed it."""
        await self.listener.subscribe([name.encode() for name in channels])

    async def unsubscribe_all(self, channels: Sequence[str]) -> None:
        """Unsubscribe from channels."""
        await self.listener.unsubscribe([name.encode() for name in channels])

    async def flush(self) -> None:
        """Close the connections; the next use opens new ones."""
        await self.listener.close()
        await self._publications.finish()
        await self._redis.aclose(close_connection_pool=True)
