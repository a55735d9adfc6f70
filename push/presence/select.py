"""Choice of presence's store: in Redis if there is a Redis, else in the process's memory."""

from imgo_site.deployment import redis_url
from imgo_site.process_parts import process
from push.presence.base import PresenceReader, PresenceStore
from push.presence.memory_store import MemoryPresence, MemoryPresenceReader, MemoryPresenceTables
from push.presence.redis_reader import RedisPresenceReader
from push.presence.redis_store import RedisPresence


def open_presence(node_id: str) -> PresenceStore:
    """Return a new store for a node."""
    url = redis_url()
    if url:
        return RedisPresence(url, node_id)
    return MemoryPresence(process.get(MemoryPresenceTables), node_id)


def _open_reader() -> PresenceReader:
    url = redis_url()
    if url:
        return RedisPresenceReader(url)
    return MemoryPresenceReader(process.get(MemoryPresenceTables))


def get_presence() -> PresenceReader:
    """Return the reader of this process."""
    return process.get(_open_reader)
