"""Scheduled pushes in a node: they reach sessions when they are due, once, in order."""

import os
import signal
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from offline import conservation, history, schedule
from offline.models import DuePush, Message, Outbox, Pending, ScheduledPush
from offline.partitions import partition_of
from push.accept.accept import Push, accept_push, accept_pushes
from push.node import due_pushes
from tests import eventually, in_thread
from tests.push.sessions import admit, ids


async def test_node_sends_a_scheduled_push_when_it_is_due(node):
    session = await admit(node, "u1")
    push_id = await in_thread(accept_push, Push(b"1", keys=("u1",), send_at=0.3))
    assert ids(session) == []
    [message_id] = await eventually(lambda: ids(session))
    assert (await in_thread(history.find, push_id)).pk == message_id != push_id
    due = await in_thread(DuePush.objects.get)
    message = await in_thread(Message.objects.get)
    assert due.created_at < due.due_at < message.created_at


async def test_due_pushes_wake_the_workers_of_their_partitions(node, tasks, imgo):
    await node.cluster_jobs.stop()
    pushes = [Push(b"1", keys=(f"u{n}",), send_at=0.001) for n in range(3)]
    await in_thread(accept_pushes, pushes)
    tasks()
    await node.cluster_jobs.send_due()
    wanted = sorted({partition_of(f"u{n}", 4) for n in range(3)})
    assert tasks() == [("push.fan_out", n) for n in wanted]


async def test_due_pushes_are_stored_without_the_broker(node, broker_down, caplog):
    await node.cluster_jobs.stop()
    await in_thread(accept_push, Push(b"1", keys=("u1",), send_at=0.001))
    await node.cluster_jobs.send_due()
    assert await in_thread(Outbox.objects.count) == 1
    assert "the workers cannot be woken" in caplog.text


def store_and_die(statement: int) -> None:
    """Store due pushes; kill this process before its n-th statement, COMMIT included.

    The process lives if there are fewer statements.
    """
    left = statement

    def count() -> None:
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    def execute(run, *arguments):
        count()
        return run(*arguments)

    commit = connection._commit

    def commit_and_count() -> None:
        count()
        commit()
        count()  # the answer to COMMIT does not arrive

    connection._commit = commit_and_count
    with connection.execute_wrapper(execute):
        while due_pushes.store().partitions:
            pass


def run_in_child(statement: int) -> bool:
    """Return whether a forked child came to the end of `store_and_die`."""
    pid = os.fork()
    if not pid:
        try:
            store_and_die(statement)
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return not code


@pytest.mark.long
def test_each_push_becomes_one_message_whatever_statement_is_the_last(
    transactional_db, mode_of, monkeypatch
):
    mode_of("production")
    monkeypatch.setattr(schedule, "BATCH", 3)
    at = timezone.now() - timedelta(minutes=1)
    pushed = accept_pushes([Push(b"%d" % n, keys=(f"u{n}",), send_at=60.0) for n in range(12)])
    wanted = pushed[1::2] + pushed[::2]
    for n, push_id in enumerate(wanted):
        ScheduledPush.objects.filter(pk=push_id).update(due_at=at + timedelta(seconds=n // 2))
    kills = 0
    while not run_in_child(kills + 1):
        kills += 1
        waiting = set(ScheduledPush.objects.values_list("pk", flat=True))
        sent = dict(DuePush.objects.values_list("pk", "message_id"))
        assert waiting | sent.keys() == set(pushed)
        assert len(waiting) + len(sent) == 12
        messages = set(Message.objects.values_list("pk", flat=True))
        assert messages == set(sent.values())
        assert set(Pending.objects.values_list("message_id", flat=True)) == messages
        assert set(Outbox.objects.values_list("message_id", flat=True)) == messages
    assert kills > 10
    assert not ScheduledPush.objects.exists()
    in_order = list(DuePush.objects.order_by("message_id").values_list("pk", flat=True))
    assert in_order == sorted(wanted, key=lambda one: (wanted.index(one) // 2, one))
    total, wrong = conservation.balance_of_latest(0), conservation.unbalanced(0, 10**9)
    assert (total.accepted, total.pending, total.missing, wrong) == (12, 12, 0, [])
