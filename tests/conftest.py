"""What tests of more than one app need: settings for one test, the services, and their absence."""

import socket
from collections.abc import Awaitable, Callable, Iterator
from queue import Empty
from typing import Any

import psycopg
import pytest
import redis
from django.db import connection
from rest_framework.test import APIClient

from accounts.models import SCOPES, ApiKey
from imgo_site.batching import database_threads
from imgo_site.celery import app as celery_app


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "any_database: runs on SQLite too, see test_sqlite.py")


@pytest.fixture
def imgo(settings) -> Callable[..., None]:
    """Changes imgo's settings for one test: `imgo(MAX_BODY=10)`."""

    def change(**values: Any) -> None:
        settings.IMGO = {**settings.IMGO, **values}

    return change


@pytest.fixture(autouse=True)
def _no_database_threads() -> Iterator[None]:
    """The threads of the loaders keep connections, and a connection to a test database that is
    to be emptied or removed is in the way."""
    yield
    database_threads.close()


@pytest.fixture
def thread_queries(imgo) -> Callable[[], Awaitable[list[str]]]:
    """Await it for a list that grows by each query that the loaders make from then on."""
    imgo(DATABASE_THREADS=1)

    async def begin() -> list[str]:
        queries = []

        def note(execute: Any, sql: str, *rest: Any) -> Any:
            queries.append(sql)
            return execute(sql, *rest)

        await database_threads.run(lambda: connection.execute_wrappers.append(note))
        return queries

    return begin


# Redis and what is in it


@pytest.fixture
def redis_client(settings) -> Iterator[redis.Redis]:
    """The tests' Redis, empty."""
    with redis.Redis.from_url(settings.REDIS_URL, decode_responses=True) as client:
        client.flushdb()
        yield client


@pytest.fixture
def queued(redis_client) -> Callable[[], list[list[int]]]:
    """Takes the tasks that wait in the broker out, and returns the message ids of each."""

    def take() -> list[list[int]]:
        found = []
        with (
            celery_app.connection_for_read() as broker,
            broker.SimpleQueue(celery_app.conf.task_default_queue) as queue,
        ):
            while True:
                try:
                    message = queue.get_nowait()
                except Empty:
                    return found
                args, *_ = message.payload
                found += args
                message.ack()

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
    with monkeypatch.context() as patch:
        patch.setenv("CELERY_BROKER_WRITE_URL", f"redis://127.0.0.1:{closed_port}/0")
        patch.setattr(celery_app.amqp, "_producer_pool", None)
        yield patch.undo


@pytest.fixture
def database_down(transactional_db, closed_port, monkeypatch) -> Iterator[Callable[[], None]]:
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


@pytest.fixture
def terminate(transactional_db):
    """Ends this connection to the database, or all of them, as a restart of Postgres does."""

    def end(pid: int | None = None) -> int:
        known = connection.get_connection_params()
        names = ("dbname", "user", "password", "host", "port")
        with psycopg.connect(**{name: known[name] for name in names if name in known}) as own:
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
