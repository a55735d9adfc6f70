"""A look at the database that is waited for only so long.

A database that is stopped, or behind a network that swallows what is sent, leaves a query waiting
for minutes, and a probe that does not answer says less than one that does.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from django.db import DEFAULT_DB_ALIAS, connection, connections
from django.db import Error as DatabaseError

from imgo_site.database_threads import use_own_connection

PATIENCE = 3.0  # seconds from the begin of a look

T = TypeVar("T")


class BoundedQuery(Generic[T]):
    """Calls a function in a thread of its own, one at a time however many want to know."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._lock = threading.Lock()
        self._under_way: Future[T] | None = None
        self._began = 0.0  # monotonic seconds

    def __call__(self) -> T:
        """What it finds. Raises what it raises, and `TimeoutError` when it takes too long.

        As long as it takes, who comes later is told so at once.
        """
        found, began = self.begin()
        return found.result(max(0.0, began + PATIENCE - time.monotonic()))

    def begin(self) -> "tuple[Future[T], float]":
        """Start a look unless one is under way; return it, and when it began (monotonic seconds).

        A call that follows waits for it: several looks that were begun together cost one patience.
        """
        with self._lock:
            if self._under_way is None or self._under_way.done():
                self._under_way, self._began = Future(), time.monotonic()
                # Not an executor's: the end of the process would wait for it.
                target, arguments = self._run, (self._under_way,)
                threading.Thread(
                    target=target, args=arguments, name="imgo-look", daemon=True
                ).start()
            return self._under_way, self._began

    def _run(self, found: "Future[T]") -> None:
        use_own_connection()  # the pool may be full, or all of its connections in use
        try:
            result = self._function()
        except BaseException as error:  # noqa: BLE001 - it is raised where it was asked for
            connection.close()
            try:
                if isinstance(error, DatabaseError):
                    self._forget_broken()
            finally:
                found.set_exception(error)  # whatever happens: the next look waits for it
        else:
            connection.close()
            found.set_result(result)

    def _forget_broken(self) -> None:
        """Close the idle connections of the pool that are broken.

        A database that was restarted has cut all of them: they go at once, not with a failure of
        a push for each.
        """
        pools = getattr(connections[DEFAULT_DB_ALIAS], "_connection_pools", {})
        pool = pools.get(DEFAULT_DB_ALIAS)
        if pool is not None and not pool.closed:  # one that was never opened is closed too
            pool.check()
