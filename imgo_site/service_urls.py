"""Checks of the URLs of Redis and of the broker, without connecting."""

import re
from urllib.parse import urlsplit

import redis
from kombu import Connection

from imgo_site import redis_sentinel
from imgo_site.redis_sentinel import NodePool, is_sentinel


def check_redis_url(url: str) -> None:
    """Raise `ValueError` with the reason if redis-py cannot use the URL."""
    try:
        if is_sentinel(url):
            NodePool(url).make_connection()  # type: ignore[no-untyped-call]
            return
        redis.ConnectionPool.from_url(url).make_connection()
    except (TypeError, redis.RedisError) as error:
        raise ValueError(_reason(error)) from None
    parts = urlsplit(url)
    if parts.scheme != "unix":
        _check_number(parts.path)


def check_broker_url(url: str) -> None:
    """Raise `ValueError` with the reason if Celery cannot use the URL.

    `url`: one URL, or alternatives separated by semicolons; Celery uses one at a time.

    Raises `ImportError` if the package of a transport is missing.
    """
    if "://" not in url:
        raise ValueError("it has no scheme, such as redis://")
    if is_sentinel(url):
        url = redis_sentinel.broker(url).url
    for alternative in url.split(";"):
        if "://" in alternative:
            _check_one(alternative)


def _check_one(url: str) -> None:
    try:
        broker = Connection(url)
        # This imports the transport without connecting.
        driver = broker.create_transport().driver_type
    except NameError as error:
        # kombu uses names of the transport's package without a check that it is installed.
        raise ImportError(str(error)) from None
    except (KeyError, TypeError) as error:
        raise ValueError(_reason(error)) from None
    if driver == "redis":
        _check_number(broker.virtual_host or "")


def _check_number(path: str) -> None:
    """Raise `ValueError` unless the path is a number, as Redis's databases have.

    For another path some clients silently use the first database.
    """
    number = path.strip("/")
    if number and not (number.isascii() and number.isdecimal()):
        raise ValueError(f"its path is the number of a database, such as /0, not /{number}")


def _reason(error: Exception) -> str:
    if option := re.search(r"unexpected keyword argument '(.+)'", str(error)):
        return f"it takes no option {option[1]!r}"
    return str(error.args[0]) if error.args else type(error).__name__
