"""Choice of the registry: in Redis if there is a Redis, else in the process's memory."""

from imgo_site.deployment import redis_url
from imgo_site.process_parts import process
from push.registry.base import Registry
from push.registry.memory_registry import MemoryRegistry, MemoryTables
from push.registry.redis_registry import RedisRegistry


def open_registry() -> Registry:
    """Return a new registry, in Redis if `REDIS_URL` is set, else in memory. Each node has one."""
    url = redis_url()
    return RedisRegistry(url) if url else MemoryRegistry(process.get(MemoryTables))


def get_registry() -> Registry:
    """Return the registry of this process for readers: the API, workers and commands."""
    return process.get(open_registry)
