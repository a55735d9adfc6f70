"""Which leases are dead: by their beats, and only by time in which these could be read."""

import pytest

from imgo_site.silence_watch import STEPS_MAX
from push.online.lease_watch import READ_EVERY, LeaseWatch
from push.online.store import Lease


@pytest.fixture
def watch(imgo, monkeypatch) -> LeaseWatch:
    monkeypatch.setattr("push.online.lease_watch.is_shared_database", lambda: True)
    imgo(NODE_LEASE=10.0, PRESENCE_GRACE=3.0)
    return LeaseWatch()


def lease(beat: int = 0, *, is_stopped: bool = False, is_ended: bool = False) -> Lease:
    return Lease("a", beat, is_stopped, is_ended)


def test_lease_is_dead_after_node_lease_without_a_beat(watch):
    for now in range(10):
        assert watch.silent([lease(1)], "mine", float(now)) == []
    assert watch.silent([lease(1)], "mine", 10.0) == [lease(1)]
    assert watch.silent([lease(2)], "mine", 11.0) == []


def test_stopped_lease_is_dead_after_the_grace(watch):
    stopped = lease(5, is_stopped=True)
    assert [bool(watch.silent([stopped], None, float(now))) for now in range(5)] == [
        False, False, False, True, True,
    ]  # fmt: skip


def test_own_and_ended_leases_are_never_reported(watch):
    for now in range(30):
        assert watch.silent([lease(1)], "a", float(now)) == []
        assert watch.silent([lease(1, is_ended=True)], "mine", float(now)) == []


def test_outage_of_the_database_makes_nobody_dead(watch):
    watch.silent([lease(1)], "mine", 0.0)
    assert watch.silent([lease(1)], "mine", 1_000.0) == []  # it counts as two seconds
    assert watch.silent([lease(1)], "mine", 1_000.0 + 10.0 - STEPS_MAX * READ_EVERY - 0.1) == []


def test_only_one_process_uses_sqlite_so_other_leases_have_the_grace(watch, monkeypatch):
    monkeypatch.setattr("push.online.lease_watch.is_shared_database", lambda: False)
    assert [bool(watch.silent([lease(1)], "mine", float(now))) for now in range(4)] == [
        False, False, False, True,
    ]  # fmt: skip
