"""Clients and pools of the registry's, presence's and the layer's Redis, with their timeouts."""

from typing import Any

import redis
import redis.asyncio as aioredis
from channels_redis.utils import create_pool

from imgo_site import redis_sentinel


def node_pool(url: str, **options: Any) -> aioredis.ConnectionPool:
    """Return a pool for a node's event loop. `options`: redis-py's. Raises `ValueError`."""
    if redis_sentinel.is_sentinel(url):
        return redis_sentinel.NodePool(url, **options)
    return aioredis.ConnectionPool.from_url(url, **options)


def layer_pool(host: dict[str, Any]) -> aioredis.ConnectionPool:
    """Return the pool of one of the layer's hosts, as `channels_redis` decodes them."""
    options = dict(host)
    address = options.pop("address", None)
    return create_pool(host) if address is None else node_pool(str(address), **options)


def node_client(url: str, name: str) -> aioredis.Redis:
    """Return a client for a node's event loop. `name`: in CLIENT LIST."""
    pool = node_pool(url, socket_connect_timeout=2, socket_timeout=5, client_name=name)
    return aioredis.Redis.from_pool(pool)


def reader_client(url: str, name: str) -> redis.Redis:
    """Return a client for any thread, whose caller waits for an answer. `name`: in CLIENT LIST."""
    options: dict[str, Any] = {"socket_connect_timeout": 1, "socket_timeout": 1.5}
    if redis_sentinel.is_sentinel(url):
        pool: redis.ConnectionPool = redis_sentinel.ReaderPool(url, client_name=name, **options)
    else:
        pool = redis.ConnectionPool.from_url(url, client_name=name, **options)
    return redis.Redis.from_pool(pool)
