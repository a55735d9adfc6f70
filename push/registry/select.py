"""Choice of the registry: in Redis if there is a Redis, else in the process's memory."""

from functools import lru_cache

from imgo_site.deployment import redis_url
from push.registry.base import Registry
from push.registry.memory_registry import MemoryRegistry
from push.registry.redis_registry import RedisRegistry


@lru_cache(maxsize=1)
def get_registry() -> Registry:
    """Return the registry of this process: in Redis if `REDIS_URL` is set, else in memory."""
    url = redis_url()
    return RedisRegistry(url) if url else MemoryRegistry()
