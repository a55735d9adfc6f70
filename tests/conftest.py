"""What tests of more than one app need: settings for one test, the services, and their absence."""

import os
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from queue import Empty
from typing import Any

import psycopg
import pytest
import redis
from django.conf import settings as django_settings
from django.core.signals import request_started
from django.db import DEFAULT_DB_ALIAS, connection, connections
from kombu.pools import producers
from rest_framework.test import APIClient

from accounts.models import SCOPES, ApiKey
from imgo_site.celery import app as celery_app
from imgo_site.conf import conf
from imgo_site.database_threads import login_threads, session_threads
from imgo_site.postgres.connection import Connection
from imgo_site.postgres.limits import LIMIT
from imgo_site.process_parts import process
from push.accept.worker_wakeups import waker
from push.node import process_list
from push.tasks import queue_of
from tests import (
    CHAOS_SEED,
    PATIENCE,
    emptying,
    in_thread,
    kept_threads,
    longer_proofs,
    process_groups,
    static_files,
)

# Those that start a service, or use one.
SERVICE_FIXTURES = frozenset(
    {"db", "django_db_setup", "listen", "redis_client", "transactional_db"}
)

longer_proofs.load_profile()
# Django's default takes a third of a second for each user that a test creates.
django_settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "any_database: runs on SQLite too, see test_sqlite.py")
    config.addinivalue_line("markers", "services: needs Postgres, Redis or another process")
    config.pluginmanager.register(longer_proofs)
    config.pluginmanager.register(process_groups)
    # Each connection to Redis reads the metadata of the package anew: a millisecond of CPU time.
    redis.utils.get_lib_version = lambda: redis.__version__
    emptying.install()
    kept_threads.install()
    config.pluginmanager.register(kept_threads)
    static_files.install()
    # Here, before xdist starts its processes: they inherit it.
    os.environ.setdefault(CHAOS_SEED, str(secrets.randbelow(10**6)))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not os.environ.get("TESTS_UNIT"):
        return
    parts: dict[bool, list[pytest.Item]] = {True: [], False: []}
    for item in items:
        parts[needs_services(item)].append(item)
    config.hook.pytest_deselected(items=parts[True])
    items[:] = parts[False]


def needs_services(item: pytest.Item) -> bool:
    """Return whether a test needs Postgres, Redis or another process."""
    marks = any(item.get_closest_marker(name) for name in ("django_db", "services"))
    return marks or not SERVICE_FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))


def pytest_sessionstart() -> None:
    # Requests of the tests make this process no API process, which would be in the registry; a
    # module may make some as it is collected.
    request_started.disconnect(process_list._announce_api)
    # Celery's settings are made when they are first read, which may be in a test with other ones.
    assert celery_app.conf.task_queues


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    # Said at the end, where it is seen also when a test has failed.
    seed = os.environ[CHAOS_SEED]
    terminalreporter.write_line(f"{CHAOS_SEED}={seed} draws the same loads under faults again.")


@pytest.fixture
def imgo(settings) -> Callable[..., None]:
    """Changes imgo's settings for one test: `imgo(MAX_BODY=10)`."""

    def change(**values: Any) -> None:
        settings.IMGO = {**settings.IMGO, **values}

    return change


@pytest.fixture(autouse=True)
def _no_call_of_another_test() -> Iterator[None]:
    """What a test's node still asks of the database is no matter of the next test."""
    yield
    kept_threads.wait_for_all()
    process.close()


@pytest.fixture(autouse=True)
def _no_statement_limit() -> Iterator[None]:
    """What servers set as they start, tests of them set for this process."""
    yield
    connections.settings[DEFAULT_DB_ALIAS].pop(LIMIT, None)
    if isinstance(connection.connection, Connection):  # it may stay open
        connection.connection.limit = None


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None) -> Iterator[None]:
    """The test database, which nobody uses any more when it is removed."""
    yield
    kept_threads.end_all()


@pytest.fixture
def thread_queries(imgo, new_database_threads) -> Callable[[], Awaitable[list[str]]]:
    """Await it for a list that grows by each query that the loaders make from then on."""
    imgo(DATABASE_THREADS=1)

    async def begin() -> list[str]:
        queries = []

        def note(execute: Any, sql: str, *rest: Any) -> Any:
            queries.append(sql)
            return execute(sql, *rest)

        for threads in (login_threads, session_threads):
            await threads.run(lambda: connection.execute_wrappers.append(note))
        return queries

    return begin


# Redis and what is in it


@pytest.fixture
def redis_client(request, settings) -> Iterator[redis.Redis]:
    """The tests' Redis, empty."""
    assert needs_services(request.node), (
        "give what asks for Redis only at run time the mark `services`"
    )
    with redis.Redis.from_url(settings.REDIS_URL, decode_responses=True) as client:
        client.flushdb()
        yield client


@pytest.fixture
def tasks(redis_client) -> Callable[[], list[tuple[str, int]]]:
    """Takes the tasks that wait in the broker out: the name of each, and its partition.

    What this process has to say to the broker is said before.
    """

    def take() -> list[tuple[str, int]]:
        assert waker.flush(PATIENCE)
        queued = []
        with celery_app.connection_for_read() as broker:
            for partition in range(conf.PARTITIONS):
                for message in _all_of(broker, queue_of(partition)):
                    (named,), *_ = message.payload
                    assert named == partition
                    queued.append((message.headers["task"], partition))
        return queued

    take()  # what earlier tests have left
    return take


def _all_of(broker: Any, name: str) -> Iterator[Any]:
    with broker.SimpleQueue(name) as queue:
        while True:
            try:
                message = queue.get_nowait()
            except Empty:
                return
            message.ack()
            yield message


@pytest.fixture
def queued(tasks) -> Callable[[], set[int]]:
    """Takes the tasks that wait in the broker out, and returns the partitions that they wake.

    How many there are of each depends on how busy the waker was.
    """

    def take() -> set[int]:
        queued = tasks()
        assert {name for name, _ in queued} <= {"push.fan_out"}
        return {partition for _, partition in queued}

    return take


# What is away


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that is taken, and refuses whoever connects to it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def broker_down(closed_port, monkeypatch) -> Iterator[Callable[[], None]]:
    """The broker cannot be reached; call it to bring the broker back."""
    assert waker.flush(PATIENCE)
    monkeypatch.setattr("push.accept.worker_wakeups.RETRY_INTERVAL", 0.02)
    with monkeypatch.context() as patch:
        patch.setenv("CELERY_BROKER_WRITE_URL", f"redis://127.0.0.1:{closed_port}/0")
        # Made here: the waker, in the middle of an attempt, would keep one that it makes itself.
        pool = producers[celery_app.connection_for_write()]
        patch.setattr(celery_app.amqp, "_producer_pool", pool)
        yield patch.undo
    assert waker.flush(PATIENCE)  # before the next test


@pytest.fixture
def database_down(
    transactional_db, closed_port, monkeypatch, new_database_threads
) -> Iterator[Callable[[], None]]:
    """Postgres cannot be reached; call it to bring Postgres back."""
    connection.close()
    connection.close_pool()
    with monkeypatch.context() as patch:
        patch.setitem(connection.settings_dict, "PORT", str(closed_port))
        patch.setitem(connection.settings_dict["OPTIONS"], "pool", {"timeout": 0.3})

        def back() -> None:
            connection.close()
            connection.close_pool()
            patch.undo()

        yield back
        back()


class PendingTable:
    """The table of what is pending; every query of it fails while it is away."""

    is_away = False

    async def take_away(self) -> None:
        await in_thread(self._rename, "offline_pending", "elsewhere")
        self.is_away = True

    async def bring_back(self) -> None:
        if self.is_away:
            await in_thread(self._rename, "elsewhere", "offline_pending")
            self.is_away = False

    @staticmethod
    def _rename(old: str, new: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {old} RENAME TO {new}")


@pytest.fixture
async def pending_table(transactional_db) -> AsyncIterator[PendingTable]:
    """Can be taken away and brought back."""
    table = PendingTable()
    yield table
    await table.bring_back()


@pytest.fixture
def terminate(transactional_db, new_database_threads):
    """Ends this connection to the database, or all of them, as a restart of Postgres does."""

    def end(pid: int | None = None) -> int:
        parameters = connection.get_connection_params()
        names = ("dbname", "user", "password", "host", "port")
        with psycopg.connect(
            **{name: parameters[name] for name in names if name in parameters}
        ) as own:
            ended = own.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                " AND pid = coalesce(%s, pid)",
                [pid],
            )
            return len(ended.fetchall())

    yield end
    connection.close()
    connection.close_pool()


# Callers of the API


@pytest.fixture
def caller(db) -> Callable[..., APIClient]:
    """Makes a client with an API key that has these scopes: `caller("push")`."""

    def make(*scopes: str) -> APIClient:
        _, text = ApiKey.objects.issue("test", list(scopes))
        client = APIClient()
        client.credentials(HTTP_AUTHORIZATION=f"Api-Key {text}")
        return client

    return make


@pytest.fixture
def api(caller) -> APIClient:
    """A client that may do everything."""
    return caller(*SCOPES)
