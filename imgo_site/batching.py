"""Batched loader, which joins many small database queries into one.

A reconnect storm opens thousands of sessions in a second, and each needs its token and its
pending messages. One query serves all requests of the last few milliseconds. So a node needs only
a small fixed number of database connections, regardless of its number of sockets.
"""

import asyncio
from collections.abc import Callable, Hashable, Mapping
from typing import Generic, TypeVar, cast

from imgo_site.conf import conf
from imgo_site.database_threads import DatabaseThreads, login_threads

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
T = TypeVar("T")

MAX_BATCH = 500  # keys in one query: far below SQLite's limit on parameters


class BatchLoader(Generic[K, V]):
    """Loader that serves the `get(key)` of many callers with one call of `fetch(keys)`.

    `fetch`: runs on one of the `threads`, takes a list of distinct keys and returns a mapping. A
    missing key gives None. If `fetch` raises, every caller of the batch gets the exception.
    `batches`: maximum number of calls of `fetch` at a time; None: one for each thread.
    """

    def __init__(
        self,
        fetch: Callable[[list[K]], Mapping[K, V]],
        threads: DatabaseThreads = login_threads,
        batches: int | None = None,
    ) -> None:
        self._fetch = fetch
        self._threads = threads
        self._batches = batches
        self._waiting: dict[K, list[asyncio.Future[V | None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None  # the loop of those futures and tasks

    async def get(self, key: K) -> V | None:
        """Return the value of `key`, or None, after the query of its batch.

        Raises the exception of `fetch`.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._waiting, self._tasks = loop, {}, set()
        # One future for each caller: a cancelled caller must not cancel the result of others.
        future: asyncio.Future[V | None] = loop.create_future()
        if not self._waiting:
            loop.call_later(conf.LOADER_WINDOW, self._flush)
        self._waiting.setdefault(key, []).append(future)
        if len(self._waiting) >= MAX_BATCH:
            self._flush()
        return await future

    def _flush(self) -> None:
        # At most one batch a thread. While the database is slow, the other keys stay here and not
        # in the threads' queue, because here the keys of cancelled callers are dropped.
        if self._waiting and len(self._tasks) < (self._batches or self._threads.size):
            batch = self._take_batch()
            if batch:
                task = asyncio.get_running_loop().create_task(self._fetch_batch(batch))
                self._tasks.add(task)
                task.add_done_callback(self._done)

    def _take_batch(self) -> dict[K, list[asyncio.Future[V | None]]]:
        """Remove and return up to `MAX_BATCH` keys that still have a waiting caller."""
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

    async def _fetch_batch(self, batch: dict[K, list[asyncio.Future[V | None]]]) -> None:
        try:
            values = await self._threads.run(self._fetch, list(batch))
        except Exception as error:  # noqa: BLE001 - raised in every caller of this batch
            for futures in batch.values():
                settle(futures, error=error)
        else:
            for key, futures in batch.items():
                settle(futures, values.get(key))


def settle(
    futures: "list[asyncio.Future[T]]", result: T | None = None, error: Exception | None = None
) -> None:
    """Set the result, or the error, of all futures that are not done or cancelled."""
    for future in futures:
        if not future.done():
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(cast("T", result))
