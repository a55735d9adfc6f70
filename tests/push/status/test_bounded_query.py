"""A look at the database: one at a time, and not waited for longer than said."""

import threading

import pytest
from django.db import OperationalError, connection
from psycopg_pool import ConnectionPool

from imgo_site.process_parts import process
from push.status import bounded_query as module
from push.status.bounded_query import BoundedQuery
from push.status.instance import Instance
from tests import PATIENCE, wait_until


@pytest.fixture
def silent(monkeypatch):
    """A function that finds nothing out before the event is set; and how often it was called.

    Nobody waits for it for long.
    """
    answers, calls = threading.Event(), []
    monkeypatch.setattr(module, "PATIENCE", 0.05)

    def ask() -> int:
        calls.append(None)
        answers.wait(30)
        return len(calls)

    yield answers, calls, ask
    answers.set()


def test_what_is_found_or_raised_is_passed_on():
    assert BoundedQuery(lambda: 7)() == 7
    with pytest.raises(ZeroDivisionError):
        BoundedQuery(lambda: 1 // 0)()


@pytest.mark.services
def test_failed_look_with_unopened_pool_is_over(monkeypatch):
    """A process that never used its pool still asks again."""
    monkeypatch.setitem(connection._connection_pools, "default", ConnectionPool(open=False))

    def fail() -> None:
        raise OperationalError

    look = BoundedQuery(fail)
    for _ in range(2):
        with pytest.raises(OperationalError):
            look()


def test_who_waits_in_vain_is_told_and_the_look_goes_on(silent, monkeypatch):
    answers, calls, ask = silent
    look = BoundedQuery(ask)
    for _ in range(3):  # none begins another
        with pytest.raises(TimeoutError):
            look()
    assert len(calls) == 1
    answers.set()
    wait_until(look._under_way.done)
    monkeypatch.setattr(module, "PATIENCE", PATIENCE)
    assert look() == 2


def test_a_silent_database_makes_it_unavailable_and_is_in_the_metrics(
    client, api, silent, monkeypatch
):
    _, _, ask = silent
    for name in ("query_database", "query_gauges"):
        monkeypatch.setattr(process.get(Instance).vitals, name, BoundedQuery(ask))
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["checks"]["database"] == "does not answer"
    assert "imgo_database_up 0.0" in api.get("/metrics").content.decode()
