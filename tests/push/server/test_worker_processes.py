"""The supervisor of the workers: replaces deaf ones, and goes on while the database is silent."""

import threading
from collections.abc import Iterator

import pytest

from push.server import supervisor
from push.server.worker_processes import DeafnessQuery, Supervisor
from push.status import vitals
from tests import wait_until


@pytest.fixture
def answers(monkeypatch) -> Iterator[threading.Event]:
    """Set it to have the database answer, that partition 1 is deaf."""
    event = threading.Event()

    def ask() -> list[int]:
        assert event.wait(30)
        return [1]

    monkeypatch.setattr(vitals, "deaf_workers", ask)
    yield event
    event.set()


def test_query_of_a_silent_database_is_made_once(answers, caplog):
    query = DeafnessQuery()
    for _ in range(3):
        query.begin()
        assert query.take() == []
    threads = [one for one in threading.enumerate() if one.name == "imgo-deafness"]
    assert [one.daemon for one in threads] == [True]
    assert (
        caplog.messages
        == ["could not check whether workers take tasks: the database is silent"] * 2
    )
    answers.set()
    wait_until(lambda: query._found)
    assert (query.take(), query.take()) == ([1], [])


def test_supervisor_replaces_a_deaf_worker_when_the_database_answers(answers, monkeypatch):
    replaced: list[int] = []
    overseer = Supervisor([0, 1], "INFO")
    for worker in overseer._workers:
        monkeypatch.setattr(worker, "replace", lambda now, n=worker.partition: replaced.append(n))
    now = supervisor.HEALTHY_AFTER + 1.0
    overseer.on_tick(now)  # returns while the database is silent
    assert replaced == []
    answers.set()
    wait_until(lambda: overseer._deafness._found)
    overseer.on_tick(now + 0.5)
    assert replaced == [1]
