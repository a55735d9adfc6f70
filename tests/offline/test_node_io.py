"""The batched loader of pending messages, and the batched acknowledger."""

import asyncio
import threading
from collections import deque

import pytest
from django.db import OperationalError

from offline import node_io, settlement
from offline.models import Event
from offline.node_io import Acknowledger, pending_pages
from tests import eventually, in_thread

from .conftest import owed

pytestmark = pytest.mark.django_db(transaction=True)


class Running(Acknowledger):
    """An acknowledger whose `run` is under way; `stop` ends that first, as a node does."""

    def __init__(self):
        self.lost = []
        super().__init__(self.lost.append)
        self.task = asyncio.get_running_loop().create_task(self.run())

    async def stop(self):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await super().stop()


@pytest.fixture
async def acknowledger():
    made = Running()
    yield made
    await made.stop()


async def nothing_is_owed() -> bool:
    return not await in_thread(owed)


@pytest.fixture
def table(pending_table, monkeypatch):
    monkeypatch.setattr(node_io, "RETRY_INTERVAL", 0.01)
    return pending_table


async def test_the_pages_of_a_storm_are_one_query(store, thread_queries):
    ids = {key: await in_thread(store, key) for key in ("a", "b", "c")}
    queries = await thread_queries()
    pages = await asyncio.gather(*(pending_pages.get((key, 0)) for key in [*ids, "d"]))
    assert [[m.id for m in page] for page in pages] == [*([i] for i in ids.values()), []]
    assert len(queries) == 1


async def test_a_page_has_the_size_that_is_set(store, imgo):
    imgo(REPLAY_PAGE=2)
    ids = [await in_thread(store, "a") for _ in range(3)]
    assert [m.id for m in await pending_pages.get(("a", 0))] == ids[:2]
    assert [m.id for m in await pending_pages.get(("a", ids[1]))] == ids[2:]


async def test_what_is_added_is_acknowledged(store, acknowledger):
    one, two = await in_thread(store, "a", "b"), await in_thread(store, "a")
    acknowledger.received(one, "a", "s1")
    acknowledger.received(two, "a", "s1")
    await eventually(lambda: not acknowledger.has(two, "a"))
    assert await in_thread(owed) == [(one, "b")]


async def test_what_comes_together_is_written_together(store, acknowledger, thread_queries):
    ids = [await in_thread(store, "a") for _ in range(20)]
    queries = await thread_queries()
    for one in ids:
        acknowledger.received(one, "a", "s1")
    await eventually(nothing_is_owed)
    assert len(queries) == 1


async def test_a_large_backlog_is_written_in_bounded_batches(
    store, acknowledger, thread_queries, monkeypatch
):
    monkeypatch.setattr(node_io, "FLUSH_SIZE", 5)
    ids = [await in_thread(store, "a") for _ in range(12)]
    queries = await thread_queries()
    for one in ids:
        acknowledger.received(one, "a", "s1")
    await eventually(nothing_is_owed)
    await eventually(lambda: not acknowledger.has(ids[-1], "a"))
    assert len(queries) == 3


async def test_a_delivery_is_known_until_it_is_written(acknowledger, table):
    await table.take_away()
    acknowledger.received(7, "a", "s1")
    acknowledger.received(7, "a", "s1")
    assert acknowledger.has(7, "a")
    assert not acknowledger.has(7, "b")
    assert not acknowledger.has(8, "a")
    await table.bring_back()
    await eventually(lambda: not acknowledger.has(7, "a"))


async def test_a_failure_of_the_database_loses_nothing(store, acknowledger, table, caplog):
    ids = [await in_thread(store, "a") for _ in range(3)]
    await table.take_away()
    for one in ids:
        acknowledger.received(one, "a", "s1")
    await eventually(lambda: "could not write receipts, retrying" in caplog.text)
    assert all(acknowledger.has(one, "a") for one in ids)
    await table.bring_back()
    await eventually(nothing_is_owed)
    later = await in_thread(store, "a")
    acknowledger.received(later, "a", "s1")
    await eventually(nothing_is_owed)
    assert not any(record.exc_info for record in caplog.records)


async def test_stop_writes_the_rest(store, monkeypatch):
    monkeypatch.setattr(node_io, "FLUSH_SIZE", 2)
    ids = [await in_thread(store, "a") for _ in range(5)]
    acknowledger = Running()
    for one in ids:
        acknowledger.received(one, "a", "s1")
    await acknowledger.stop()
    assert await nothing_is_owed()
    assert not any(acknowledger.has(one, "a") for one in ids)


async def test_stop_in_the_middle_of_a_batch_writes_that_too(store):
    ids = [await in_thread(store, "a") for _ in range(3)]
    acknowledger = Running()
    acknowledger.received(ids[0], "a", "s1")
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # the writer has begun
    acknowledger.received(ids[1], "a", "s1")
    acknowledger.received(ids[2], "a", "s1")
    await acknowledger.stop()
    assert await nothing_is_owed()


async def test_stop_ends_when_the_database_is_away(table, caplog):
    await table.take_away()
    acknowledger = Acknowledger()
    acknowledger.received(1, "a", "s1")
    acknowledger.received(2, "a", "s1")
    await acknowledger.stop()
    assert "2 receipts were not written" in caplog.text


async def test_stop_without_start_writes(store):
    one = await in_thread(store, "a")
    acknowledger = Acknowledger()
    acknowledger.received(one, "a", "s1")
    await acknowledger.stop()
    assert await nothing_is_owed()


async def test_beyond_its_bound_the_oldest_is_forgotten(store, monkeypatch):
    monkeypatch.setattr(node_io, "BACKLOG_MAX", 3)
    ids = [await in_thread(store, "a") for _ in range(5)]
    acknowledger = Acknowledger()
    for one in ids:
        acknowledger.received(one, "a", "s1")
    assert [acknowledger.has(one, "a") for one in ids] == [False, False, True, True, True]
    await acknowledger.stop()
    # Forgotten is delivered again, not lost.
    assert [i for i, _ in await in_thread(owed)] == ids[:2]


async def test_the_database_is_not_asked_while_nothing_is_added(acknowledger, thread_queries):
    queries = await thread_queries()
    acknowledger.received(1, "a", "s1")
    await eventually(lambda: not acknowledger.has(1, "a"))
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(queries) == 1


async def test_stop_during_a_flush_writes_each_receipt_once(store, monkeypatch):
    """The flush under way is waited for; a second one of the same receipts would be another."""
    written, may_go_on, begun = [], threading.Event(), threading.Event()
    record = settlement.record_receipts

    def slow_record(batch, **options):
        begun.set()
        assert may_go_on.wait(10)
        record(batch, **options)
        written.append(len(batch))

    monkeypatch.setattr(settlement, "record_receipts", slow_record)
    one = await in_thread(store, "a")
    acknowledger = Running()
    acknowledger.sent(one, "a", "s1")
    await eventually(begun.is_set)
    stopping = asyncio.create_task(acknowledger.stop())
    await asyncio.sleep(0.05)
    acknowledger.sent(one, "a", "s2")
    may_go_on.set()
    await stopping
    assert written == [1, 1]
    sessions = await in_thread(lambda: list(Event.objects.values_list("session", flat=True)))
    assert sorted(sessions) == ["s1", "s2"]


@pytest.mark.parametrize("losses", [1, 3], ids=["once", "also-of-the-second-call"])
async def test_receipts_whose_answer_is_lost_are_noted_once(store, monkeypatch, losses):
    """Postgres carried the statement out; the node does not know that and writes again."""
    monkeypatch.setattr(node_io, "RETRY_INTERVAL", 0.01)
    record, left = settlement.record_receipts, [losses]

    def lose_answer(receipts, **options):
        record(receipts, **options)
        if left[0]:
            left[0] -= 1
            raise OperationalError("the answer was lost")

    monkeypatch.setattr(settlement, "record_receipts", lose_answer)
    kept, taken = await in_thread(store, "a", "b"), await in_thread(store, "c")
    acknowledger = Running()
    acknowledger.sent(kept, "a", "s1")
    acknowledger.sent(kept, "a", "s2")
    acknowledger.received(kept, "b", "s3")
    acknowledger.acknowledged(taken, "c", "s4")
    await eventually(lambda: not acknowledger.waiting)
    acknowledger.sent(kept, "a", "s5")
    await acknowledger.stop()
    rows = Event.objects.order_by("pk").values_list("key", "kind", "session")
    assert await in_thread(list, rows) == [
        ("a", "sent", "s1"),
        ("a", "sent", "s2"),
        ("b", "received", "s3"),
        ("c", "acknowledged", "s4"),
        ("a", "sent", "s5"),
    ]


async def test_receipt_that_cannot_be_stored_does_not_stop_the_others(store, caplog):
    ids = [await in_thread(store, "a") for _ in range(3)]
    acknowledger = Running()
    acknowledger.received(ids[0], "a", "s1")
    acknowledger.received(ids[1], "a", "a NUL: \0")
    acknowledger.received(ids[2], "a", "s1")
    await eventually(lambda: not acknowledger.waiting)
    assert await in_thread(owed) == [(ids[1], "a")]
    assert acknowledger.lost == ["refused"]
    assert f"a receipt of message {ids[1]} cannot be written" in caplog.text
    await acknowledger.stop()


async def test_backlog_beyond_its_bound_is_counted(monkeypatch):
    monkeypatch.setattr(node_io, "BACKLOG_MAX", 3)
    lost = []
    acknowledger = Acknowledger(lost.append)
    acknowledger._waiting = deque(maxlen=3)
    for one in range(5):
        acknowledger.sent(one, "a", "s1")
    assert lost == ["backlog", "backlog"]


def test_claims_of_a_key_count_up_to_what_can_be_pending_for_it(imgo):
    """Ids that a session was not sent: an earlier session of its key may have been."""
    imgo(OFFLINE_MAX=3)
    acknowledger = Acknowledger()
    assert [acknowledger.claimed(one, "u1", "s1") for one in range(1, 6)] == [True] * 3 + [
        False
    ] * 2
    assert acknowledger.claimed(1, "u2", "s2")
    assert [acknowledger.claimed(one, "u2", "s3", "phone") for one in range(3)] == [True] * 3
    acknowledger._claims_since -= node_io.CLAIM_WINDOW
    assert acknowledger.claimed(6, "u1", "s1")
    assert acknowledger.waiting == 8
