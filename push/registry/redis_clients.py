"""Clients of the registry's and presence's Redis, with their timeouts."""

import redis
import redis.asyncio as aioredis


def node_client(url: str, name: str) -> aioredis.Redis:
    """Return a client for a node's event loop. `name`: in CLIENT LIST."""
    return aioredis.Redis.from_url(
        url, socket_connect_timeout=2, socket_timeout=5, client_name=name
    )


def reader_client(url: str, name: str) -> redis.Redis:
    """Return a client for any thread, whose caller waits for an answer. `name`: in CLIENT LIST."""
    return redis.Redis.from_url(url, socket_connect_timeout=1, socket_timeout=1.5, client_name=name)
