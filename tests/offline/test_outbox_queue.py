"""The outbox: who drains a partition, what is read of it, and what becomes of a row."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from offline import outbox_queue
from offline.models import ERROR_MAX, Outbox
from offline.outbox_queue import ATTEMPTS_MAX, Busy
from offline.sql import postgres
from offline.store import insert
from offline.values import NewMessage
from tests import PATIENCE, call_and_close

any_database = pytest.mark.any_database


def page(partition: int, after: int = 0, size: int = 100) -> list[int]:
    return [row.message_id for row in outbox_queue.read_page(partition, after, size)]


# What is read of it


@pytest.mark.django_db
@any_database
def test_a_page_has_a_partitions_first_messages_in_order_of_id(store):
    ids = [store("a", hashes=(0, 3)) for _ in range(5)]
    other = store("a", hashes=(3,))
    assert page(0) == ids
    assert page(3) == [*ids, other]
    assert page(0, size=2) == ids[:2]
    assert page(0, after=ids[1], size=2) == ids[2:4]
    assert page(1) == []


@pytest.mark.django_db
@any_database
def test_a_page_is_one_query_with_the_messages(store, django_assert_num_queries):
    for n in range(3):
        store("a", body=b"%d" % n)
    with django_assert_num_queries(1):
        rows = outbox_queue.read_page(0, 0, 10)
        assert [bytes(row.message.body) for row in rows] == [b"0", b"1", b"2"]


@pytest.mark.django_db
@any_database
def test_a_page_tells_what_is_late(store):
    store("a", ttl=-1), store("a", ttl=60)
    rows = outbox_queue.read_page(0, 0, 10)
    assert [row.is_late for row in rows] == [True, False]


@pytest.mark.django_db
@any_database
def test_the_number_of_partitions_is_kept(imgo):
    imgo(PARTITIONS=7)
    insert([NewMessage(b"1", 60, keys=("a",), hashes=(12,))])
    row = Outbox.objects.get()
    assert (row.partition, row.partitions, row.attempts, row.error) == (5, 7, 0, "")
    assert abs(row.created_at - timezone.now()) < timedelta(seconds=30)


# What becomes of a row


@pytest.mark.django_db
@any_database
def test_what_is_done_is_gone(store):
    one, two, three = (store("a") for _ in range(3))
    rows = outbox_queue.read_page(0, 0, 10)
    outbox_queue.delete_rows([rows[0], rows[2]])
    assert (page(0), {one, three} & set(page(0))) == ([two], set())
    outbox_queue.delete_rows([])
    assert page(0) == [two]


@pytest.mark.django_db
@any_database
def test_what_fails_is_tried_a_few_times_and_then_parked(store):
    failing, other = store("a"), store("a")
    for attempt in range(1, ATTEMPTS_MAX + 1):
        assert page(0) == [failing, other]
        row = outbox_queue.read_page(0, 0, 1)[0]
        parks = outbox_queue.record_failure(row, ValueError("x" * 2 * ERROR_MAX))
        assert parks == (attempt == ATTEMPTS_MAX)
    assert page(0) == [other]
    row = Outbox.objects.get(message=failing)
    assert row.attempts == ATTEMPTS_MAX
    assert row.error == ("ValueError: " + "x" * ERROR_MAX)[:ERROR_MAX]


@pytest.mark.django_db
@any_database
def test_overdue_is_what_has_waited_and_is_not_parked(store):
    old, parked = store("a", hashes=(1, 3)), store("a", hashes=(2,))
    store("a", hashes=(0,))
    since = timezone.now() - timedelta(seconds=60)
    Outbox.objects.filter(message__in=(old, parked)).update(created_at=since)
    Outbox.objects.filter(message=parked).update(parked_at=since)
    assert outbox_queue.overdue_partitions(30.0) == [1, 3]
    assert outbox_queue.overdue_partitions(90.0) == []
    assert outbox_queue.overdue_partitions(-1.0) == [0, 1, 3]


# One at a time


@pytest.fixture
def elsewhere() -> Iterator[Callable]:
    """Has a partition drained on another thread, with a connection of its own, until it is told
    to end: `end = elsewhere(partition)`."""
    ends: list[Callable[[], None]] = []
    with ThreadPoolExecutor(4) as threads:

        def begin(partition: int) -> Callable[[], None]:
            has, may_end = threading.Event(), threading.Event()

            def drain() -> None:
                with outbox_queue.draining(partition, wait=False):
                    has.set()
                    assert may_end.wait(PATIENCE)

            done = threads.submit(call_and_close, drain)
            assert has.wait(PATIENCE)

            def end() -> None:
                may_end.set()
                done.result(PATIENCE)

            ends.append(end)
            return end

        yield begin
        for end in ends:
            end()


def has_turn(partition: int, *, wait: bool = False) -> bool:
    try:
        with outbox_queue.draining(partition, wait=wait):
            return True
    except Busy:
        return False


@pytest.mark.django_db(transaction=True)
@any_database
def test_a_partition_is_drained_by_one_at_a_time(elsewhere):
    end = elsewhere(1)
    assert not has_turn(1)
    assert not has_turn(1)
    assert has_turn(2)
    end()
    assert has_turn(1)


@pytest.mark.django_db(transaction=True)
@any_database
def test_who_waits_has_its_turn_when_the_other_has_ended(elsewhere):
    end = elsewhere(1)
    turns: list[bool] = []
    waiting = threading.Thread(
        target=call_and_close, args=(lambda: turns.append(has_turn(1, wait=True)),)
    )
    waiting.start()
    assert turns == []
    end()
    waiting.join(PATIENCE)
    assert turns == [True]


@pytest.mark.django_db(transaction=True)
@any_database
def test_a_drain_that_fails_gives_its_partition_back():
    def fail() -> None:
        with outbox_queue.draining(1, wait=False):
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(call_and_close, has_turn, 1).result(PATIENCE)


@pytest.mark.django_db(transaction=True)
def test_who_has_waited_for_long_is_told_that_the_partition_is_busy(elsewhere, monkeypatch):
    monkeypatch.setattr(postgres, "LOCK_WAIT", 1)
    elsewhere(1)
    with pytest.raises(Busy), outbox_queue.draining(1, wait=True):
        pytest.fail("the other has not ended")


@pytest.mark.django_db(transaction=True)
def test_a_drain_that_hangs_gives_its_partition_back(monkeypatch, elsewhere):
    monkeypatch.setattr(postgres, "IDLE_MAX", "2s")  # nobody else may seem to hang
    has, hangs = threading.Event(), threading.Event()

    def hang() -> None:
        with outbox_queue.draining(1, wait=False):
            has.set()
            assert hangs.wait(PATIENCE)

    with ThreadPoolExecutor(1) as thread:
        hanging = thread.submit(call_and_close, hang)
        assert has.wait(PATIENCE)
        assert has_turn(1, wait=True)
        hangs.set()
        assert hanging.exception(PATIENCE) is not None


@pytest.mark.django_db(transaction=True)
def test_the_limits_of_a_drain_are_its_own():
    def limits() -> list[str]:
        with connection.cursor() as cursor:
            found = []
            for name in ("lock_timeout", "idle_in_transaction_session_timeout"):
                cursor.execute(f"SHOW {name}")
                found.append(cursor.fetchone()[0])
            return found

    before = limits()
    with outbox_queue.draining(1, wait=False):
        assert limits() == ["10s", "8s"]
    assert limits() == before
