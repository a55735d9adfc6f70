"""Connections to the Redis that Sentinels name as the master: `redis+sentinel://` in `REDIS_URL`.

    redis+sentinel://user:password@one:26379,two:26379,three:26379/service/0

`rediss+sentinel://` is the same with TLS, to Redis and to the Sentinels. User and password are
those of Redis. Options after `?` are those of redis-py for connections to Redis; names with the
prefix `sentinel_` are for connections to the Sentinels, such as `sentinel_password`.

redis-py asks the Sentinels when it makes a connection. A pool here also asks every `ASK_EVERY`
seconds, because a former master that is cut off from the Sentinels still answers its clients.
"""

import time
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

import redis
from redis.asyncio import sentinel as async_sentinel
from redis.connection import parse_url
from redis.sentinel import Sentinel, SentinelConnectionPool

SCHEMES = ("redis+sentinel", "rediss+sentinel")
DEFAULT_PORT = 26379
ASK_EVERY = 5.0  # seconds between two questions to the Sentinels which Redis is the master
TIMEOUTS = {"socket_connect_timeout": 1.0, "socket_timeout": 1.0}  # seconds, for each Sentinel
FORM = "redis+sentinel://host:26379,host:26379/service/0"


class SentinelUrl(NamedTuple):
    """Parts of a URL.

    `sentinels`: (host, port) of each. `service`: the master's name. `options`, `sentinel_options`:
    redis-py's, for connections to Redis and to the Sentinels.
    """

    sentinels: list[tuple[str, int]]
    service: str
    options: dict[str, Any]
    sentinel_options: dict[str, Any]


def is_sentinel(url: str) -> bool:
    """Return whether a URL names Sentinels."""
    return url.partition("://")[0] in SCHEMES


def parse(url: str) -> SentinelUrl:
    """Return the parts of a URL. Raises `ValueError`, whose text has no password."""
    parts = urlsplit(url)
    user, _, hosts = parts.netloc.rpartition("@")
    service, _, number = parts.path.strip("/").partition("/")
    if not service:
        raise ValueError(f"it names no service, as the Sentinels know the master: {FORM}")
    if number and not (number.isascii() and number.isdecimal()):
        raise ValueError(f"its path ends with the number of a database, such as /0, not /{number}")
    own, theirs = {}, {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name.startswith("sentinel_"):
            theirs[name.removeprefix("sentinel_")] = value
        else:
            own[name] = value
    options = _options(parts.scheme, f"{user}@" if user else "", number, own)
    tls = {name: value for name, value in options.items() if name.startswith("ssl")}
    sentinel_options = TIMEOUTS | tls | _options(parts.scheme, "", "", theirs)
    sentinels = [_address(host) for host in hosts.split(",")]
    return SentinelUrl(sentinels, service, options, sentinel_options)


def _options(scheme: str, user: str, number: str, query: dict[str, str]) -> dict[str, Any]:
    """Return redis-py's options of a connection, converted to their types."""
    text = f"redis://{user}host/{number}?{urlencode(query)}"
    options: dict[str, Any] = parse_url(text)  # type: ignore[no-untyped-call]
    del options["host"]
    if scheme.startswith("rediss"):
        options["ssl"] = True
    return options


def _address(host: str) -> tuple[str, int]:
    parts = urlsplit(f"//{host}")
    try:
        port = parts.port or DEFAULT_PORT
    except ValueError:
        raise ValueError("the port of a Sentinel is not a number up to 65535") from None
    if not parts.hostname:
        raise ValueError(f"it lacks the host of a Sentinel: {FORM}")
    return parts.hostname, port


class _AsksAgain:
    """What both kinds of pools have: when they asked the Sentinels last."""

    _asked = float("-inf")  # monotonic seconds

    def _is_time_to_ask(self) -> bool:
        """Return whether it is time, and count it as done."""
        now = time.monotonic()
        is_time = now > self._asked + ASK_EVERY
        if is_time:
            self._asked = now
        return is_time


class NodePool(_AsksAgain, async_sentinel.SentinelConnectionPool):
    """Connections of an event loop to the master.

    Raises redis-py's errors; `MasterNotFoundError`, a ConnectionError, if no Sentinel knows one.
    """

    def __init__(self, url: str, **options: Any) -> None:
        parts = parse(url)
        manager = async_sentinel.Sentinel(parts.sentinels, sentinel_kwargs=parts.sentinel_options)  # type: ignore[no-untyped-call]
        super().__init__(parts.service, manager, **parts.options | options)  # type: ignore[no-untyped-call]

    async def get_connection(self, *arguments: Any, **options: Any) -> Any:
        """Return a connection to the present master."""
        if self._is_time_to_ask():
            with suppress(redis.RedisError):  # the master that is known may still answer
                await self.get_master_address()  # type: ignore[no-untyped-call]
        return await super().get_connection(*arguments, **options)  # type: ignore[no-untyped-call]

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """Close the connections, idle ones or all; with all, those to the Sentinels too."""
        await super().disconnect(inuse_connections)
        if inuse_connections:
            await self.sentinel_manager.aclose()


class ReaderPool(_AsksAgain, SentinelConnectionPool):
    """Connections of threads to the master. Raises what `NodePool` raises."""

    def __init__(self, url: str, **options: Any) -> None:
        parts = parse(url)
        manager = Sentinel(parts.sentinels, sentinel_kwargs=parts.sentinel_options)  # type: ignore[no-untyped-call]
        super().__init__(parts.service, manager, **parts.options | options)  # type: ignore[no-untyped-call]

    def get_connection(self, *arguments: Any, **options: Any) -> Any:
        """Return a connection to the present master."""
        if self._is_time_to_ask():
            with suppress(redis.RedisError):
                self.proxy.get_master_address()  # type: ignore[no-untyped-call]
        return super().get_connection(*arguments, **options)

    def disconnect(self, inuse_connections: bool = True) -> None:
        """Close the connections, idle ones or all; with all, those to the Sentinels too."""
        super().disconnect(inuse_connections)
        if inuse_connections:
            self.sentinel_manager.close()


class Broker(NamedTuple):
    """The master as Celery's broker. `tls`: Celery's `broker_use_ssl`, None without TLS."""

    url: str
    transport_options: dict[str, Any]
    tls: dict[str, Any] | None


def broker(url: str) -> Broker:
    """Return the master that Sentinels name as Celery's broker. Raises `ValueError`."""
    parts = parse(url)
    user, _, _ = urlsplit(url).netloc.rpartition("@")
    number = parts.options.get("db", 0)
    hosts = [(f"[{host}]" if ":" in host else host, port) for host, port in parts.sentinels]
    start = f"sentinel://{user}@" if user else "sentinel://"
    urls = [f"{start}{host}:{port}/{number}" for host, port in hosts]
    tls = {name: value for name, value in parts.options.items() if name.startswith("ssl_")}
    options = {"master_name": parts.service, "sentinel_kwargs": parts.sentinel_options}
    return Broker(";".join(urls), options, tls if parts.options.get("ssl") else None)
