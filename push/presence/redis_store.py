"""Presence in Redis: the writes of one node, and the changes that it receives.

A connection of its own receives changes, by a channel of the node. It does not depend on the
channel layer, whose hosts and encryption a script could not use.
"""

import logging
import secrets
from collections.abc import Iterable, Sequence
from hashlib import sha1
from typing import Any

import msgspec
import redis
import redis.asyncio as aioredis
from redis.exceptions import NoScriptError

from imgo_site.conf import conf
from push.bus.redis_clients import node_client, node_pool
from push.bus.redis_listener import Listener
from push.presence import redis_names as names
from push.presence import redis_scripts as scripts
from push.presence.base import (
    REAP_MAX,
    Beats,
    Change,
    Check,
    Edit,
    EditReply,
    Joined,
    Receiver,
    Renewal,
    Snapshot,
)
from push.registry.redis_errors import unavailable

logger = logging.getLogger(__name__)

CLIENT_NAME = "imgo-presence"  # in CLIENT LIST
TOGETHER = 100  # calls of scripts in one pipeline

Call = tuple[str, Sequence[str], Sequence[Any]]  # script, keys, arguments

_sha = {
    text: sha1(text.encode(), usedforsecurity=False).hexdigest()
    for text in vars(scripts).values()
    if isinstance(text, str) and "redis.call" in text
}


def room_keys(room: str) -> list[str]:
    """Return the names of a room's keys, in the order that the scripts expect."""
    return [
        names.members_name(room),
        names.order_name(room),
        names.version_name(room),
        names.nodes_name(room),
    ]


def new_epoch() -> str:
    """Return an epoch that no other room has."""
    return secrets.token_hex(4)


class RedisPresence:
    """Store of one node. `node_id`: the node's."""

    def __init__(self, url: str, node_id: str) -> None:
        self._url = url
        self._id = node_id
        self._number = 0
        self._redis: aioredis.Redis | None = None
        self._pool: aioredis.ConnectionPool | None = None  # of the listener
        self._listener: Listener | None = None

    @property
    def _client(self) -> aioredis.Redis:
        if self._redis is None:
            self._redis = node_client(self._url, CLIENT_NAME)
        return self._redis

    async def start(self, number: int, receiver: Receiver) -> None:
        """Begin to receive changes."""
        self._number = number
        self._pool = node_pool(self._url, client_name=CLIENT_NAME)

        def received(name: bytes, data: bytes) -> None:
            if name.decode() == names.ALL_CHANNEL:
                receiver.lost() if data == b"lost" else receiver.settled()
            elif (change := decode_change(data)) is not None:
                receiver.changed(change)

        self._listener = Listener(self._pool.make_connection, received)
        self._listener.regained = receiver.regained
        channels = (names.node_channel(self._id), names.ALL_CHANNEL)
        try:
            await self._listener.subscribe([channel.encode() for channel in channels])
        except (redis.RedisError, OSError, TimeoutError) as error:
            raise unavailable(error) from error

    async def stop(self) -> None:
        """Let the node's keys leave after the grace, and close the connections."""
        try:
            await self._run((scripts.DEPART, [names.BEATS], [self._id]))
        finally:
            client, self._redis = self._redis, None
            listener, self._listener = self._listener, None
            pool, self._pool = self._pool, None
            if listener is not None:
                await listener.close()
            if pool is not None:
                await pool.disconnect()
            if client is not None:
                await client.aclose()

    async def _run(self, *calls: Call) -> list[Any]:
        """Run scripts in order, in pipelines; return their replies. Raises `Unavailable`."""
        replies = await self._try(*calls)
        for reply in replies:
            if isinstance(reply, Exception):
                raise unavailable(reply)
        return replies

    async def _try(self, *calls: Call) -> list[Any]:
        replies: list[Any] = []
        for start in range(0, len(calls), TOGETHER):
            part = calls[start : start + TOGETHER]
            answers = await self._send(part)
            missing = [i for i, reply in enumerate(answers) if isinstance(reply, NoScriptError)]
            if missing:  # Redis was started again, or has dropped its scripts
                await self._load({part[i][0] for i in missing})
                again = await self._send([part[i] for i in missing])
                for i, reply in zip(missing, again, strict=True):
                    answers[i] = reply
            replies += answers
        return replies

    async def _send(self, calls: Sequence[Call]) -> list[Any]:
        commands = [("EVALSHA", _sha[text], len(keys), *keys, *args) for text, keys, args in calls]
        return await self._execute(*commands)

    async def _load(self, texts: Iterable[str]) -> None:
        await self._execute(*(("SCRIPT LOAD", text) for text in texts))

    async def _execute(self, *commands: tuple[Any, ...]) -> list[Any]:
        """Send commands in one pipeline; an error of one command is its reply."""
        try:
            async with self._client.pipeline(transaction=False) as pipe:
                for command in commands:
                    pipe.execute_command(*command)
                return list(await pipe.execute(raise_on_error=False))
        except (redis.RedisError, OSError) as error:
            raise unavailable(error) from error

    # The lease

    async def renew(self) -> Renewal:
        """Beat: renew the node's lease."""
        keys = [names.BEATS, names.GENERATION, names.SETTLING, names.RENEWED]
        arguments = [self._id, secrets.token_hex(4), new_epoch(), names.ALL_CHANNEL]
        ((held, generation, settling),) = await self._run((scripts.RENEW, keys, arguments))
        await self._follow_master()
        return Renewal(bool(held), generation.decode(), bool(settling))

    async def _follow_master(self) -> None:
        """Subscribe at the present master, if the listener is still at a former one."""
        # Of a pool for Sentinels, which the command before has kept up to date.
        master = getattr(self._client.connection_pool, "master_address", None)
        listener = self._listener
        if master is not None and listener is not None and listener.address not in (None, master):
            await listener.reconnect()

    async def confirm(self, generation: str) -> None:
        """Record that the node has written all its keys in this generation."""
        keys = [names.GENERATION, names.RENEWED]
        await self._run((scripts.CONFIRM, keys, [generation, self._number]))

    async def settle(self, generation: str, numbers: Iterable[int]) -> bool:
        """End settling if these nodes have confirmed the generation."""
        keys = [names.GENERATION, names.SETTLING, names.RENEWED]
        arguments = [generation, names.ALL_CHANNEL, *numbers]
        (is_settled,) = await self._run((scripts.SETTLE, keys, arguments))
        return bool(is_settled)

    # Rooms

    def _keys(self, room: str, node_id: str) -> list[str]:
        own = [names.held_name(node_id, room), names.rooms_name(node_id)]
        shared = [names.BEATS, names.SETTLING]
        return [*room_keys(room), *own, *shared, names.infos_name(room)]

    async def edit(self, edits: Sequence[Edit]) -> list[EditReply | Exception]:
        """Carry out edits in order."""
        replies = await self._try(*map(self._edit_call, edits))
        return [
            unavailable(reply) if isinstance(reply, Exception) else _edit_reply(reply)
            for reply in replies
        ]

    def _edit_call(self, edit: Edit) -> Call:
        entered = [part for row in edit.entered for part in row]
        head = [names.PREFIX, self._id, edit.room, new_epoch(), conf.PRESENCE_MAX]
        arguments = [*head, len(edit.entered), *entered, *edit.left]
        return scripts.EDIT, self._keys(edit.room, self._id), arguments

    async def snapshots(self, rooms: Sequence[str]) -> list[Snapshot]:
        """Return who is in these rooms."""
        calls: list[Call] = [
            (scripts.SNAPSHOT, room_keys(room), [conf.PRESENCE_MAX]) for room in rooms
        ]
        snapshots = []
        for epoch, number, count, rows in await self._run(*calls):
            members = None if rows is None else dict(members_of(rows))
            snapshots.append(Snapshot((epoch or b"").decode(), int(number or 0), count, members))
        return snapshots

    async def check(self, rooms: Sequence[str]) -> list[Check]:
        """Return what Redis has of these rooms."""
        calls: list[Call] = [
            (scripts.CHECK, [*room_keys(room), names.held_name(self._id, room)], [])
            for room in rooms
        ]
        return [
            Check(held, (epoch or b"").decode(), int(number or 0), bool(is_whole))
            for held, epoch, number, is_whole in await self._run(*calls)
        ]

    async def held_keys(self, room: str) -> set[str]:
        """Return the keys that the node holds in a room, as Redis has them."""
        return await self._set(names.held_name(self._id, room))

    async def held_rooms(self) -> set[str]:
        """Return the rooms in which the node holds keys, as Redis has them."""
        return await self._set(names.rooms_name(self._id))

    async def _set(self, name: str) -> set[str]:
        (members,) = await self._execute(("SMEMBERS", name))
        if isinstance(members, Exception):
            raise unavailable(members)
        return {value.decode() for value in members}

    # Other nodes

    async def beats(self) -> Beats:
        """Return the beats of all nodes."""
        beats, settling = await self._execute(("HGETALL", names.BEATS), ("EXISTS", names.SETTLING))
        for reply in (beats, settling):
            if isinstance(reply, Exception):
                raise unavailable(reply)
        return Beats({node.decode(): beat.decode() for node, beat in beats.items()}, bool(settling))

    async def condemn(self, node_id: str, beat: str) -> bool:
        """Declare a node dead, if `beat` is still its latest."""
        keys = [names.BEATS, names.SETTLING]
        (is_dead,) = await self._run((scripts.CONDEMN, keys, [node_id, beat]))
        return bool(is_dead)

    async def rooms_of(self, node_id: str) -> list[str]:
        """Return the rooms in which a node holds keys."""
        return sorted(await self._set(names.rooms_name(node_id)))

    async def reap(self, room: str, node_id: str) -> int:
        """Remove up to `REAP_MAX` keys of a dead node from a room."""
        head = [names.PREFIX, node_id, room, new_epoch(), conf.PRESENCE_MAX]
        call = (scripts.REAP, self._keys(room, node_id), [*head, REAP_MAX])
        (rest,) = await self._run(call)
        return int(rest)

    async def forget(self, node_id: str) -> None:
        """Forget a dead node that holds no key any more."""
        keys = [names.BEATS, names.rooms_name(node_id)]
        await self._run((scripts.FORGET, keys, [node_id]))


def _edit_reply(reply: Any) -> EditReply:
    if not reply[0]:
        return EditReply(is_refused=True)
    _, deferred, change = reply
    keys = [key.decode() for key in deferred]
    return EditReply(deferred=keys, change=None if change is None else decode_change(change))


def decode_change(data: bytes) -> Change | None:
    """Return a change from the bytes that a script has sent; None for other bytes."""
    try:
        room, epoch, number, count, is_listed, joined, left = msgspec.msgpack.decode(data)
        rows = [
            Joined(joined[i], joined[i + 1], bool(joined[i + 2])) for i in range(0, len(joined), 3)
        ]
        return Change(room, epoch, int(number), int(count), bool(is_listed), rows, left)
    except (ValueError, TypeError, IndexError, msgspec.DecodeError) as error:
        logger.warning("dropped a malformed change of a room: %s", type(error).__name__)
        return None


def members_of(rows: Sequence[bytes]) -> Iterable[tuple[str, str]]:
    """Yield (key, info) of the members in a reply: key, value, key, value and so on."""
    for i in range(0, len(rows), 2):
        yield rows[i].decode(), rows[i + 1].decode().split(" ", 2)[2]
