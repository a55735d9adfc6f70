"""Queries of the registry in Redis, for the API, workers, commands, and a node's own threads."""

import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import redis

from push.bus.redis_clients import reader_client
from push.registry import redis_processes, redis_queries
from push.registry.base import (
    Entry,
    FullestRooms,
    KeyMatches,
    NodeEntry,
    ProcessEntry,
    RoomMatches,
)
from push.registry.redis_errors import reading
from push.registry.redis_keys import (
    CLIENT_NAME,
    PREFIX,
    count_name,
    decode_entry,
    deliveries_name,
    key_name,
    room_name,
    rooms_name,
    text,
    waiting_name,
)
from push.registry.redis_writer import forget_commands

PROBE_TTL = 1_000  # milliseconds that a probe's key lasts


class RedisReader:
    """Reader for any thread. Its methods raise `Unavailable` if Redis is unavailable."""

    def __init__(self, url: str) -> None:
        self._reader_url = url
        self._sync: redis.Redis | None = None

    def close(self) -> None:
        """Close the connections of readers; the next query opens new ones."""
        reader, self._sync = self._sync, None
        if reader is not None:
            reader.close()

    @property
    def _reader(self) -> "redis.Redis":
        if self._sync is None:
            self._sync = reader_client(self._reader_url, CLIENT_NAME)
        return self._sync

    def probe(self) -> None:
        """Write as a login does, and publish as a push does, to check that both work."""
        name = f"{PREFIX}probe:{secrets.token_hex(4)}"
        with reading(), self._reader.pipeline(transaction=False) as pipe:
            pipe.set(name, "1", px=PROBE_TTL)
            pipe.publish(name, b"")
            pipe.execute()

    def sessions(self, key: str) -> list[Entry]:
        """Return the sessions of a key on live nodes, oldest first."""
        with reading():
            entries = [decode_entry(value) for value in self._reader.hvals(key_name(key))]
            alive = {node.id for node in self.nodes()} if entries else set()
        return sorted((e for e in entries if e.node in alive), key=lambda e: e.since)

    def waiting(self, entries: Sequence[Entry]) -> list[int]:
        """Return the unsent bytes of each of these sessions."""
        with reading(), self._reader.pipeline(transaction=False) as pipe:
            for entry in entries:
                pipe.hget(waiting_name(entry.node), entry.id)
            return [int(size or 0) for size in pipe.execute()]

    def rooms(self) -> dict[str, int]:
        """Return room → number of sessions, for every room with a session."""
        counts: dict[str, int] = {}
        with reading():
            for node in self.nodes():
                rows: Any = self._reader.zrange(rooms_name(node.id), 0, -1, withscores=True)
                for room, count in rows:
                    name = text(room)
                    counts[name] = counts.get(name, 0) + int(count)
        return counts

    def fullest_rooms(self, limit: int) -> FullestRooms:
        """Return the fullest rooms, without reading all rooms."""
        with reading():
            return redis_queries.fullest_rooms(self._reader, self.nodes(), limit)

    def find_keys(self, part: str, limit: int, cursor: int = 0) -> KeyMatches:
        """Return about `limit` of the keys with `part` in their name, from a bounded query."""
        with reading():
            return redis_queries.find_keys(self._reader, self.nodes(), part, limit, cursor)

    def find_rooms(self, part: str, limit: int, cursor: str = "") -> RoomMatches:
        """Return about `limit` of the rooms with `part` in their name, from a bounded query."""
        with reading():
            return redis_queries.find_rooms(self._reader, self.nodes(), part, limit, cursor)

    def members(self, room: str) -> list[tuple[str, str]]:
        """Return (key, session id) of the sessions in a room, sorted."""
        rows: list[tuple[str, str]] = []
        with reading():
            for node in self.nodes():
                members = self._reader.hgetall(room_name(node.id, room))
                rows += [(text(key), text(name)) for name, key in members.items()]
        return sorted(rows)

    def sizes(self, rooms: Sequence[str], besides: str = "") -> list[int]:
        """Return the number of sessions in each room, without those of the node `besides`."""
        with reading():
            names = [rooms_name(node.id) for node in self.nodes() if node.id != besides]
            counts = redis_queries.sizes(self._reader, names, rooms)
        return [counts[room] for room in rooms]

    def peek(self, room: str, limit: int) -> tuple[int, list[tuple[str, str]]]:
        """Return the number of sessions in a room, and at most `limit` of them.

        It never reads the whole room, which may be huge.
        """
        count = 0
        keys: dict[Any, Any] = {}
        with reading():
            for node in self.nodes():
                name = room_name(node.id, room)
                count += int(self._reader.hlen(name))
                if len(keys) < limit:
                    scanned: Any = self._reader.hscan(name, count=limit)[1]
                    keys.update(scanned)
        return count, sorted((text(key), text(session)) for session, key in keys.items())[:limit]

    def nodes(self) -> list[NodeEntry]:
        """Return the live nodes, sorted by number; remove the ids of dead nodes."""
        with reading():
            ids = [text(name) for name in self._reader.smembers(f"{PREFIX}nodes")]
            leases = self._reader.mget([f"{PREFIX}node:{name}" for name in ids]) if ids else []
            counts = self._reader.mget([count_name(name) for name in ids]) if ids else []
            written = self._reader.mget([deliveries_name(name) for name in ids]) if ids else []
            dead = [name for name, lease in zip(ids, leases, strict=True) if lease is None]
            if dead:
                self._reader.srem(f"{PREFIX}nodes", *dead)
        nodes = [
            replace(
                msgspec.json.decode(lease, type=NodeEntry),
                sessions=int(count or 0),
                deliveries=int(deliveries or 0),
            )
            for lease, count, deliveries in zip(leases, counts, written, strict=True)
            if lease
        ]
        return sorted(nodes, key=lambda node: node.number)

    def announce_process(self, process: ProcessEntry) -> None:
        """Write the entry of a process, which expires."""
        with reading():
            redis_processes.write(self._reader, process)

    def withdraw_process(self, process_id: str) -> None:
        """Remove the entry of a process."""
        self._execute(redis_processes.commands_to_forget(process_id))

    def processes(self) -> list[ProcessEntry]:
        """Return the live processes, sorted by kind and name."""
        with reading():
            return redis_processes.read(self._reader)

    def forget_node(self, node_id: str) -> None:
        """Remove a node's lease and counts; a live node's next renewal writes all entries again."""
        self._execute(forget_commands(node_id))

    def _execute(self, commands: list[tuple[Any, ...]]) -> None:
        with reading():
            for command in commands:
                self._reader.execute_command(*command)  # type: ignore[no-untyped-call]
