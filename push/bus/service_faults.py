"""Texts for faults of Postgres and Redis, for readiness, logs and callers.

They do not contain the service's own text.
"""

from ssl import SSLError

from django.db import Error as DatabaseError
from redis import exceptions as redis
from redis.asyncio.sentinel import MasterNotFoundError as NodeMasterNotFound
from redis.sentinel import MasterNotFoundError

READ_ONLY = "25006"  # SQLSTATE read_only_sql_transaction
MISSING_TABLE = "42P01"  # undefined_table
RESOURCES = {"53100": "its disk is full", "53200": "it is out of memory"}  # SQLSTATE class 53
TIMEOUTS = frozenset({"57014", "55P03"})  # query_canceled, lock_not_available

NO_MASTER = "cannot be reached: no Sentinel answers and names a master"

# (error class, text): the first class that matches counts.
_REDIS: list[tuple[type[redis.RedisError], str]] = [
    (redis.OutOfMemoryError, "takes no writes: it is out of memory (maxmemory)"),
    (redis.ReadOnlyError, "takes no writes: it is a read-only replica"),
    (redis.BusyLoadingError, "is starting"),
    (redis.MasterDownError, "takes no writes: it is a replica without its master"),
    (redis.AuthenticationError, "refuses the login"),
    (redis.NoPermissionError, "refuses the login: it lacks a permission"),
    (redis.TimeoutError, "does not answer"),
    (MasterNotFoundError, NO_MASTER),
    (NodeMasterNotFound, NO_MASTER),
    (redis.ConnectionError, "cannot be reached"),
]


def of_redis(error: BaseException) -> str:
    """Return the text for an error of Redis."""
    texts = (text for kind, text in _REDIS if isinstance(error, kind))
    if isinstance(error, redis.ResponseError) and str(error).startswith("MISCONF"):
        return "takes no writes: it cannot save to its disk"
    if isinstance(error.__context__, SSLError):
        return "cannot be reached: TLS failed, its certificate may not be trusted"
    return next(texts, "refuses what it was asked")


def of_layer(error: BaseException) -> str:
    """Return the text for an error of a channel layer."""
    if isinstance(error, redis.RedisError):
        return of_redis(error)
    return "does not answer" if isinstance(error, TimeoutError) else "cannot be reached"


def of_database(error: DatabaseError) -> str:
    """Return the text for an error of the database."""
    state = getattr(error.__cause__, "sqlstate", None) or ""
    # From a statement, from a connection (target_session_attrs=read-write), and from SQLite.
    texts = ("session is read-only", "server is in hot standby mode", "readonly database")
    if state == READ_ONLY or any(text in str(error) for text in texts):
        return "takes no writes: it is read-only"
    if state in RESOURCES or "disk is full" in str(error):
        return f"takes no writes: {RESOURCES.get(state, 'its disk is full')}"
    if state in TIMEOUTS:
        return "does not answer"
    if state == MISSING_TABLE or "no such table" in str(error):
        return "is not migrated"
    return "cannot be reached"
