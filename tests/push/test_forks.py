"""After a fork a child pushes: it shares no lock, thread or connection with its parent."""

import os
import signal
import time
from collections.abc import Callable

import pytest

from imgo_site.celery import app
from offline.models import Message
from push.accept.accept import Push
from push.accept.group_commit import accept_in_group, group_commit
from push.accept.worker_wakeups import waker
from push.bus.envelope import close_envelope
from push.bus.publish import publish
from tests import PATIENCE

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")


def in_child(function: Callable[[], None]) -> None:
    """Call `function` in a forked child; fails unless it returns there in time."""
    pid = os.fork()
    if not pid:
        try:
            function()
            os._exit(0)
        finally:
            os._exit(1)
    deadline = time.monotonic() + PATIENCE
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise AssertionError("the child hangs")
        time.sleep(0.01)
    assert os.waitstatus_to_exitcode(ended[1]) == 0


def order() -> None:
    publish([close_envelope("forks", [], 4000)])


def test_a_child_publishes_though_its_parent_has(mode_of, db):
    mode_of("production")
    order()
    in_child(order)
    order()


def test_a_child_accepts_while_a_thread_of_its_parent_was_at_it(transactional_db, mode_of):
    mode_of("production")
    accept_in_group(Push(b'"parent"', keys=("a",)))
    group_commit._is_busy = True  # a leader that is not in the child
    group_commit._lock.acquire()
    try:
        in_child(lambda: accept_in_group(Push(b'"child"', keys=("a",))) or None)
    finally:
        group_commit._lock.release()
        group_commit._is_busy = False
    accept_in_group(Push(b'"parent again"', keys=("a",)))
    bodies = list(Message.objects.order_by("pk").values_list("body", flat=True))
    assert [bytes(body) for body in bodies] == [b'"parent"', b'"child"', b'"parent again"']


def test_a_child_wakes_the_workers_and_its_parent_still_does(tasks):
    def wake() -> None:
        waker.wake([0])
        assert waker.flush(PATIENCE)

    wake()
    in_child(wake)
    wake()
    assert tasks() == [("push.fan_out", 0)] * 3


def test_a_child_has_a_pool_of_its_own_for_the_broker(tasks):
    parents = app.pool

    def check() -> None:
        assert app.pool is not parents

    in_child(check)
    assert app.pool is parents
