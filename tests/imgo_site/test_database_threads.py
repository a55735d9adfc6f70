"""Threads with a database connection each: kept, replaced, closed, and not waited for."""

import asyncio
import threading

import pytest
from django.db import OperationalError, connection

from imgo_site.database_threads import DatabaseThreads, cluster_threads, login_threads
from tests import eventually, in_thread

pytestmark = pytest.mark.usefixtures("new_database_threads")


def backend() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return cursor.fetchone()[0]


async def test_a_thread_keeps_its_connection(transactional_db, imgo):
    imgo(DATABASE_THREADS=1)
    assert await login_threads.run(backend) == await login_threads.run(backend)


async def test_a_broken_connection_is_replaced(terminate, imgo):
    imgo(DATABASE_THREADS=1)
    before = await login_threads.run(backend)
    assert terminate(before) == 1
    assert await login_threads.run(backend) != before


def is_autocommit() -> bool:
    return connection.get_autocommit()  # of this thread


async def test_a_failed_transaction_does_not_meet_the_next_caller(transactional_db, imgo):
    imgo(DATABASE_THREADS=1)

    def fail() -> None:
        connection.set_autocommit(False)
        raise LookupError

    with pytest.raises(LookupError):
        await login_threads.run(fail)
    assert await login_threads.run(is_autocommit)


async def test_an_error_of_the_call_is_the_callers(transactional_db):
    calls = []

    def fail() -> None:
        calls.append(1)
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await login_threads.run(fail)
    assert len(calls) == 1  # not made again: only a broken connection is worth that


async def test_run_once_replaces_a_connection_that_was_closed_while_idle(terminate, imgo):
    imgo(DATABASE_THREADS=1)
    before = await login_threads.run_once(backend)
    assert terminate(before) == 1
    assert await login_threads.run_once(backend) != before


async def test_run_once_makes_no_second_call_when_the_answer_is_lost(transactional_db, imgo):
    imgo(DATABASE_THREADS=1)
    calls = []

    def lose_answer() -> None:
        calls.append(backend())
        raise OperationalError("the answer was lost")

    with pytest.raises(OperationalError, match="lost"):
        await login_threads.run_once(lose_answer)
    assert len(calls) == 1
    assert await login_threads.run_once(backend) not in calls  # the connection is not used again


def backends() -> set[int]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid()"
        )
        return {pid for (pid,) in cursor.fetchall()}


async def test_close_closes_the_connections_of_all_threads(transactional_db, imgo):
    imgo(DATABASE_THREADS=2)
    threads, together = DatabaseThreads("test"), threading.Barrier(2)

    def meet() -> int:
        together.wait(10)
        return backend()

    found = set(await asyncio.gather(threads.run(meet), threads.run(meet)))
    assert len(found) == 2
    assert threads.close()

    async def are_gone() -> bool:
        return not found & await in_thread(backends)

    await eventually(are_gone)


async def test_threads_take_no_connection_from_the_pool(transactional_db):
    before = connection.pool.get_stats().get("requests_num", 0)
    await login_threads.run(backend)
    assert connection.pool.get_stats().get("requests_num", 0) == before


async def test_lookups_of_logins_do_not_wait_for_cluster_jobs(transactional_db, imgo):
    imgo(DATABASE_THREADS=1)
    is_over = threading.Event()
    job = asyncio.create_task(cluster_threads.run(is_over.wait, 30))
    try:
        assert await asyncio.wait_for(login_threads.run(backend), 10)
    finally:
        is_over.set()
    assert await job


async def test_close_leaves_a_call_that_does_not_end_behind(imgo):
    imgo(DATABASE_THREADS=1)
    threads, is_over = DatabaseThreads("test"), threading.Event()
    stuck = asyncio.create_task(threads.run(is_over.wait, 30))
    await eventually(lambda: threads._workers.threads)
    (thread,) = threads._workers.threads
    assert thread.daemon  # or the end of the process would wait for it
    assert not threads.close(0.05)
    assert await threads.run(len, "abc") == 3
    is_over.set()
    assert await stuck
    assert threads.close()


async def test_a_cancelled_call_that_has_not_begun_is_not_made(imgo):
    imgo(DATABASE_THREADS=1)
    threads, is_over, made = DatabaseThreads("test"), threading.Event(), []
    first = asyncio.create_task(threads.run(is_over.wait, 30))
    await eventually(lambda: threads._workers.threads)
    gone = asyncio.create_task(threads.run(made.append, 1))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    is_over.set()
    assert await first
    assert await threads.run(len, made) == 0
    assert threads.close()


async def test_threads_work_again_after_close():
    threads = DatabaseThreads("test")
    assert await threads.run(len, "ab") == 2
    threads.close()
    threads.close()
    assert await threads.run(len, "abc") == 3
    threads.close()


async def test_close_ends_whatever_the_settings_have_become(imgo):
    imgo(DATABASE_THREADS=1)
    threads = DatabaseThreads("test")
    await threads.run(len, "ab")
    imgo(DATABASE_THREADS=2)
    threads.close()
