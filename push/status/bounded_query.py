"""Query of a service with a limited wait.

If a database is stopped, or the network drops packets, a query may wait for minutes. A probe must
answer before that.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from django.db import DEFAULT_DB_ALIAS, connection, connections
from django.db import Error as DatabaseError

from imgo_site.database_threads import use_own_connection

PATIENCE = 3.0  # seconds from the start of a query

T = TypeVar("T")


class BoundedQuery(Generic[T]):
    """Query that runs a function on a thread of its own; concurrent callers share one run."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._lock = threading.Lock()
        self._under_way: Future[T] | None = None
        self._began = 0.0  # monotonic seconds

    def __call__(self) -> T:
        """Return the result of the function, of a run under way or a new one.

        Raises what the function raises; `TimeoutError` if it has taken `PATIENCE` seconds. Callers
        that join a run later than that get the `TimeoutError` at once.
        """
        future, began = self.begin()
        return future.result(max(0.0, began + PATIENCE - time.monotonic()))

    def begin(self) -> "tuple[Future[T], float]":
        """Start a run unless one is under way; return its future and start (monotonic seconds).

        A following call waits for this run. So several queries that begin together wait for
        `PATIENCE` seconds only once.
        """
        with self._lock:
            if self._under_way is None or self._under_way.done():
                self._under_way, self._began = Future(), time.monotonic()
                # Not in an executor: the process would wait for it at its end.
                target, arguments = self._run, (self._under_way,)
                threading.Thread(
                    target=target, args=arguments, name="imgo-look", daemon=True
                ).start()
            return self._under_way, self._began

    def _run(self, future: "Future[T]") -> None:
        use_own_connection()  # all connections of the pool may be in use
        try:
            result = self._function()
        except BaseException as error:  # noqa: BLE001 - raised in the caller
            connection.close()
            try:
                if isinstance(error, DatabaseError):
                    self._forget_broken()
            finally:
                future.set_exception(error)  # in every case, because callers wait for it
        else:
            connection.close()
            future.set_result(result)

    def _forget_broken(self) -> None:
        """Close the idle connections of the pool that are broken.

        A restarted database has cut all of them. Without this, each would make one push fail.
        """
        pools = getattr(connections[DEFAULT_DB_ALIAS], "_connection_pools", {})
        pool = pools.get(DEFAULT_DB_ALIAS)
        if pool is not None and not pool.closed:  # a pool that was never opened counts as closed
            pool.check()
