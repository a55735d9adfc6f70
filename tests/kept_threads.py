"""Database threads that are kept from test to test, and with them their connections.

The last node that stops ends the threads. Most tests with a node then spent more than a third of
their time on connecting to the database again. A test of the threads, or of a database that cannot
be reached, uses the fixture `new_database_threads`.
"""

import time
from collections.abc import Iterator

import pytest

from imgo_site import database_threads
from imgo_site.database_threads import (
    CLOSE_TIMEOUT,
    cluster_threads,
    login_threads,
    session_threads,
)

end_all = database_threads.close_all


def install() -> None:
    """Keep the threads of nodes that stop."""
    database_threads.close_all = wait_for_all


def wait_for_all(timeout: float = CLOSE_TIMEOUT) -> bool:
    """Wait for the calls of all threads. Threads whose calls take longer are given up."""
    groups = (login_threads, session_threads, cluster_threads)
    deadline = time.monotonic() + timeout
    while not all(group.is_idle for group in groups):
        if time.monotonic() > deadline:
            return end_all(0)
        time.sleep(0.001)
    return True


@pytest.fixture
def new_database_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Start without threads; those of the test end as they do in a server."""
    end_all()
    monkeypatch.setattr(database_threads, "close_all", end_all)
    yield
    end_all()
