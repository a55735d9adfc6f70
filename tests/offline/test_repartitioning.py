"""A change of the number of partitions: what waits for what, and who may still store."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from django.db import connection, transaction

from imgo_site.errors import Unavailable
from offline import outbox_queue, partitions, repartitioning
from offline.models import Outbox
from offline.partitions import Current, hashes_of, partition_of
from offline.store import insert
from offline.values import NewMessage
from tests import PATIENCE, call_and_close, wait_until

any_database = pytest.mark.any_database


def accept(key: str) -> int:
    with transaction.atomic():
        return insert([NewMessage(b"{}", 600.0, keys=(key,), hashes=hashes_of([key]))]).ids[0]


def due(count: int) -> list[int]:
    """The messages that drains of the first partitions would send, in order of id."""
    rows = [row for n in range(count) for row in outbox_queue.read_page(n, 0, 100)]
    return sorted(row.message_id for row in rows)


def send_all(count: int) -> None:
    for number in range(count):
        outbox_queue.delete_rows(outbox_queue.read_page(number, 0, 100))


@pytest.mark.django_db(transaction=True)
@any_database
def test_without_a_change_the_setting_decides(imgo):
    imgo(PARTITIONS=7)
    assert (partitions.current(), partitions.queues_needed()) == (Current(0, 7), 7)
    accept("a")
    row = Outbox.objects.get()
    assert (row.partition, row.partitions, row.generation) == (partition_of("a", 7), 7, 0)
    assert repartitioning.advance() is None


@pytest.mark.django_db(transaction=True)
@any_database
@pytest.mark.parametrize(("before", "after"), [(4, 8), (8, 3), (1, 4)])
def test_messages_of_the_new_number_wait_for_those_before(imgo, before, after):
    imgo(PARTITIONS=before)
    keys = [f"u{n}" for n in range(9)]
    old = [accept(key) for key in keys]
    assert repartitioning.change(after).is_open is False
    new = [accept(key) for key in keys]
    most = max(before, after)
    assert partitions.queues_needed() == most
    assert partitions.possible_partitions("a") == {partition_of("a", n) for n in (before, after)}
    assert (repartitioning.advance().has_messages, due(most)) == (True, old)
    send_all(most)
    assert (due(most), repartitioning.advance().is_open, due(most)) == ([], True, new)
    assert [row.partition for row in Outbox.objects.order_by("message_id")] == [
        partition_of(key, after) for key in keys
    ]
    assert (partitions.queues_needed(), repartitioning.advance()) == (after, None)


@pytest.mark.django_db(transaction=True)
@any_database
def test_parked_messages_do_not_hold_a_change_up(imgo):
    imgo(PARTITIONS=4)
    accept("a")
    Outbox.objects.update(parked_at="2026-01-01T00:00:00Z")
    repartitioning.change(2)
    assert repartitioning.advance().is_open


@pytest.mark.django_db(transaction=True)
@any_database
def test_one_change_at_a_time_and_none_to_the_same_number(imgo):
    imgo(PARTITIONS=4)
    assert repartitioning.change(4) == Current(0, 4)
    accept("a")
    first = repartitioning.change(8).generation
    with pytest.raises(Unavailable, match="changed already"):
        repartitioning.change(2)
    send_all(4)
    assert repartitioning.advance().is_open
    assert repartitioning.change(2).generation > first


@contextmanager
def open_transaction(work: Callable[[], object]) -> Iterator[None]:
    """Another connection's transaction that has done this work and commits at the end."""
    has_worked, may_commit = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            work()
            has_worked.set()
            assert may_commit.wait(PATIENCE)

    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(call_and_close, hold)
        try:
            assert has_worked.wait(PATIENCE)
            yield
        finally:
            may_commit.set()
            holding.result(PATIENCE)


@pytest.mark.django_db(transaction=True)
def test_an_open_transaction_that_has_pushed_holds_the_new_number_up(imgo):
    imgo(PARTITIONS=4)
    with open_transaction(lambda: accept("late")):
        repartitioning.change(8)
        accept("a")
        with open_transaction(lambda: accept("b")):  # by the new number
            assert repartitioning.advance() == (8, 2, False, False)  # not known apart yet
        progress = repartitioning.advance()
        assert (progress.transactions, progress.is_open, due(8)) == (1, False, [])
        with open_transaction(lambda: accept("c")):
            assert repartitioning.advance().transactions == 1
    progress = repartitioning.advance()
    assert (progress.transactions, progress.has_messages, len(due(8))) == (0, True, 1)
    send_all(8)
    assert repartitioning.advance().is_open


@pytest.mark.django_db(transaction=True)
def test_other_transactions_hold_nothing_up(imgo):
    imgo(PARTITIONS=4)

    def write() -> None:
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO offline_reach VALUES (1, 1, 1)")

    with open_transaction(Outbox.objects.count), open_transaction(write):
        repartitioning.change(8)
        assert repartitioning.advance().is_open


@pytest.mark.django_db(transaction=True)
def test_nothing_is_stored_by_the_number_before_once_the_new_one_is_open(imgo):
    imgo(PARTITIONS=4)
    is_over = threading.Event()

    def push_on(name: str) -> int:
        count = 0
        while not is_over.is_set():
            with transaction.atomic():
                accept(f"{name}-{count}")
                accept(f"{name}+{count}")
            count += 1
        return count

    with ThreadPoolExecutor(3) as pool:
        pushing = [pool.submit(call_and_close, lambda n=n: push_on(str(n))) for n in range(3)]
        try:
            for number in (8, 3, 5, 1, 4):
                wait_until(Outbox.objects.exists)
                generation = repartitioning.change(number).generation
                while not repartitioning.advance().is_open:
                    send_all(8)
                for _ in range(20):
                    assert not Outbox.objects.filter(generation__lt=generation).exists()
        finally:
            is_over.set()
        assert all(one.result(PATIENCE) for one in pushing)
