"""Group commit: who comes together is accepted together, and fails together."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection, transaction

from imgo_site import logs
from imgo_site.errors import BadRequest, OutcomeUnknown, Unavailable
from offline.models import Message, Outbox, Pending
from push.accept import group_commit as module
from push.accept.accept import Push, accept_pushes
from push.accept.group_commit import GroupCommit, accept_in_group
from tests import call_and_close

PATIENCE = 10  # seconds


class Gate:
    """`accept_pushes`, whose first call waits until the gate is opened."""

    def __init__(self) -> None:
        self.groups: list[tuple[str, list[bytes]]] = []
        self.entered = threading.Event()
        self.opened = threading.Event()
        self.error: Exception | None = None

    def __call__(self, pushes: list[Push], by: str, origins: list[str]) -> list[int]:
        self.groups.append((by, [push.body for push in pushes]))
        self.entered.set()
        assert self.opened.wait(PATIENCE)
        if self.error is not None:
            raise self.error
        return accept_pushes(pushes, by, origins)


@pytest.fixture
def gate(transactional_db, monkeypatch):
    found = Gate()
    monkeypatch.setattr(module, "accept_pushes", found)
    yield found
    found.opened.set()


def key_push(number: int, **fields: Any) -> Push:
    return Push(b"%d" % number, keys=(f"u{number}",), **fields)


def accept(commit: GroupCommit, push: Push, by: str) -> int:
    try:
        return commit.accept(push, by)
    finally:
        connection.close()


def one_and_then(gate: Gate, callers: list[str], pushes: list[Push] | None = None) -> list[Any]:
    """What becomes of a push that is under way, and of one a caller that come meanwhile."""
    commit = GroupCommit()
    pushes = pushes or [key_push(number) for number in range(1, len(callers) + 1)]
    with ThreadPoolExecutor(len(callers) + 1) as threads:
        futures = [threads.submit(accept, commit, key_push(0), "first")]
        assert gate.entered.wait(PATIENCE)
        for number, by in enumerate(callers, 1):
            futures.append(threads.submit(accept, commit, pushes[number - 1], by))
            while len(commit._waiting) < number:
                assert not futures[-1].done()
        gate.opened.set()
        return [future.exception(PATIENCE) or future.result() for future in futures]


def test_those_who_come_while_one_is_under_way_are_accepted_together(gate):
    ids = one_and_then(gate, ["a"] * 5)
    assert gate.groups == [("first", [b"0"]), ("a", [b"1", b"2", b"3", b"4", b"5"])]
    assert ids == sorted(set(ids))
    assert [bytes(Message.objects.get(pk=one).body) for one in ids] == [
        b"%d" % number for number in range(6)
    ]
    assert set(Pending.objects.values_list("message_id", "key")) == {
        (one, f"u{number}") for number, one in enumerate(ids)
    }


def test_each_caller_has_a_transaction_of_its_own(gate):
    one_and_then(gate, ["a", "a", "b"])
    assert gate.groups == [("first", [b"0"]), ("a", [b"1", b"2"]), ("b", [b"3"])]


@pytest.mark.parametrize("error", [Unavailable("away"), LookupError("a bug")])
def test_those_who_fail_together_each_hear_of_it(gate, error):
    gate.error = error
    found = one_and_then(gate, ["a"] * 3)
    assert [(type(one), str(one)) for one in found] == [(type(error), str(error))] * 4
    assert not Message.objects.exists()


def test_after_a_failure_the_next_is_accepted(gate):
    commit = GroupCommit()
    gate.opened.set()
    gate.error = Unavailable("away")
    with pytest.raises(Unavailable):
        commit.accept(key_push(1), "a")
    gate.error = None
    assert commit.accept(key_push(2), "a") == Message.objects.get().pk


def test_what_cannot_be_accepted_fails_alone(gate):
    with pytest.raises(BadRequest):
        GroupCommit().accept(Push(b"", keys=("u1",)), "a")
    assert gate.groups == []


def test_group_with_dedupe_ids_is_one_transaction(gate):
    pushes = [key_push(1, dedupe_id="x"), key_push(2, dedupe_id="y"), key_push(3, dedupe_id="x")]
    first, one, two, three = one_and_then(gate, ["a"] * 3, pushes)
    assert len(gate.groups) == 2
    assert one == three
    assert len({first, one, two}) == 3


def test_follower_of_a_stuck_leader_takes_its_push_back(gate, imgo):
    imgo(DATABASE_TIMEOUT=0.05)
    commit = GroupCommit()
    with ThreadPoolExecutor(1) as pool:
        leader = pool.submit(call_and_close, commit.accept, key_push(0), "a")
        assert gate.entered.wait(PATIENCE)
        with pytest.raises(Unavailable, match="nothing was accepted"):
            commit.accept(key_push(1), "a")
        gate.opened.set()
        first = leader.result(PATIENCE)
    assert list(Message.objects.values_list("pk", flat=True)) == [first]
    assert commit.accept(key_push(2), "a") > first


def test_follower_refused_as_its_wait_ends_raises_its_error(gate):
    """Its leader has refused it, and not called it yet."""
    commit = GroupCommit()
    mine = module._Waiting(key_push(1), "a")
    mine.error = Unavailable("too slow")
    commit._wait_longer(mine)  # nothing to take back


@pytest.mark.parametrize("age", [0.0, 3600.0], ids=["leader is new", "leader is old"])
def test_push_behind_leader_after_a_failure_is_refused_soon(gate, monkeypatch, imgo, age):
    """While the database fails, each push must not hold one of the server's threads."""
    imgo(DATABASE_TIMEOUT=3600.0)
    monkeypatch.setattr(module, "RECOVERY_TIMEOUT", 0.05)
    commit = GroupCommit()
    gate.error = Unavailable("away")
    gate.opened.set()
    with pytest.raises(Unavailable, match="away"):
        commit.accept(key_push(0), "a")
    gate.error = None
    gate.opened.clear()
    gate.entered.clear()
    with ThreadPoolExecutor(1) as pool:
        leader = pool.submit(call_and_close, commit.accept, key_push(1), "a")
        assert gate.entered.wait(PATIENCE)
        commit._led -= age
        with pytest.raises(Unavailable, match="nothing was accepted"):
            commit.accept(key_push(2), "a")  # the leader is at it still
        gate.opened.set()
        first = leader.result(PATIENCE)
    assert commit.accept(key_push(3), "a") > first
    assert len(gate.groups) == 3


def test_followers_that_waited_long_fail_with_their_leader(gate, monkeypatch):
    gate.error = Unavailable("too slow")
    # They have begun to wait long ago.
    monkeypatch.setattr(module._Waiting, "__init__", aged(module._Waiting.__init__))
    found = one_and_then(gate, ["a", "b"])
    assert [type(one) for one in found] == [Unavailable] * 3
    assert len(gate.groups) == 1


def aged(init: Any) -> Any:
    def begin(self: Any, *args: Any) -> None:
        init(self, *args)
        self.began -= 3600

    return begin


@pytest.mark.parametrize("dedupe_id", ["", "once"])
def test_follower_in_a_stuck_transaction_is_answered_unknown(gate, imgo, dedupe_id):
    imgo(DATABASE_TIMEOUT=0.05)
    commit = GroupCommit()
    mine = module._Waiting(key_push(1, dedupe_id=dedupe_id), "a")
    with commit._lock:
        commit._is_busy = True  # a leader that has taken the push, and does not come back
    mine.is_taken = True
    with pytest.raises(OutcomeUnknown) as raised:
        commit._wait_longer(mine)
    assert raised.value.retry is bool(dedupe_id)


def test_a_push_inside_of_a_transaction_belongs_to_that(gate):
    with transaction.atomic():
        GroupCommit().accept(key_push(1), "a")
        transaction.set_rollback(True)
    assert gate.groups == []
    assert not Message.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_each_push_of_a_group_keeps_the_request_that_it_came_with(redis_client):
    def accept(name: str) -> int:
        with logs.within(name):
            return accept_in_group(Push(b"1", keys=("a",)))

    names = [f"request{n}" for n in range(20)]
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(call_and_close, [accept] * len(names), names))
    origins = dict(Outbox.objects.values_list("message_id", "origin"))
    assert [origins[one] for one in ids] == names
