"""The tasks: under which name and in which queue, tried again when, and a worker's sign of life."""

import pytest
from django.db import OperationalError

from imgo_site import logs
from imgo_site.celery import app
from imgo_site.errors import Unavailable
from offline.models import Outbox
from offline.outbox_queue import Busy
from push import tasks as module
from push.accept.accept import Push, accept_push
from push.models import EPOCH, Canary
from push.tasks import REQUEST_HEADER, canary, fan_out, queue_of


def run_as_a_worker(partition: int, retries: int = 0) -> None:
    """Run the task as a worker does that took it from the partition's queue."""
    fan_out.push_request(
        args=(partition,),
        kwargs={},
        retries=retries,
        called_directly=False,
        delivery_info={"exchange": "", "routing_key": queue_of(partition)},
    )
    try:
        fan_out.run(partition)
    finally:
        fan_out.pop_request()


@pytest.mark.parametrize("name", ["push.fan_out", "push.canary"])
def test_a_task_is_known_to_workers_by_its_name(name):
    assert app.tasks[name].name == name
    assert {fan_out.name, canary.name} == {"push.fan_out", "push.canary"}


def test_a_task_whose_worker_dies_runs_again():
    assert app.conf.task_acks_late
    assert app.conf.task_reject_on_worker_lost
    assert app.conf.worker_prefetch_multiplier == 1


def test_a_worker_that_is_told_nothing_takes_tasks_from_all_queues():
    assert [queue.name for queue in app.conf.task_queues] == [f"imgo.push.{n}" for n in range(4)]
    assert app.conf.task_default_queue == queue_of(0)


@pytest.mark.django_db(transaction=True)
def test_the_task_drains_its_partition(imgo, redis_client):
    imgo(PARTITIONS=2)
    accept_push(Push(b"1", keys=tuple(f"u{n}" for n in range(20))))
    run_as_a_worker(1)
    assert Outbox.objects.get().partition == 0


@pytest.mark.parametrize(
    "error", [Unavailable("away"), OperationalError("away"), Busy()], ids=lambda e: type(e).__name__
)
def test_what_cannot_be_sent_is_tried_twice_and_then_left_to_the_sweep(
    monkeypatch, tasks, error, caplog
):
    drained = []

    def fail(partition: int) -> None:
        drained.append(partition)
        raise error

    monkeypatch.setattr(module, "drain", fail)
    run_as_a_worker(3)
    assert (drained, tasks()) == ([3, 3], [])
    assert "partition 3 is left to a node's sweep" in caplog.text
    assert not any(record.exc_info for record in caplog.records)


def test_a_connection_that_was_closed_while_nobody_looked_costs_nothing(monkeypatch, caplog):
    drained = []

    def fail_once(partition: int) -> None:
        drained.append(partition)
        if len(drained) == 1:
            raise Unavailable("Connection closed by server.")

    monkeypatch.setattr(module, "drain", fail_once)
    run_as_a_worker(3)
    assert (drained, caplog.text) == ([3, 3], "")


@pytest.mark.parametrize("partition", [-1, 2**31, "x", None])
def test_what_is_no_partition_is_refused(monkeypatch, partition):
    monkeypatch.setattr(module, "drain", pytest.fail)
    with pytest.raises((ValueError, TypeError)):
        run_as_a_worker(partition)


def test_a_bug_is_not_tried_again(monkeypatch, tasks):
    def fail(partition: int) -> None:
        raise LookupError("a bug")

    monkeypatch.setattr(module, "drain", fail)
    with pytest.raises(LookupError):
        run_as_a_worker(0)
    assert tasks() == []


@pytest.mark.django_db
def test_a_canary_that_was_taken_is_a_sign_of_life_of_its_partition():
    for n in range(2):
        Canary.objects.create(partition=n, sent_at=EPOCH)
    canary(1)
    deaf, alive = Canary.objects.order_by("partition")
    assert deaf.heard_at is None
    assert alive.heard_at >= alive.first_at


@pytest.mark.django_db
def test_a_canary_of_a_partition_that_is_no_more_is_no_mistake():
    canary(7)
    assert not Canary.objects.exists()


def test_a_canary_that_cannot_be_noted_is_one_line(database_down, caplog):
    canary(1)
    assert "could not record the canary of partition 1" in caplog.text
    assert not any(record.exc_info for record in caplog.records)


@pytest.mark.parametrize(("given", "known"), [("abc", True), ("not fit\nfor a log", False)])
def test_what_a_task_logs_belongs_to_the_request_that_asked_for_it(monkeypatch, given, known):
    seen = []
    monkeypatch.setattr(module, "drain", lambda _: seen.append(logs.request_id()))
    fan_out.push_request(args=(0,), kwargs={}, **{REQUEST_HEADER: given})
    try:
        fan_out.run(0)
    finally:
        fan_out.pop_request()
    fan_out.run(0)  # which nobody asked for
    assert (seen[0] == given) is known
    assert seen[1] == ""
    assert logs.request_id() == ""
