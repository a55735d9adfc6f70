"""The feed of events: nothing that commits late is missed."""

import threading
from collections.abc import Iterator

import pytest
from django.db import connection, transaction
from django.utils import timezone

from offline.event_feed import ASSIGN_TIME, Horizon, newest_id, read
from offline.models import Event
from tests import PATIENCE

pytestmark = pytest.mark.django_db(transaction=True)


def add(message_id: int) -> int:
    row = Event.objects.create(
        message_id=message_id, key="u", kind="acknowledged", at=timezone.now()
    )
    return row.pk


class Clock:
    """A clock that each call moves by half a second and more."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += ASSIGN_TIME + 0.01
        return self.now


@pytest.fixture
def late() -> Iterator[threading.Event]:
    """A transaction with an event of a lower id, which commits when the test says so."""
    has_inserted, may_commit, has_committed = (threading.Event() for _ in range(3))

    def insert() -> None:
        with transaction.atomic():
            add(1)
            has_inserted.set()
            assert may_commit.wait(PATIENCE)
        connection.close()
        has_committed.set()

    thread = threading.Thread(target=insert)
    thread.start()
    assert has_inserted.wait(PATIENCE)

    class Late(threading.Event):
        def set(self) -> None:
            may_commit.set()
            assert has_committed.wait(PATIENCE)

    yield Late()
    may_commit.set()
    thread.join()


def test_horizon_waits_for_a_late_commit_of_a_lower_id(late):
    horizon, higher = Horizon(Clock()), add(2)
    for _ in range(5):
        assert horizon.advance() == 0
        assert [event.message_id for event in read(0, newest_id(), ["acknowledged"], 10)] == [2]
    late.set()
    reached = max(horizon.advance() for _ in range(3))
    assert reached >= higher
    assert [event.message_id for event in read(0, reached, ["acknowledged"], 10)] == [1, 2]


def test_horizon_passes_the_gap_of_an_aborted_transaction():
    with transaction.atomic():
        add(1)
        transaction.set_rollback(True)
    horizon, visible = Horizon(Clock()), add(2)
    assert max(horizon.advance() for _ in range(3)) == visible


def test_horizon_does_not_pass_ids_that_it_noted_a_moment_ago():
    horizon = Horizon(lambda: 1.0)
    add(1)
    assert [horizon.advance() for _ in range(3)] == [0, 0, 0]


def test_read_gives_the_kinds_in_order_up_to_an_id():
    first, second, _ = add(1), add(2), add(3)
    Event.objects.create(message_id=4, key="u", kind="sent", at=timezone.now())
    assert [e.pk for e in read(0, second, ["acknowledged"], 10)] == [first, second]
    assert [e.pk for e in read(first, newest_id(), ["acknowledged"], 1)] == [second]
