"""Database threads: a few threads of a node, each with a database connection that it keeps.

Three groups, so that none waits for another: look-ups that a login waits for, the work of open
sessions (receipts, revocations, recovery), and jobs of the whole cluster. Django would close a
connection at the end of each request, and the threads that serve the API share its pool.
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
CLUSTER_PATIENCE = 25.0  # seconds more for jobs of the cluster: nobody waits for them
CLOSE_TIMEOUT = 5.0  # seconds that `close` waits for calls under way

# The result's future, the function and its arguments, and how many calls may be made.
_Call = tuple["Future[Any]", Callable[..., Any], tuple[object, ...], int]


def use_own_connection(patience: float = 0.0) -> None:
    """Take the calling thread's next database connection from outside of the pool.

    `patience`: seconds beyond `DATABASE_TIMEOUT` that each statement may take.

    A full pool, or one whose connections are all broken, then does not concern this thread. Call
    it again after `connection.close()`: it copies the settings that are valid now.
    """
    shared = connections.settings[DEFAULT_DB_ALIAS]
    if "pool" in shared["OPTIONS"]:
        options = {name: value for name, value in shared["OPTIONS"].items() if name != "pool"}
        connections[DEFAULT_DB_ALIAS].settings_dict = {**shared, "OPTIONS": options}
    if patience:
        limit_thread(patience)


class DatabaseThreads:
    """Group of `DATABASE_THREADS` threads; each is started when the others are busy.

    `patience`: seconds beyond `DATABASE_TIMEOUT` that each of their statements may take.

    The threads are daemons: the end of the process does not wait for a call that the database
    does not answer.
    """

    def __init__(self, name: str, patience: float = 0.0) -> None:
        self._name = name
        self._patience = patience
        self.renew()

    def renew(self) -> None:
        """Begin anew in a forked child: the threads are the parent's."""
        self._lock = threading.Lock()
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle = threading.Semaphore(0)

    async def run(self, function: Callable[..., T], *args: object) -> T:
        """Call `function(*args)` on a thread of this group and return what it returns.

        If the connection was broken, the call is made again with a new one, so `function` must be
        safe to repeat. Raises what the last call raises. A cancelled waiter does not stop a call
        that has begun; one that has not begun is not made.
        """
        return await self._run(function, args, ATTEMPTS)

    async def run_once(self, function: Callable[..., T], *args: object) -> T:
        """Call `function(*args)` like `run`, but never a second time.

        For a function that must not be repeated: the answer to a commit may be lost although the
        database carried it out. A connection that was closed while idle is replaced before the
        call, which costs a query.
        """
        return await self._run(function, args, 1)

    async def _run(self, function: Callable[..., T], args: tuple[object, ...], attempts: int) -> T:
        future: Future[T] = Future()
        with self._lock:
            self._calls.put((future, function, args, attempts))
            if not self._idle.acquire(blocking=False) and len(self._threads) < self.size:
                thread = threading.Thread(
                    target=self._work, args=(self._calls,), name=self._name, daemon=True
                )
                self._threads.append(thread)
                thread.start()
        return await asyncio.wrap_future(future)

    @property
    def size(self) -> int:
        """How many threads the group may have."""
        return conf.DATABASE_THREADS

    def close(self, timeout: float = CLOSE_TIMEOUT) -> bool:
        """Close the connections and end the threads; return whether all ended within `timeout` s.

        Calls under way are waited for. A call that takes longer is left behind with its thread.
        """
        with self._lock:
            calls, self._calls = self._calls, queue.SimpleQueue()
            threads, self._threads = self._threads, []
            self._idle = threading.Semaphore(0)
        for _ in threads:
            calls.put(None)
        deadline = time.monotonic() + timeout
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _work(self, calls: "queue.SimpleQueue[_Call | None]") -> None:
        idle = self._idle
        use_own_connection(self._patience)
        while (call := calls.get()) is not None:
            future, function, args, attempts = call
            if future.set_running_or_notify_cancel():
                try:
                    result = self._call(attempts, function, *args)
                except BaseException as error:  # noqa: BLE001 - raised where it is awaited
                    future.set_exception(error)
                else:
                    future.set_result(result)
                    del result
            del call, future, function, args  # nothing is kept until the next call
            idle.release()
        connection.close()

    def _call(self, attempts: int, function: Callable[..., T], *args: object) -> T:
        if attempts == 1 and connection.connection is not None and not connection.is_usable():
            self._start_over()
        for _ in range(attempts - 1):
            try:
                return function(*args)
            except (OperationalError, InterfaceError):
                # The database may have closed this connection long ago; its next use shows that.
                self._start_over()
            except BaseException:
                # Whatever state the failure left behind must not meet the next caller.
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


login_threads = DatabaseThreads("imgo-logins")
session_threads = DatabaseThreads("imgo-sessions")
cluster_threads = DatabaseThreads("imgo-cluster", CLUSTER_PATIENCE)
for _group in (login_threads, session_threads, cluster_threads):
    renew_after_fork(_group.renew)


def close_all(timeout: float = CLOSE_TIMEOUT) -> bool:
    """Close all three groups; return whether all threads ended within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    ended = [
        group.close(max(0.0, deadline - time.monotonic()))
        for group in (login_threads, session_threads, cluster_threads)
    ]
    return all(ended)
