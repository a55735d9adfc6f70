"""The list of processes in Redis: an entry a process that expires, and the set of their ids."""

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
    """Return the entries that have not expired by kind and name; drop the ids of the others."""
    members: Any = client.smembers(IDS)
    ids = [text(one) for one in members]
    found: Any = client.mget([_name(one) for one in ids]) if ids else []
    expired = [one for one, entry in zip(ids, found, strict=True) if entry is None]
    if expired:
        client.srem(IDS, *expired)
    entries = [msgspec.json.decode(entry, type=ProcessEntry) for entry in found if entry]
    return sorted(entries, key=lambda entry: (entry.kind, entry.name))


def commands_to_forget(process_id: str) -> list[tuple[Any, ...]]:
    """Return the commands that take an entry out."""
    return [("DEL", _name(process_id)), ("SREM", IDS, process_id)]


def _name(process_id: str) -> str:
    return f"{PREFIX}process:{process_id}"
