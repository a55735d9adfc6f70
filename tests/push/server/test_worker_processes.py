"""The supervisor of the workers: replaces deaf ones, and goes on while the database is silent."""

import threading
from collections.abc import Iterator

import pytest

from push.server import supervisor, worker_processes
from push.server.worker_processes import Needs, NeedsQuery, Supervisor
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
    monkeypatch.setattr(worker_processes, "queues_needed", lambda: 4)
    yield event
    event.set()


def test_query_of_a_silent_database_is_made_once(answers, caplog):
    query = NeedsQuery()
    for _ in range(3):
        query.begin()
        assert query.take() is None
    threads = [one for one in threading.enumerate() if one.name == "imgo-needs"]
    assert [one.daemon for one in threads] == [True]
    silent = "could not check whether workers take tasks: the database is silent"
    assert caplog.messages == [silent]
    answers.set()
    wait_until(lambda: query._found)
    assert (query.take(), query.take()) == (Needs(4, [1]), None)


def test_supervisor_replaces_a_deaf_worker_when_the_database_answers(answers, monkeypatch):
    replaced: list[int] = []
    overseer = Supervisor([0, 1], "INFO")
    for worker in overseer._workers.values():
        monkeypatch.setattr(worker, "replace", lambda now, n=worker.partition: replaced.append(n))
    now = supervisor.HEALTHY_AFTER + 1.0
    overseer.on_tick(now)  # returns while the database is silent
    assert replaced == []
    answers.set()
    wait_until(lambda: overseer._query._found)
    overseer.on_tick(now + 0.5)
    assert replaced == [1]


def test_workers_are_added_and_ended_when_the_number_of_partitions_changes(monkeypatch):
    needs = iter([Needs(4, []), Needs(2, [])])
    overseer = Supervisor([0, 1, 2], "INFO", follows=True)
    monkeypatch.setattr(overseer._query, "begin", lambda: None)
    monkeypatch.setattr(overseer._query, "take", lambda: next(needs))
    overseer.on_tick(1.0)
    assert [child.partition for child in overseer.children] == [0, 1, 2, 3]
    ended = overseer.children[2:]
    overseer.on_tick(2.0)
    assert [child.partition for child in overseer.children] == [0, 1]  # those had not started
    assert all(child.is_retired for child in ended)


def test_workers_of_named_partitions_stay_when_the_number_changes(monkeypatch):
    overseer = Supervisor([2, 3], "INFO")
    monkeypatch.setattr(overseer._query, "begin", lambda: None)
    monkeypatch.setattr(overseer._query, "take", lambda: Needs(8, []))
    overseer.on_tick(1.0)
    assert [child.partition for child in overseer.children] == [2, 3]
