"""URLs of Redis and of the broker: what of them nobody could connect to. Nothing is connected."""

import re
from urllib.parse import urlsplit

import redis
from kombu import Connection


def check_redis_url(url: str) -> None:
    """Raises `ValueError`, which says why, for a URL that no client of Redis can be made of."""
    try:
        redis.ConnectionPool.from_url(url).make_connection()
    except (TypeError, redis.RedisError) as error:
        raise ValueError(_reason(error)) from None
    parts = urlsplit(url)
    if parts.scheme != "unix":
        _check_number(parts.path)


def check_broker_url(url: str) -> None:
    """Raises `ValueError`, which says why, for URLs that Celery cannot use.

    Several, of which one at a time is used, are separated by semicolons. Raises `ImportError` when
    the package of a transport is missing.
    """
    if "://" not in url:
        raise ValueError("it has no scheme, such as redis://")
    for one in url.split(";"):
        if "://" in one:
            _check_one(one)


def _check_one(url: str) -> None:
    try:
        broker = Connection(url)
        # It imports the transport, and connects to nothing.
        driver = broker.create_transport().driver_type
    except NameError as error:
        # kombu has names of such a package in its code, and does not see that it is missing.
        raise ImportError(str(error)) from None
    except (KeyError, TypeError) as error:
        raise ValueError(_reason(error)) from None
    if driver == "redis":
        _check_number(broker.virtual_host or "")


def _check_number(path: str) -> None:
    """Redis's databases have numbers; some of its clients would take the first one silently."""
    number = path.strip("/")
    if number and not (number.isascii() and number.isdecimal()):
        raise ValueError(f"its path is the number of a database, such as /0, not /{number}")


def _reason(error: Exception) -> str:
    if option := re.search(r"unexpected keyword argument '(.+)'", str(error)):
        return f"it takes no option {option[1]!r}"
    return str(error.args[0]) if error.args else type(error).__name__
