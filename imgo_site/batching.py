"""Batched loader: many small database look-ups become one query.

A reconnect storm opens thousands of sessions in a second; each needs its token and its pending
messages. All requests of the last few milliseconds are answered by one query, and a node holds
a small fixed number of database connections whatever the number of its sockets.
"""

import asyncio
from collections.abc import Callable, Hashable, Mapping
from typing import Generic, TypeVar, cast

from imgo_site.conf import conf
from imgo_site.database_threads import login_threads

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
T = TypeVar("T")

MAX_BATCH = 500  # look-ups in one query: far below SQLite's limit on parameters


class BatchLoader(Generic[K, V]):
    """Answers `get(key)` for many callers with one call of `fetch(keys)`.

    `fetch` runs on a thread for look-ups of logins, takes a list of distinct keys and returns a
    mapping. A key that is missing from it is answered with None. If `fetch` raises, every caller
    of that batch gets the exception.
    """

    def __init__(self, fetch: Callable[[list[K]], Mapping[K, V]]) -> None:
        self._fetch = fetch
        self._waiting: dict[K, list[asyncio.Future[V | None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None  # whose futures and tasks these are

    async def get(self, key: K) -> V | None:
        """Return the value of `key`, or None. Waits for the batch that it becomes part of."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._waiting, self._tasks = loop, {}, set()
        # One for each caller: a caller that is cancelled must not cancel the others' answer.
        future: asyncio.Future[V | None] = loop.create_future()
        if not self._waiting:
            loop.call_later(conf.LOADER_WINDOW, self._flush)
        self._waiting.setdefault(key, []).append(future)
        if len(self._waiting) >= MAX_BATCH:
            self._flush()
        return await future

    def _flush(self) -> None:
        # One batch a thread. While the database is slow or silent, the others stay here, where
        # callers that have given up drop out, instead of in the threads' queue.
        if self._waiting and len(self._tasks) < login_threads.size:
            batch = self._take_batch()
            if batch:
                task = asyncio.get_running_loop().create_task(self._answer(batch))
                self._tasks.add(task)
                task.add_done_callback(self._done)

    def _take_batch(self) -> dict[K, list[asyncio.Future[V | None]]]:
        """Take up to `MAX_BATCH` keys for which somebody still waits."""
        batch: dict[K, list[asyncio.Future[V | None]]] = {}
        while self._waiting and len(batch) < MAX_BATCH:
            key = next(iter(self._waiting))
            futures = [future for future in self._waiting.pop(key) if not future.done()]
            if futures:
                batch[key] = futures
        return batch

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._flush()

    async def _answer(self, batch: dict[K, list[asyncio.Future[V | None]]]) -> None:
        try:
            found = await login_threads.run(self._fetch, list(batch))
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
