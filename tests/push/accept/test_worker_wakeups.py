"""The waker: tells the broker, makes nobody wait for it, and forgets nothing while it is away."""

import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from kombu.exceptions import OperationalError as BrokerError

from imgo_site import logs
from imgo_site.celery import app as celery_app
from offline.models import Outbox
from push.accept import worker_wakeups as module
from push.accept.accept import Push, accept_push
from push.accept.worker_wakeups import Waker, wake
from push.tasks import REQUEST_HEADER, fan_out, queue_of
from tests import PATIENCE, fork_server, wait_until

pytestmark = pytest.mark.services


class Broker:
    """Stands for the broker: notes what it is told; it can be slow, and fail."""

    def __init__(self) -> None:
        self.told: list[int] = []
        self.headers: list[dict[str, str]] = []
        self.asked = threading.Event()
        self.opened = threading.Event()
        self.opened.set()
        self.failing: dict[int, Exception] = {}

    def apply_async(self, args: tuple[int], queue: str, headers: dict[str, str]) -> None:
        (partition,) = args
        assert queue == queue_of(partition)
        self.asked.set()
        assert self.opened.wait(PATIENCE)
        if error := self.failing.get(partition):
            raise error
        self.told.append(partition)
        self.headers.append(headers)


@pytest.fixture
def broker(monkeypatch) -> Iterator[Broker]:
    found = Broker()
    monkeypatch.setattr(module, "RETRY_INTERVAL", 0.01)
    monkeypatch.setattr(fan_out, "apply_async", found.apply_async)
    yield found
    found.failing.clear()
    found.opened.set()


@pytest.fixture
def waker(broker) -> Iterator[Waker]:
    made = Waker()
    yield made
    broker.failing.clear()
    broker.opened.set()
    assert made.flush(PATIENCE)


def test_a_partition_that_is_woken_has_a_task_in_its_own_queue(tasks):
    wake({0, 3})
    assert tasks() == [("push.fan_out", 0), ("push.fan_out", 3)]


def test_with_nothing_to_say_a_flush_is_over_at_once():
    assert Waker().flush(0.0)


def test_who_wakes_does_not_wait_for_the_broker(waker, broker):
    broker.opened.clear()
    waker.wake({1})
    assert broker.asked.wait(PATIENCE)
    waker.wake({2})
    assert broker.told == []
    assert not waker.flush(0.01)
    broker.opened.set()
    assert waker.flush(PATIENCE)
    assert broker.told == [1, 2]


def test_pushes_while_the_broker_is_busy_are_one_task_for_each_partition(waker, broker):
    broker.opened.clear()
    waker.wake({1})
    assert broker.asked.wait(PATIENCE)
    for _ in range(100):
        waker.wake({1, 3})
        waker.wake({2})
    broker.opened.set()
    assert waker.flush(PATIENCE)
    assert broker.told == [1, 1, 2, 3]


def test_a_wake_after_the_task_was_enqueued_is_a_task_of_its_own(waker, broker):
    for _ in range(3):
        waker.wake({1})
        assert waker.flush(PATIENCE)
    assert broker.told == [1, 1, 1]


def test_what_could_not_be_said_is_said_again_and_nothing_else(waker, broker, caplog):
    broker.failing[2] = BrokerError("away")
    waker.wake({1, 2, 3})
    wait_until(lambda: caplog.text.count("the workers cannot be woken") >= 3)
    assert broker.told == [1]
    broker.failing.clear()
    assert waker.flush(PATIENCE)
    assert broker.told == [1, 2, 3]
    assert not any(record.exc_info for record in caplog.records)


def test_a_bug_is_logged_and_stops_nothing(waker, broker, caplog):
    broker.failing[1] = LookupError("a bug")
    waker.wake({1})
    wait_until(lambda: any(record.exc_info for record in caplog.records))
    broker.failing.clear()
    assert waker.flush(PATIENCE)
    waker.wake({2})
    assert waker.flush(PATIENCE)
    assert broker.told == [1, 2]
    assert {record.levelno for record in caplog.records} == {logging.ERROR}


def test_a_broker_that_was_away_hears_of_all_partitions_once(broker_down, tasks, caplog):
    for _ in range(50):
        wake({1, 2})
    wait_until(lambda: "the workers cannot be woken" in caplog.text)
    assert not module.waker.flush(0.01)
    broker_down()  # it is back
    assert tasks() == [("push.fan_out", 1), ("push.fan_out", 2)]


def test_a_process_that_was_forked_has_a_waker_of_its_own(waker, monkeypatch):
    waker.wake({1})
    assert waker.flush(PATIENCE)
    reads, writes = os.pipe()
    monkeypatch.setattr(
        fan_out, "apply_async", lambda args, queue, headers: os.write(writes, bytes(args))
    )
    child = os.fork()
    if not child:
        waker.wake({7})
        os._exit(0 if waker.flush(PATIENCE) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(reads, 10) == b"\x07"
    os.close(reads), os.close(writes)


ENDS_AT_ONCE = """
import django
django.setup()
from push.accept.worker_wakeups import wake
wake({2})
"""


def test_a_process_that_ends_has_said_what_it_had_to(tasks):
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "imgo_site.settings"}
    done = fork_server.run(["-c", ENDS_AT_ONCE], Path.cwd(), environment, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")
    assert tasks() == [("push.fan_out", 2)]


@pytest.mark.django_db(transaction=True)
def test_outbox_where_tasks_run_at_once_is_empty_after_a_push(settings, mode_of, tasks):
    mode_of("embedded")
    settings.IMGO_BROKER_URL = ""
    for push in (Push(b"1", keys=("a", "b", "c")), Push(b"1", room="r"), Push(b"1", to_all=True)):
        accept_push(push)
        assert not Outbox.objects.exists()
    assert tasks() == []


def test_a_task_names_the_first_request_that_asked_for_it(waker, broker):
    broker.opened.clear()
    waker.wake({0})
    assert broker.asked.wait(PATIENCE)
    for name in ("first", "second"):
        with logs.within(name):
            waker.wake({1})
    broker.opened.set()
    assert waker.flush(PATIENCE)
    assert list(zip(broker.told, broker.headers, strict=True)) == [
        (0, {}),
        (1, {REQUEST_HEADER: "first"}),
    ]


def test_the_broker_carries_the_name_of_the_request(tasks):
    with logs.within("abc"):
        wake({2})
    assert module.waker.flush(PATIENCE)
    with (
        celery_app.connection_for_read() as connection,
        connection.SimpleQueue(queue_of(2)) as queue,
    ):
        message = queue.get(timeout=PATIENCE)
        message.ack()
    assert message.headers[REQUEST_HEADER] == "abc"


def test_waker_whose_thread_has_died_starts_another(tasks, monkeypatch):
    waker = Waker()
    dead = threading.Thread(target=int)
    dead.start()
    dead.join()
    waker._pid, waker._thread = os.getpid(), dead
    waker.wake([1])
    assert waker.flush(PATIENCE)
    assert tasks() == [("push.fan_out", 1)]
