"""The list of processes in Redis: an expiring entry for each process, and the set of their ids."""

from typing import Any

import msgspec
import redis

from push.registry.base import PROCESS_LEASE, ProcessEntry
from push.registry.redis_keys import PREFIX, text

IDS = f"{PREFIX}processes"


def write(client: redis.Redis, process: ProcessEntry) -> None:
    """Write an entry for `PROCESS_LEASE` seconds."""
    with client.pipeline(transaction=False) as pipe:
        lease = int(PROCESS_LEASE * 1000)
        pipe.set(_name(process.id), msgspec.json.encode(process), px=lease)
        pipe.sadd(IDS, process.id)
        pipe.execute()


def read(client: redis.Redis) -> list[ProcessEntry]:
    """Return the live entries, sorted by kind and name; remove the ids of expired entries."""
    members: Any = client.smembers(IDS)
    ids = [text(member) for member in members]
    values: Any = client.mget([_name(process_id) for process_id in ids]) if ids else []
    expired = [process_id for process_id, value in zip(ids, values, strict=True) if value is None]
    if expired:
        client.srem(IDS, *expired)
    entries = [msgspec.json.decode(value, type=ProcessEntry) for value in values if value]
    return sorted(entries, key=lambda entry: (entry.kind, entry.name))


def commands_to_forget(process_id: str) -> list[tuple[Any, ...]]:
    """Return the commands that remove an entry."""
    return [("DEL", _name(process_id)), ("SREM", IDS, process_id)]


def _name(process_id: str) -> str:
    return f"{PREFIX}process:{process_id}"
