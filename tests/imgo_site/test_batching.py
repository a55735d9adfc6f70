"""Many look-ups, one query; a failure reaches whom it concerns, and nobody else."""

import asyncio
import gc
import threading

import pytest
from django.db import OperationalError, connection
from psycopg_pool import PoolTimeout

from imgo_site import batching
from imgo_site.batching import BatchLoader, DatabaseThreads, database_threads
from tests import eventually


class Fetch:
    """Answers keys with their length, counts its calls, and can be stopped or made to fail."""

    def __init__(self) -> None:
        self.batches = []
        self.error = None
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def __call__(self, keys):
        self.batches.append(keys)
        assert self.may_go_on.wait(10)
        if self.error is not None:
            raise self.error
        return {key: len(key) for key in keys if key}


@pytest.fixture
def fetch():
    return Fetch()


@pytest.fixture
def loader(fetch):
    return BatchLoader(fetch)


async def test_many_callers_share_one_call(loader, fetch):
    answers = await asyncio.gather(*(loader.get("x" * (n % 50 + 1)) for n in range(200)))
    assert answers == [n % 50 + 1 for n in range(200)]
    assert [len(batch) for batch in fetch.batches] == [50]


async def test_a_key_that_is_not_found_is_none(loader):
    assert await loader.get("") is None


async def test_a_later_caller_is_in_a_later_batch(loader, fetch):
    await loader.get("a")
    await loader.get("a")
    assert fetch.batches == [["a"], ["a"]]


async def test_a_full_batch_does_not_wait_for_the_window(loader, fetch, imgo, monkeypatch):
    imgo(LOADER_WINDOW=3600.0)
    monkeypatch.setattr(batching, "MAX_BATCH", 3)
    assert await asyncio.gather(*map(loader.get, ["a", "b", "c"])) == [1, 1, 1]
    assert fetch.batches == [["a", "b", "c"]]


async def test_an_error_reaches_every_caller_and_not_the_next(loader, fetch):
    fetch.error = LookupError("no luck")
    answers = await asyncio.gather(*map(loader.get, "abab"), return_exceptions=True)
    assert answers == [fetch.error] * 4
    fetch.error = None
    assert await loader.get("a") == 1


async def test_a_cancelled_caller_does_not_cancel_the_others(loader, fetch):
    fetch.may_go_on.clear()
    gone, stays = (asyncio.create_task(loader.get("a")) for _ in range(2))
    await eventually(lambda: fetch.batches)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    fetch.may_go_on.set()
    assert await stays == 1


async def test_an_error_nobody_waits_for_is_not_reported(loader, fetch, imgo, caplog):
    imgo(DATABASE_THREADS=1)  # one after the other
    fetch.error = LookupError("no luck")
    fetch.may_go_on.clear()
    gone = asyncio.create_task(loader.get("a"))
    await eventually(lambda: fetch.batches)
    gone.cancel()
    fetch.may_go_on.set()
    with pytest.raises(LookupError):
        await loader.get("b")
    del gone
    gc.collect()
    assert caplog.text == ""


def backend() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return cursor.fetchone()[0]


async def test_a_thread_keeps_its_connection(transactional_db, imgo):
    imgo(DATABASE_THREADS=1)
    assert await database_threads.run(backend) == await database_threads.run(backend)


async def test_a_broken_connection_is_replaced(terminate, imgo):
    imgo(DATABASE_THREADS=1)
    before = await database_threads.run(backend)
    assert terminate(before) == 1
    assert await database_threads.run(backend) != before


async def test_broken_connections_in_the_pool_are_replaced_too(terminate):
    together = threading.Barrier(3)

    def meet() -> None:
        backend()
        together.wait(10)

    def meet_and_leave() -> None:
        meet()
        connection.close()  # into the pool

    await asyncio.gather(
        *(database_threads.run(meet) for _ in range(2)), asyncio.to_thread(meet_and_leave)
    )
    assert terminate() >= 3
    assert all(await asyncio.gather(*(database_threads.run(backend) for _ in range(2))))


async def test_a_pool_without_connections_is_not_waited_for_again(transactional_db):
    calls = []

    def wait_for_one() -> None:
        calls.append(1)
        raise OperationalError("no connection") from PoolTimeout("no connection after 5.00 sec")

    with pytest.raises(OperationalError):
        await database_threads.run(wait_for_one)
    assert len(calls) == 1


def is_autocommit() -> bool:
    return connection.get_autocommit()  # of this thread


async def test_a_failed_transaction_does_not_meet_the_next_caller(transactional_db, imgo):
    imgo(DATABASE_THREADS=1)

    def fail() -> None:
        connection.set_autocommit(False)
        raise LookupError

    with pytest.raises(LookupError):
        await database_threads.run(fail)
    assert await database_threads.run(is_autocommit)


async def test_an_error_of_the_call_is_the_callers(transactional_db):
    calls = []

    def fail() -> None:
        calls.append(1)
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await database_threads.run(fail)
    assert len(calls) == 1  # not made again: only a broken connection is worth that


def lent(stats: dict[str, int]) -> int:
    return stats["pool_size"] - stats["pool_available"]


async def test_close_closes_the_connections_of_all_threads(transactional_db, imgo):
    imgo(DATABASE_THREADS=2)
    pool = connection.pool
    before = lent(pool.get_stats())  # the test's own
    # Often: which thread gets which call is up to the scheduler.
    for _ in range(20):
        threads, together = DatabaseThreads(), threading.Barrier(2)

        def meet(together=together) -> None:
            backend()
            together.wait(10)

        await asyncio.gather(threads.run(meet), threads.run(meet))
        threads.close()
        try:
            # One that the pool began to open counts in its size before it is there.
            await eventually(lambda: lent(pool.get_stats()) <= before)
        except BaseException:
            connection.close_pool()  # what leaked must not starve the other tests
            raise


async def test_threads_work_again_after_close(fetch):
    threads = DatabaseThreads()
    assert await threads.run(len, "ab") == 2
    threads.close()
    threads.close()
    assert await threads.run(len, "abc") == 3
    threads.close()


async def test_close_ends_whatever_the_settings_have_become(fetch, imgo):
    imgo(DATABASE_THREADS=1)
    threads = DatabaseThreads()
    await threads.run(len, "ab")
    imgo(DATABASE_THREADS=2)
    threads.close()
