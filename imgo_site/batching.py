"""Many small database look-ups become one: the loader and the threads it runs on.

A reconnect storm opens thousands of sessions in a second; each needs its token and its pending
messages. All requests of the last few milliseconds are answered by one query, and a node holds
a small fixed number of database connections whatever the number of its sockets.
"""

import asyncio
import threading
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar, cast

from django.db import InterfaceError, OperationalError, connection
from psycopg_pool import PoolTimeout

from imgo_site.conf import conf

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
T = TypeVar("T")

ATTEMPTS = 5  # calls with a connection each, where the ones before were broken
MAX_BATCH = 500  # look-ups in one query: far below SQLite's limit on parameters


class DatabaseThreads:
    """A few threads, each with one database connection that it keeps.

    Threads of their own, because Django closes a connection at the end of each request, and
    because a storm of look-ups must not take the threads that serve the API.
    """

    def __init__(self) -> None:
        self._executor: ThreadPoolExecutor | None = None
        self._threads = 0  # of the executor

    async def run(self, function: Callable[..., T], *args: object) -> T:
        """Call `function(*args)` on a database thread.

        A broken connection is replaced and the call made again, so `function` must be safe to
        repeat. Raises what the last call raises. A cancelled waiter does not stop the call.
        """
        if self._executor is None:
            self._threads = conf.DATABASE_THREADS
            self._executor = ThreadPoolExecutor(self._threads, thread_name_prefix="imgo-database")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, _call, function, *args)

    def close(self) -> None:
        """Wait for the calls under way, close the connections and let the threads go."""
        if self._executor is not None:
            # Each waits for the others, so that each thread gets one.
            together = threading.Barrier(self._threads)
            for _ in range(self._threads):
                self._executor.submit(_close, together)
            self._executor.shutdown()
            self._executor = None


def _call(function: Callable[..., T], *args: object) -> T:
    # After a restart of the database every connection of the pool is broken, and each is found
    # out only when it is used: as many tries as there are, and one.
    for _ in range(ATTEMPTS - 1):
        try:
            return function(*args)
        except (OperationalError, InterfaceError) as error:
            connection.close()
            # The pool has waited for a connection already, and there was none.
            if isinstance(error.__cause__, PoolTimeout):
                raise
        except BaseException:
            # Whatever state the failure left behind must not meet the next caller.
            connection.close()
            raise
    return function(*args)


def _close(together: threading.Barrier) -> None:
    together.wait()
    connection.close()


database_threads = DatabaseThreads()


class BatchLoader(Generic[K, V]):
    """Answers `get(key)` for many callers with one call of `fetch(keys)`.

    `fetch` runs on a database thread, takes a list of distinct keys and returns a mapping; a key
    that is missing from it is answered with None. If it raises, every caller of that batch gets
    the exception.
    """

    def __init__(self, fetch: Callable[[list[K]], Mapping[K, V]]) -> None:
        self._fetch = fetch
        self._waiting: dict[K, list[asyncio.Future[V | None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def get(self, key: K) -> V | None:
        """The value of `key`, or None. Waits for the batch that it becomes part of."""
        loop = asyncio.get_running_loop()
        # One for each caller: who goes away must not cancel the answer of the others.
        future: asyncio.Future[V | None] = loop.create_future()
        if not self._waiting:
            loop.call_later(conf.LOADER_WINDOW, self._flush)
        self._waiting.setdefault(key, []).append(future)
        if len(self._waiting) >= MAX_BATCH:
            self._flush()
        return await future

    def _flush(self) -> None:
        if self._waiting:
            batch, self._waiting = self._waiting, {}
            task = asyncio.get_running_loop().create_task(self._answer(batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, batch: dict[K, list[asyncio.Future[V | None]]]) -> None:
        try:
            found = await database_threads.run(self._fetch, list(batch))
        except Exception as error:  # noqa: BLE001 - handed to every caller of this batch
            for futures in batch.values():
                settle(futures, error=error)
        else:
            for key, futures in batch.items():
                settle(futures, found.get(key))


def settle(
    futures: "list[asyncio.Future[T]]", result: T | None = None, error: Exception | None = None
) -> None:
    """Answer those who wait, except who has gone away meanwhile."""
    for future in futures:
        if not future.done():
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(cast("T", result))
