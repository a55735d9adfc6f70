"""Reads from a replica: which tables, what a function is told, and what follows from a failure."""

import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError, connection, router
from django.db.utils import ConnectionRouter

from accounts.models import Token
from imgo_site import replica
from imgo_site.replica import Source, current_source, from_primary, from_replica
from offline.models import Message


class Connections:
    """Connections of which only `close` is needed."""

    def __getitem__(self, alias):
        return self

    def close(self):
        pass


@pytest.fixture
def known(imgo, monkeypatch):
    """The process's knowledge of a replica that is 0.4 s old; nothing connects to it."""
    imgo(REPLICA_DATABASE="replica")
    monkeypatch.setattr(router, "routers", ConnectionRouter([replica.ReplicaRouter()]).routers)
    monkeypatch.setattr(replica, "connections", Connections())
    part = replica.process.get(replica._Replica)
    part._use(Source("replica", 0.4), 3600.0)
    return part


def databases() -> list[str]:
    return [router.db_for_read(model) for model in (Message, Token, User)]


def test_only_messages_and_nodes_are_read_from_it(known):
    assert from_replica(databases)() == ["replica", "default", "default"]
    assert databases() == ["default"] * 3


def test_rows_of_the_replica_are_written_to_the_primary(known):
    row = Message()
    row._state.db = "replica"
    assert from_replica(router.db_for_write)(Message, instance=row) == "default"


def test_function_inside_can_read_from_the_primary(known):
    assert from_replica(from_primary(databases))() == ["default"] * 3
    assert from_replica(from_primary(from_replica(databases)))() == ["default"] * 3


def test_failure_of_the_replica_is_repeated_on_the_primary(known):
    sources = []

    def read() -> str:
        sources.append(current_source())
        if current_source().age is not None:
            raise OperationalError("canceling statement due to conflict with recovery")
        return current_source().sentence

    sentence = "The replica cannot be reached. This was read from the primary."
    assert from_replica(read)() == sentence
    assert [source.alias for source in sources] == ["replica", "default"]
    assert from_replica(read)() == sentence  # without another attempt
    assert len(sources) == 3


def test_failure_of_the_primary_is_raised(known):
    known._use(Source(problem="The replica is too far behind."), 3600.0)

    def read() -> None:
        raise OperationalError("server closed the connection")

    with pytest.raises(OperationalError):
        from_replica(read)()


def test_without_a_replica_nothing_is_said(imgo):
    imgo(REPLICA_DATABASE="")
    assert from_replica(lambda: current_source().sentence)() == ""


# What the replica answers about itself


class Standby(Connections):
    """A database that answers the question for its age; a connection and its cursor too."""

    def __init__(self, *answer: object) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.closed = 0

    def cursor(self):
        return nullcontext(self)

    def execute(self, sql):
        self.asked.append(sql)
        if isinstance(self.answer[0], Exception):
            raise self.answer[0]

    def fetchone(self):
        return self.answer

    def close(self):
        self.closed += 1


@pytest.fixture
def standby(known, monkeypatch):
    """Makes the replica give an answer: `standby(True, 0.4)`. What was known is out of date."""

    def answer(*values: object) -> Standby:
        database = Standby(*values)
        monkeypatch.setattr(replica, "connections", database)
        known._until = 0.0
        return database

    return answer


NO_STANDBY = Source(problem="The replica is no standby now.")
UNREACHABLE = Source(problem="The replica cannot be reached.")


def behind(age: str) -> Source:
    return Source(problem=f"The replica is too far behind{age}.")


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ((True, 0.4), (Source("replica", 0.4), replica.CHECK_EVERY)),
        ((True, 5.0), (Source("replica", 5.0), replica.CHECK_EVERY)),
        ((True, -0.1), (Source("replica", 0.0), replica.CHECK_EVERY)),
        ((True, 6.2), (behind(": its rows are up to 6 s old"), replica.CHECK_EVERY)),
        ((True, None), (behind(""), replica.CHECK_EVERY)),
        ((False, None), (NO_STANDBY, replica.RETRY_AFTER)),
        ((OperationalError("no connection"),), (UNREACHABLE, replica.RETRY_AFTER)),
    ],
)
def test_source_is_the_replica_only_if_it_is_a_standby_and_close(
    imgo, known, standby, answer, outcome
):
    source, seconds = outcome
    imgo(REPLICA_LAG_MAX=5.0)
    database = standby(*answer)
    before = time.monotonic()
    assert known.source() == source
    assert before + seconds <= known._until <= time.monotonic() + seconds
    assert known.source() == source
    assert len(database.asked) == database.closed == 1  # the second time it was known


def test_threads_use_what_is_known_while_one_measures(known, standby):
    database = standby(True, 0.1)
    with known._lock:  # as the thread that measures
        assert known.source() == Source("replica", 0.4)
        assert not database.asked
    assert known.source() == Source("replica", 0.1)


@pytest.mark.django_db
def test_the_primary_is_seen_to_be_no_standby(known, monkeypatch):
    """The question for the age is one that Postgres understands."""
    shared = SimpleNamespace(cursor=connection.cursor, close=lambda: None)
    monkeypatch.setattr(replica, "connections", {"replica": shared})
    known._until = 0.0
    assert known.source() == NO_STANDBY


def test_replica_gets_no_migrations_and_others_decide_for_themselves(known):
    assert not router.allow_migrate("replica", "offline")
    assert router.allow_migrate("default", "offline")
    assert replica.ReplicaRouter().allow_migrate("other", "offline") is None
