"""Counts of sessions that a node stores: once, whatever becomes of the answer."""

import pytest
from django.db import OperationalError

from offline.models import Reach
from offline.reach import add_counts
from push.accept.accept import push_to_room
from push.metrics import definitions as metrics
from push.node.reach_counts import ReachCounts
from tests import in_thread

pytestmark = pytest.mark.django_db(transaction=True)


def reach() -> list[tuple[int, int]]:
    return list(Reach.objects.values_list("sessions", "nodes"))


@pytest.fixture
def written() -> ReachCounts:
    return ReachCounts()


@pytest.fixture
async def message_id() -> int:
    return await in_thread(push_to_room, "r1", 1)


async def test_counts_whose_answer_is_lost_are_not_stored_twice(written, message_id, monkeypatch):
    lost = metrics.REACH_LOST._value.get()

    def lose_answer(counts) -> None:
        add_counts(counts)
        raise OperationalError("the answer was lost")

    monkeypatch.setattr("offline.reach.add_counts", lose_answer)
    written.add(message_id, 3)
    with pytest.raises(OperationalError):
        await written.flush()
    await written.flush()  # nothing waits any more
    assert await in_thread(reach) == [(3, 1)]
    assert metrics.REACH_LOST._value.get() == lost + 1


async def test_counts_survive_a_connection_that_was_closed_while_idle(
    written, message_id, terminate
):
    written.add(message_id, 1)
    await written.flush()
    terminate()
    written.add(message_id, 2)
    await written.flush()
    assert await in_thread(reach) == [(3, 2)]
