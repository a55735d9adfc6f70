"""Reads from a standby of Postgres: the dashboard, `explain` and the lists of records.

A standby replays the primary's transactions some time after they were committed. What is read from
it is therefore labelled with its age, and is read from the primary if the standby is too far behind
or unavailable. Nothing else reads from it: pushes, sessions and the API need the primary's rows.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from django.db import DEFAULT_DB_ALIAS, connections
from django.db import Error as DatabaseError

from imgo_site.conf import conf
from imgo_site.process_parts import process

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

APPS = frozenset({"offline", "push"})  # tokens are read from the primary: a revocation must show
CHECK_EVERY = 1.0  # seconds that one measurement of the age is used
RETRY_AFTER = 10.0  # seconds without attempts after the standby could not be reached

# Seconds since the commit of the last transaction that was replayed. That is an upper bound of the
# age: the primary may have been idle since. It also grows when the standby has lost its connection.
# NULL: nothing was replayed since the standby was started.
_AGE = """SELECT pg_is_in_recovery(),
          extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8"""


@dataclass(frozen=True, slots=True)
class Source:
    """The database that is read.

    `alias`: in `DATABASES`. `age`: of the standby's rows at most, seconds; None for the primary.
    `problem`: why the primary is read although a replica is set, "" if that is not so.
    """

    alias: str = DEFAULT_DB_ALIAS
    age: float | None = None
    problem: str = ""

    @property
    def sentence(self) -> str:
        """Return what a reader must know of the source, "" without a replica."""
        if self.problem:
            return f"{self.problem} This was read from the primary."
        if self.age is None:
            return ""
        return f"Read from the replica, at most {self.age:.1f} s old."


PRIMARY = Source()
_ONLY_PRIMARY = Source()  # inside of `from_primary`
_source: ContextVar[Source] = ContextVar("imgo_database_source", default=PRIMARY)


class ReplicaRouter:
    """Router for `DATABASE_ROUTERS`: inside of `from_replica`, reads go to the replica."""

    def db_for_read(self, model: Any, **_: Any) -> str | None:
        """Return the replica's alias for imgo's tables inside of `from_replica`, else None."""
        source = _source.get()
        return source.alias if source.age is not None and model._meta.app_label in APPS else None

    def db_for_write(self, model: Any, **_: Any) -> str | None:
        """Return the primary for imgo's tables, also for objects that the replica has given."""
        return DEFAULT_DB_ALIAS if model._meta.app_label in APPS else None

    def allow_migrate(self, db: str, app_label: str, **_: Any) -> bool | None:  # noqa: ARG002
        """Return False for the replica: it gets its tables from the primary."""
        return False if db == conf.REPLICA_DATABASE else None


class _Replica:
    """What a process knows of the replica."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._source = PRIMARY
        self._until = 0.0  # monotonic seconds: the source holds until then

    def source(self) -> Source:
        """Return where to read from now. One thread measures; others use what is known."""
        if time.monotonic() >= self._until and self._lock.acquire(blocking=False):
            try:
                self._measure()
            finally:
                self._lock.release()
        return self._source

    def fail(self, error: DatabaseError) -> None:
        """Read from the primary for a while, because the replica has failed."""
        logger.warning("the replica cannot be read; the primary is: %s", error)
        self._use(Source(problem="The replica cannot be reached."), RETRY_AFTER)

    def _measure(self) -> None:
        alias = conf.REPLICA_DATABASE
        try:
            with connections[alias].cursor() as cursor:
                cursor.execute(_AGE)
                is_standby, age = cursor.fetchone()
        except DatabaseError as error:
            self.fail(error)
            return
        finally:
            connections[alias].close()
        if not is_standby:
            self._use(Source(problem="The replica is no standby now."), RETRY_AFTER)
        elif age is None or age > conf.REPLICA_LAG_MAX:
            behind = "" if age is None else f": its rows are up to {age:.0f} s old"
            self._use(Source(problem=f"The replica is too far behind{behind}."), CHECK_EVERY)
        else:
            self._use(Source(alias, max(0.0, age)), CHECK_EVERY)

    def _use(self, source: Source, seconds: float) -> None:
        self._source, self._until = source, time.monotonic() + seconds


def current_source() -> Source:
    """Return where imgo's tables are read from at this place of the code."""
    return _source.get()


def from_replica(function: Callable[P, T]) -> Callable[P, T]:
    """Let a function read imgo's tables from the replica, if there is one that is fit.

    If the replica fails meanwhile, the function is called again with the primary. So it must only
    read. `current_source` tells it, and what it calls, where the rows come from.
    """

    @wraps(function)
    def read(*args: P.args, **kwargs: P.kwargs) -> T:
        if not conf.REPLICA_DATABASE or _source.get() is not PRIMARY:
            return function(*args, **kwargs)
        replica = process.get(_Replica)
        source = replica.source()
        try:
            with _reading(source):
                return function(*args, **kwargs)
        except DatabaseError as error:
            if source.age is None:
                raise
            replica.fail(error)
        with _reading(replica.source()):
            return function(*args, **kwargs)

    return read


@contextmanager
def _reading(source: Source) -> Iterator[None]:
    token = _source.set(source)
    try:
        yield
    finally:
        _source.reset(token)
        if source.age is not None:
            # It has no pool, and a node's threads end no request that would close it.
            connections[source.alias].close()


def from_primary(function: Callable[P, T]) -> Callable[P, T]:
    """Let a function inside of `from_replica` read from the primary all the same."""

    @wraps(function)
    def read(*args: P.args, **kwargs: P.kwargs) -> T:
        token = _source.set(_ONLY_PRIMARY)
        try:
            return function(*args, **kwargs)
        finally:
            _source.reset(token)

    return read
