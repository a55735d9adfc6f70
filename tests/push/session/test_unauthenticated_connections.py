"""How many connections may be open that have not authenticated."""

import pytest

from imgo_site import open_files as files
from push.metrics import definitions as metrics
from push.session import unauthenticated_connections as module
from push.session.unauthenticated_connections import UnauthenticatedConnections


class Connection:
    is_evicted = False

    def evict(self):
        self.is_evicted = True


@pytest.fixture
def clock(monkeypatch):
    """Call it with seconds to let them pass."""
    now = [1_000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


@pytest.fixture
def full(imgo, clock):
    """The limit when it is reached, and the connections that it counts."""
    imgo(MAX_UNAUTHENTICATED=3)
    unauthenticated, connections = UnauthenticatedConnections(), [Connection() for _ in range(3)]
    for connection in connections:
        assert unauthenticated.try_admit(10)
        unauthenticated.enter(connection)
        clock(0.1)
    return unauthenticated, connections


def test_room_at_the_limit_costs_the_oldest_its_place(full, clock):
    unauthenticated, connections = full
    clock(module.MIN_AGE)
    before = metrics.EVICTED._value.get()
    assert unauthenticated.try_admit(10)
    assert [one.is_evicted for one in connections] == [True, False, False]
    assert len(unauthenticated) == 2
    assert metrics.EVICTED._value.get() == before + 1


def test_room_is_not_made_of_young_connections(full):
    unauthenticated, connections = full
    assert not unauthenticated.try_admit(10)
    assert not any(one.is_evicted for one in connections)


def test_room_is_not_made_of_connections_that_wait_for_us(full, clock):
    unauthenticated, connections = full
    for connection in connections:
        unauthenticated.serve(connection)
    clock(60)
    assert not unauthenticated.try_admit(10)
    unauthenticated.leave(connections[0])
    assert unauthenticated.try_admit(10)


def test_room_ends_where_the_files_for_sessions_begin(clock, monkeypatch):
    monkeypatch.setattr(files, "limits", lambda: (files.RESERVED + 40, files.RESERVED + 40))
    unauthenticated = UnauthenticatedConnections()
    for _ in range(40 // module.SHARE):
        assert unauthenticated.try_admit(0)
        unauthenticated.enter(Connection())
    assert not unauthenticated.try_admit(0)
    assert not UnauthenticatedConnections().try_admit(40)
