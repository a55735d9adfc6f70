"""Writes of a node to the registry in Redis: its lease, its sessions, and the rooms they are in.

One connection carries all writes of a node, in order.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import msgspec
import redis
import redis.asyncio as aioredis

from imgo_site.conf import conf
from imgo_site.errors import TooManySessions
from push.bus.redis_clients import node_client
from push.registry import redis_processes
from push.registry.base import REFUSED, Entry, NodeEntry
from push.registry.redis_additions import KEY_TTL, Addition, Command
from push.registry.redis_errors import unavailable
from push.registry.redis_keys import (
    CLIENT_NAME,
    PREFIX,
    count_name,
    decode_entry,
    deliveries_name,
    key_name,
    room_name,
    rooms_name,
    waiting_name,
)

KEY_RENEWAL = 240  # renewals of the lease until every key was renewed once
UNSURE_MAX = 100_000  # sessions with a failed write that are remembered until the next renewal
CHUNK = 500  # `_do` calls in one pipeline; names or keys in one command or call

# Scripts: a node reads one reply for each, instead of three or four for plain commands.

_REMOVE = """
if redis.call('HDEL', KEYS[1], ARGV[1]) == 1 then redis.call('DECR', KEYS[2]) end
"""

# Adds a session to a room, and updates the room's score among the node's rooms.
_JOIN = """
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], redis.call('HLEN', KEYS[1]), ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[4])
redis.call('EXPIRE', KEYS[2], ARGV[4])
"""

# Adds a session, under a cap. Entries of nodes without a lease are removed first, so that the
# sessions of a crashed node do not count. Returns {1, evicted entries...}, or {0} if refused.
_ADD_CAPPED = """
local cap, evict = tonumber(ARGV[3]), ARGV[4] == '1'
local evicted = {}
local alive = {}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local entry = cjson.decode(all[i + 1])
  if redis.call('EXISTS', ARGV[5] .. 'node:' .. entry.node) == 1 then
    alive[#alive + 1] = {all[i], entry.since, all[i + 1]}
  else
    redis.call('HDEL', KEYS[1], all[i])
  end
end
if #alive >= cap then
  if not evict then return {0} end
  table.sort(alive, function(a, b) return a[2] < b[2] end)
  for i = 1, #alive - cap + 1 do
    redis.call('HDEL', KEYS[1], alive[i][1])
    evicted[#evicted + 1] = alive[i][3]
  end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[6])
redis.call('INCR', KEYS[2])
return {1, unpack(evicted)}
"""

# Removes a session from a room, and the room from the node's rooms if no session is left in it.
_LEAVE = """
redis.call('HDEL', KEYS[1], ARGV[1])
local count = redis.call('HLEN', KEYS[1])
if count == 0 then redis.call('ZREM', KEYS[2], ARGV[2])
else redis.call('ZADD', KEYS[2], 'XX', count, ARGV[2]) end
"""

_encode = msgspec.json.encode
Unsure = dict[str, tuple[Entry, set[str]]]
Waiting = tuple[tuple[Command, ...], "asyncio.Future[list[Any]]"]


class RedisWriter:
    """Writer of one node. Its methods raise `Unavailable` if Redis is unavailable."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._redis: aioredis.Redis | None = None
        self._node: NodeEntry | None = None
        self._renewing: Iterator[str] = iter(())
        self._waiting: deque[Waiting] = deque()
        self._sender: asyncio.Task[None] | None = None
        # Sessions with a write that has failed, by id, with the rooms that it was about. Redis may
        # have applied it or not.
        self._unsure: Unsure = {}
        self._adding = 0  # sessions in `add`; Redis counts them before any later command

    @property
    def _client(self) -> aioredis.Redis:
        if self._redis is None:
            self._redis = node_client(self._url, CLIENT_NAME)
        return self._redis

    async def _do(self, *commands: Command) -> list[Any]:
        """Send commands in one pipeline with all others that wait; return their replies.

        One connection carries all writes of this node, in order. A storm of connects becomes a
        few large pipelines.

        Raises `Unavailable`.
        """
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._waiting.append((commands, future))
        if self._sender is None:
            self._sender = asyncio.get_running_loop().create_task(self._send_waiting())
        return await future

    async def _send_waiting(self) -> None:
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(CHUNK, len(self._waiting)))]
                try:
                    replies = await self._send(batch)
                except redis.RedisError as error:
                    replies = [error] * sum(len(commands) for commands, _ in batch)
                rest = iter(replies)
                for commands, future in batch:
                    _settle(future, [next(rest) for _ in commands])
        finally:
            self._sender = None

    async def _send(self, batch: list[Waiting]) -> list[Any]:
        """Send the commands in order; return a reply for each. Adjacent `Addition`s share one."""
        commands = itertools.chain.from_iterable(commands for commands, _ in batch)
        sizes: list[int] = []  # commands that have a reply together
        async with self._client.pipeline(transaction=False) as pipe:
            for kind, group in itertools.groupby(commands, type):
                if kind is Addition:
                    adds = [one for one in group if isinstance(one, Addition)]
                    pipe.execute_command(*Addition.command(adds))
                    sizes.append(len(adds))
                    continue
                for command in group:
                    pipe.execute_command(*command)
                    sizes.append(1)
            replies = await pipe.execute(raise_on_error=False)
        pairs = zip(replies, sizes, strict=True)
        return [reply for reply, size in pairs for _ in range(size)]

    @contextmanager
    def _noting(self, entry: Entry, rooms: Iterable[str]) -> Iterator[None]:
        """Remember a write that fails or is cancelled, for the next renewal."""
        try:
            yield
        except TooManySessions:
            raise
        except BaseException:
            self._note(entry, rooms)
            raise

    def _note(self, entry: Entry, rooms: Iterable[str]) -> None:
        if entry.id in self._unsure or len(self._unsure) < UNSURE_MAX:
            self._unsure.setdefault(entry.id, (entry, set()))[1].update(rooms)

    @property
    def _lease_name(self) -> str:
        assert self._node is not None
        return f"{PREFIX}node:{self._node.id}"

    async def start(self, node: NodeEntry) -> None:
        """Announce the node."""
        self._node = node
        await self._write_lease(0)

    async def stop(self) -> None:
        """Remove the node and all that it wrote, and close the connection."""
        assert self._node is not None
        try:
            await self._do(*forget_commands(self._node.id))
        finally:
            client, self._redis = self._redis, None
            if client is not None:
                await client.aclose()

    async def reconnect(self) -> None:
        """Drop connections that may be dead; the next command opens a new one."""
        await self._client.connection_pool.disconnect(inuse_connections=False)

    async def _write_lease(self, sessions: int, *, only_if_there: bool = False) -> bool:
        assert self._node is not None
        lease = ["PX", int(conf.NODE_LEASE * 1000)]
        only = ["XX"] if only_if_there else []
        written, *_ = await self._do(
            ("SET", self._lease_name, _encode(self._node), *lease, *only),
            ("SET", count_name(self._node.id), sessions, *lease),
            ("SADD", f"{PREFIX}nodes", self._node.id),
        )
        return bool(written)

    async def renew(self, sessions: int, entries: Iterable[tuple[Entry, set[str]]]) -> None:
        """Renew the lease and the node's keys; if the lease was lost, write `entries` again.

        Then remove what failed writes may have left of sessions that are in `entries` no more, or
        of rooms that they are in no more.
        """
        pairs = list(entries)
        unsure, self._unsure = self._unsure, {}
        try:
            await self._renew(sessions, pairs)
            await self._repair(unsure, {entry.id: rooms for entry, rooms in pairs})
        finally:
            for entry, rooms in unsure.values():
                self._note(entry, rooms)

    async def _renew(self, sessions: int, pairs: list[tuple[Entry, set[str]]]) -> None:
        sessions += self._adding
        assert self._node is not None
        addresses = {entry.address for entry, _ in pairs}
        self._node = replace(self._node, addresses=len(addresses))
        if not await self._write_lease(sessions, only_if_there=True):
            await self._write_lease(sessions)
            for entry, rooms in pairs:
                await self._do(
                    *_rewrite_commands(entry),
                    *(self._join_command(entry, room) for room in rooms),
                )
        rooms = {room for _, rooms in pairs for room in rooms}
        names = [self._own_rooms_name, *(self._own_room_name(room) for room in rooms)]
        for start in range(0, len(names), CHUNK):
            chunk = names[start : start + CHUNK]
            await self._do(*(("EXPIRE", name, self._room_ttl) for name in chunk))
        await self._renew_keys([entry.key for entry, _ in pairs])

    async def _repair(self, unsure: Unsure, current: Mapping[str, set[str]]) -> None:
        """Remove left-over entries from Redis, and from `unsure` once Redis has confirmed it.

        `current`: session id → its rooms, as they are when the commands are queued: a join that is
        queued later stays.
        """
        while unsure:
            names = list(itertools.islice(unsure, CHUNK))
            commands: list[tuple[Any, ...]] = []
            for name in names:
                entry, rooms = unsure[name]
                if name not in current:
                    # Without a change of the count, which the renewal has just set.
                    commands.append(("HDEL", key_name(entry.key), name))
                left = rooms - current.get(name, set())
                commands += [self._leave_command(entry, room) for room in left]
            if commands:
                await self._do(*commands)
            for name in names:
                del unsure[name]

    async def _renew_keys(self, keys: list[str]) -> None:
        """Renew a slice of the keys; every key has its turn long before it expires."""
        commands = []
        for _ in range(len(keys) // KEY_RENEWAL + 1):
            key = next(self._renewing, None)
            if key is None:
                self._renewing = iter(keys)
                break
            commands.append(("EXPIRE", key_name(key), KEY_TTL))
        if commands:
            await self._do(*commands)

    async def report(
        self, deliveries: int, waiting: Mapping[str, int], *, is_draining: bool = False
    ) -> None:
        """Write the figures, which expire as a lease does."""
        assert self._node is not None
        lease = int(conf.NODE_LEASE * 1000)
        name = waiting_name(self._node.id)
        commands: list[tuple[Any, ...]] = [
            ("SET", deliveries_name(self._node.id), deliveries, "PX", lease),
            ("DEL", name),
        ]
        if is_draining != self._node.is_draining:
            self._node = replace(self._node, is_draining=is_draining)
            # XX: only `renew` may restore a lost lease, because it also restores the entries.
            commands.append(("SET", self._lease_name, _encode(self._node), "PX", lease, "XX"))
        if waiting:
            pairs = (part for pair in waiting.items() for part in pair)
            commands += [("HSET", name, *pairs), ("PEXPIRE", name, lease)]
        await self._do(*commands)

    async def add(self, entry: Entry, cap: int, *, evict: bool) -> list[Entry]:
        """Add a session; at the cap, evict the oldest or raise `TooManySessions`."""
        self._adding += 1
        try:
            with self._noting(entry, ()):
                return await self._add(entry, cap, evict=evict)
        finally:
            self._adding -= 1

    async def _add(self, entry: Entry, cap: int, *, evict: bool) -> list[Entry]:
        if not cap:
            await self._do(Addition(entry))
            return []
        keys = (key_name(entry.key), count_name(entry.node))
        arguments = (entry.id, _encode(entry), cap, int(evict), PREFIX, KEY_TTL)
        (reply,) = await self._do(("EVAL", _ADD_CAPPED, 2, *keys, *arguments))
        if not reply[0]:
            raise TooManySessions(REFUSED)
        return [decode_entry(value) for value in reply[1:]]

    async def remove(self, entry: Entry, rooms: Iterable[str]) -> None:
        """Remove a session from its key and from these rooms."""
        rooms = list(rooms)
        with self._noting(entry, rooms):
            await self._do(
                ("EVAL", _REMOVE, 2, key_name(entry.key), count_name(entry.node), entry.id),
                *(self._leave_command(entry, room) for room in rooms),
            )

    async def join(self, entry: Entry, rooms: Iterable[str]) -> None:
        """Add a session to rooms."""
        rooms = list(rooms)
        with self._noting(entry, rooms):
            await self._do(*(self._join_command(entry, room) for room in rooms))

    async def leave(self, entry: Entry, room: str) -> None:
        """Remove a session from a room."""
        with self._noting(entry, [room]):
            await self._do(self._leave_command(entry, room))

    def _join_command(self, entry: Entry, room: str) -> tuple[Any, ...]:
        keys = (self._own_room_name(room), self._own_rooms_name)
        return ("EVAL", _JOIN, 2, *keys, entry.id, entry.key, room, self._room_ttl)

    def _leave_command(self, entry: Entry, room: str) -> tuple[Any, ...]:
        return ("EVAL", _LEAVE, 2, self._own_room_name(room), self._own_rooms_name, entry.id, room)

    @property
    def _room_ttl(self) -> int:
        return int(conf.NODE_LEASE * 2) + 1

    @property
    def _own_rooms_name(self) -> str:
        assert self._node is not None
        return rooms_name(self._node.id)

    def _own_room_name(self, room: str) -> str:
        assert self._node is not None
        return room_name(self._node.id, room)


def _rewrite_commands(entry: Entry) -> list[tuple[Any, ...]]:
    name = key_name(entry.key)
    return [("HSET", name, entry.id, _encode(entry)), ("EXPIRE", name, KEY_TTL)]


def forget_commands(node_id: str) -> list[tuple[Any, ...]]:
    """Return the commands that remove all that a node has written, but its sessions."""
    names = [f"{PREFIX}node:{node_id}", rooms_name(node_id), count_name(node_id)]
    names += [deliveries_name(node_id), waiting_name(node_id)]
    process = redis_processes.commands_to_forget(node_id)
    return [("DEL", *names), ("SREM", f"{PREFIX}nodes", node_id), *process]


def _settle(future: "asyncio.Future[list[Any]]", replies: list[Any]) -> None:
    """Set the replies as the result of `future`, or the first error among them."""
    if future.done():
        return  # its waiter was cancelled
    for reply in replies:
        if isinstance(reply, Exception):
            future.set_exception(unavailable(reply))
            return
    future.set_result(replies)
