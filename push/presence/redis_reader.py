"""Queries of presence in Redis, for the API, the dashboard and commands."""

from typing import Any

import redis

from push.bus.redis_clients import reader_client
from push.presence import redis_names as names
from push.presence.base import PresencePage
from push.presence.redis_scripts import PAGE
from push.presence.redis_store import CLIENT_NAME, members_of, room_keys
from push.registry.redis_errors import reading


class RedisPresenceReader:
    """Reader for any thread. Its methods raise `Unavailable` if Redis is unavailable."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._redis: redis.Redis | None = None

    def close(self) -> None:
        """Close the connections; the next query opens new ones."""
        client, self._redis = self._redis, None
        if client is not None:
            client.close()

    @property
    def _client(self) -> "redis.Redis":
        if self._redis is None:
            self._redis = reader_client(self._url, CLIENT_NAME)
        return self._redis

    def page(self, room: str, window: slice) -> PresencePage:
        """Return the members of a room in this window of all, sorted by key."""
        keys = [*room_keys(room), names.SETTLING]
        is_empty = window.stop <= window.start
        first, last = (1, 0) if is_empty else (window.start, window.stop - 1)
        with reading():
            answer: Any = self._client.eval(PAGE, len(keys), *keys, first, last)
        epoch, number, count, settling, rows = answer
        version = f"{epoch.decode()}.{int(number)}" if epoch else ""
        return PresencePage(version, count, bool(settling), list(members_of(rows)))
