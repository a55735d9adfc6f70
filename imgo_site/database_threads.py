"""Database threads: a few threads of a node, each with a permanent database connection.

There are three groups, so that no kind of work waits for another. They run the queries of logins,
the work of open sessions (receipts, revocations, recovery), and jobs of the whole cluster. API
threads keep no connection: Django closes it at the end of each request, and they share a pool.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from django.db import DEFAULT_DB_ALIAS, InterfaceError, OperationalError, connection, connections

from imgo_site.conf import conf
from imgo_site.forks import renew_after_fork
from imgo_site.postgres.limits import limit_thread

T = TypeVar("T")

ATTEMPTS = 2  # calls; the second with a new connection, if the first connection was broken
CLUSTER_PATIENCE = 25.0  # seconds beyond `DATABASE_TIMEOUT` for cluster jobs: no caller waits
CLOSE_TIMEOUT = 5.0  # seconds that `close` waits for calls under way

# The result's future, the function, its arguments, and the maximum number of calls.
_Call = tuple["Future[Any]", Callable[..., Any], tuple[object, ...], int]


def use_own_connection(patience: float = 0.0) -> None:
    """Open the calling thread's next database connection outside of the pool.

    A pool that is full, or has only broken connections, then does not affect this thread. Call
    this again after `connection.close()`, because it copies the settings of the moment.

    `patience`: seconds beyond `DATABASE_TIMEOUT` that each statement may take.
    """
    shared = connections.settings[DEFAULT_DB_ALIAS]
    if "pool" in shared["OPTIONS"]:
        options = {name: value for name, value in shared["OPTIONS"].items() if name != "pool"}
        connections[DEFAULT_DB_ALIAS].settings_dict = {**shared, "OPTIONS": options}
    if patience:
        limit_thread(patience)


class _Workers:
    """Threads of a group between two calls of its `close`, and their calls.

    `unfinished`: calls that wait or run.
    """

    def __init__(self) -> None:
        self.calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self.threads: list[threading.Thread] = []
        self.unfinished = 0


class DatabaseThreads:
    """Group of up to `DATABASE_THREADS` threads; each is started when the others are busy.

    The threads are daemons, so the end of the process does not wait for a call that the database
    does not answer.

    `patience`: seconds beyond `DATABASE_TIMEOUT` that each of their statements may take.
    """

    def __init__(self, name: str, patience: float = 0.0) -> None:
        self._name = name
        self._patience = patience
        self.renew()

    def renew(self) -> None:
        """Start without threads, also in a forked child: the threads exist only in the parent."""
        self._lock = threading.Lock()
        self._workers = _Workers()

    async def run(self, function: Callable[..., T], *args: object) -> T:
        """Call `function(*args)` on a thread of this group and return its result.

        If the connection was broken, the call is repeated with a new one, so `function` must be
        safe to repeat. Raises the exception of the last call.

        A cancellation does not stop a call that has begun. It removes a call that has not.
        """
        return await self._run(function, args, ATTEMPTS)

    async def run_once(self, function: Callable[..., T], *args: object) -> T:
        """Call `function(*args)` like `run`, but never a second time.

        This is for functions that must not be repeated: the reply to a commit may be lost although
        the database has committed. A connection that was closed while idle is replaced before the
        call; that check costs a query.
        """
        return await self._run(function, args, 1)

    async def _run(self, function: Callable[..., T], args: tuple[object, ...], attempts: int) -> T:
        future: Future[T] = Future()
        with self._lock:
            workers = self._workers
            workers.calls.put((future, function, args, attempts))
            workers.unfinished += 1
            if len(workers.threads) < min(workers.unfinished, self.size):
                thread = threading.Thread(
                    target=self._work, args=(workers,), name=self._name, daemon=True
                )
                workers.threads.append(thread)
                thread.start()
        return await asyncio.wrap_future(future)

    @property
    def size(self) -> int:
        """Return the maximum number of threads."""
        return conf.DATABASE_THREADS

    @property
    def is_idle(self) -> bool:
        """Return whether no call waits or runs."""
        return not self._workers.unfinished

    def close(self, timeout: float = CLOSE_TIMEOUT) -> bool:
        """Close the connections and end the threads; return whether all ended within `timeout` s.

        This waits for running calls. A call that takes longer is abandoned with its thread.
        """
        with self._lock:
            workers, self._workers = self._workers, _Workers()
        for _ in workers.threads:
            workers.calls.put(None)
        deadline = time.monotonic() + timeout
        for thread in workers.threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in workers.threads)

    def _work(self, workers: _Workers) -> None:
        use_own_connection(self._patience)
        while (call := workers.calls.get()) is not None:
            future, function, args, attempts = call
            if future.set_running_or_notify_cancel():
                try:
                    result = self._call(attempts, function, *args)
                except BaseException as error:  # noqa: BLE001 - raised in the awaiting caller
                    future.set_exception(error)
                else:
                    future.set_result(result)
                    del result
            del call, future, function, args  # keep no references until the next call
            with self._lock:
                workers.unfinished -= 1
        connection.close()

    def _call(self, attempts: int, function: Callable[..., T], *args: object) -> T:
        if attempts == 1 and connection.connection is not None and not connection.is_usable():
            self._start_over()
        for _ in range(attempts - 1):
            try:
                return function(*args)
            except (OperationalError, InterfaceError):
                # The database may have closed this connection long ago; only its use shows that.
                self._start_over()
            except BaseException:
                # The next call must not inherit the connection's state after a failure.
                self._start_over()
                raise
        try:
            return function(*args)
        except BaseException:
            self._start_over()
            raise

    def _start_over(self) -> None:
        connection.close()
        use_own_connection(self._patience)


class OneDatabaseThread(DatabaseThreads):
    """One thread with a database connection of its own, for one owner."""

    size = 1


login_threads = DatabaseThreads("imgo-logins")
session_threads = DatabaseThreads("imgo-sessions")
cluster_threads = DatabaseThreads("imgo-cluster", CLUSTER_PATIENCE)
for _group in (login_threads, session_threads, cluster_threads):
    renew_after_fork(_group.renew)


class Users:
    """Count of the nodes that use the groups. The last node that leaves ends the threads."""

    def __init__(self) -> None:
        self._count = 0

    def begin(self) -> None:
        """Count a node that starts."""
        self._count += 1

    async def end(self, patience: float) -> None:
        """Count a node that stops; after the last one, wait up to `patience` seconds for calls."""
        self._count -= 1
        if not self._count:
            await asyncio.to_thread(close_all, patience)


def close_all(timeout: float = CLOSE_TIMEOUT) -> bool:
    """Close all three groups; return whether all threads ended within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    ended = [
        group.close(max(0.0, deadline - time.monotonic()))
        for group in (login_threads, session_threads, cluster_threads)
    ]
    return all(ended)
