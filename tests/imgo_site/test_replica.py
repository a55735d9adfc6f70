"""Reads from a replica: which tables, what a function is told, and what follows from a failure."""

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError, router
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
