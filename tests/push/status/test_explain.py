"""Explanations of messages and keys: obstacles, unknown states, cancelled pushes, the replica."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import router
from django.db.models.functions import Now
from django.db.utils import ConnectionRouter

from imgo_site import replica
from imgo_site.errors import Unavailable
from imgo_site.replica import Source
from offline import streams
from offline.models import SENT, Message, Outbox
from offline.settlement import record_receipts
from offline.values import Receipt
from push import push_to_all, push_to_key, push_to_keys, push_to_room
from push.accept.accept import Push, accept_push
from push.accept.cancel import cancel_push
from push.models import Canary
from push.registry.base import Entry
from push.status import explain

pytestmark = pytest.mark.django_db

NOBODY: list[Entry] = []
ENTRY = Entry("a1-7", "u1", "a1", "tcp", "192.0.2.1", "", 1_764_000_000.0)
DESCRIBED = "Session a1-7 (tcp from 192.0.2.1 on node a1, since 2025-11-24T16:00:00.000Z)"


def of_message(message_id: int, key: str = "u1", sessions: list[Entry] = NOBODY) -> list[str]:
    return explain.of_message(key, message_id, lambda _: sessions, list)


def fail(*_: object) -> list:
    raise Unavailable("Redis refused the connection.")


@pytest.fixture
def deaf() -> Callable[..., None]:
    """Makes these partitions ones from which no worker takes tasks."""

    def make(*partitions: int) -> None:
        long_ago = Now() - timedelta(hours=1)
        Canary.objects.bulk_create(
            Canary(partition=n, first_at=long_ago, sent_at=Now(), heard_at=long_ago)
            for n in partitions
        )

    return make


def partition_of(message_id: int) -> int:
    return Outbox.objects.get(message=message_id).partition


# Where a message waits


def test_message_waits_for_a_partition_that_no_worker_takes(deaf, imgo):
    imgo(SWEEP_AFTER=7.5)
    message_id = push_to_key("u1", 1)
    number = partition_of(message_id)
    waits = f"It has not been fanned out yet (partition {number})."
    sweep = (
        f"No worker takes tasks for partition {number}; a node fans out its messages once they "
        "are older than SWEEP_AFTER (7.5 s)."
    )
    assert waits in of_message(message_id)
    assert sweep not in of_message(message_id)
    deaf(number)
    sentences = of_message(message_id)
    assert sentences.index(sweep) == sentences.index(waits) + 1


def test_deaf_partition_of_other_messages_is_no_obstacle(deaf):
    message_id = push_to_key("u1", 1)
    deaf(partition_of(message_id) + 1)
    assert not any("No worker takes tasks" in one for one in of_message(message_id))


def test_parked_message_is_explained_by_the_error_of_its_fan_out():
    message_id = push_to_room("lobby", 1)
    Outbox.objects.update(parked_at=Now(), error="ValueError: too large")
    parked = "It is parked, because its fan-out failed too often: ValueError: too large"
    assert of_message(message_id)[-1] == parked


@pytest.mark.parametrize(
    ("partitions", "words"), [([2], "partition 2"), ([1, 2], "partitions 1, 2")]
)
def test_key_is_explained_with_all_partitions_that_no_worker_takes(deaf, partitions, words):
    deaf(*partitions)
    lines = explain.of_key("u1", 5, lambda _: [], list)
    assert lines[-1] == f"No worker takes tasks for {words}."


# Sessions and hooks that are not known


def test_unknown_sessions_are_not_taken_for_none():
    message_id = push_to_key("u1", 1)
    sentences = explain.of_message("u1", message_id, fail, list)
    reason = "Redis refused the connection."
    assert sentences[-1] == f"Whether the key is connected is not known here: {reason}"
    assert not any("No session of the key" in one for one in sentences)
    first, second, *others = explain.of_key("u1", 5, fail, fail)
    assert first == "'u1' has 1 pending message."
    assert second == f"Whether it is connected is not known here: {reason}"
    assert not any("hooks" in one for one in others)


def test_unknown_hooks_are_an_obstacle_of_a_key_without_sessions():
    message_id = push_to_key("u1", 1)
    unknown = (
        "Whether your backend answers the hooks is not known here: Redis refused the connection."
    )
    assert explain.of_message("u1", message_id, lambda _: [], fail)[-1] == unknown
    assert unknown in explain.of_key("u1", 5, lambda _: [], fail)
    assert unknown not in explain.of_message("u1", message_id, lambda _: [ENTRY], fail)
    assert unknown not in explain.of_key("u1", 5, lambda _: [ENTRY], fail)


def test_open_session_was_sent_the_message_or_is_only_connected():
    message_id = push_to_key("u1", 1)
    assert of_message(message_id, sessions=[ENTRY])[-1] == f"{DESCRIBED} is connected."
    record_receipts([Receipt(message_id, "u1", SENT, "a1-7")])
    sent = f"{DESCRIBED} was sent it and has not acknowledged it."
    assert of_message(message_id, sessions=[ENTRY])[-1] == sent


# Messages that a key does not get


def test_message_to_another_key_is_explained_by_its_keys():
    message_id = push_to_keys(["u2", "u3"], 1)
    accepted, other = of_message(message_id)
    assert "accepted by python for 2 keys at" in accepted
    assert other == "It was not pushed to 'u1'."


def test_message_without_a_record_may_never_have_been_accepted():
    (only,) = of_message(10**9)
    assert only.startswith("There is no record of message 1000000000: it was never accepted, or")


def test_cancelled_push_to_a_room_is_explained_by_whether_it_was_kept(imgo):
    imgo(ROOMS={"kept": {"history": 10}})
    kept, live = push_to_room("kept", 1), push_to_room("lobby", 1)
    streams.assign([Message.objects.get(pk=kept)])
    cancel_push(kept)
    cancel_push(live)
    assert of_message(kept)[-1].endswith(": its room keeps it no more.")
    assert of_message(live)[-1].endswith(", before it was sent.")
    assert of_message(live)[-1].startswith("It was cancelled at 20")


def test_message_to_all_is_explained_by_its_reach():
    message_id = push_to_all(1)
    Outbox.objects.all().delete()
    accepted, *others = of_message(message_id)
    assert " for everyone at " in accepted
    assert others == [
        "Such a message goes to the sessions that are open; there is no record for each key.",
        "It was written to 0 sessions of 0 nodes.",
    ]


def test_message_of_a_client_is_explained_by_its_key():
    message_id = accept_push(Push(b"1", room="lobby", sender="u2"))
    words = f"Message {message_id} was accepted with the key 'u2' for the room 'lobby' at 20"
    assert of_message(message_id)[0].startswith(words)


def test_data_of_one_message_has_its_explanation_and_its_state():
    message_id = push_to_keys(["u1", "u2"], 1)
    push_to_key("u1", 2)
    data = explain.as_data("u1", message_id, 5, lambda _: [], list)
    assert data["explanation"] == of_message(message_id)
    (found,) = data["messages"]
    assert (found["id"], found["key"], found["state"]) == (str(message_id), "u1", "pending")
    assert found["fan_out"]["state"] == "waiting"


@pytest.mark.parametrize("is_known", [True, False])
def test_data_of_a_message_that_a_key_was_not_sent_has_no_state(is_known):
    message_id = push_to_key("u2", 1) if is_known else 10**9
    data = explain.as_data("u1", message_id, 5, lambda _: [], list)
    assert data == {"key": "u1", "explanation": of_message(message_id), "messages": []}


# The replica


@pytest.fixture
def standby(imgo, monkeypatch) -> Callable[[Source], None]:
    """Sets what is known of a replica. The tables that are read are the primary's."""
    imgo(REPLICA_DATABASE="default")
    monkeypatch.setattr(router, "routers", ConnectionRouter([replica.ReplicaRouter()]).routers)
    monkeypatch.setattr(replica, "connections", {"default": NeverClosed()})
    part = replica.process.get(replica._Replica)
    return lambda source: part._use(source, 3600.0)


class NeverClosed:
    """A connection that stays open, with the transaction of the test."""

    def close(self) -> None:
        pass


def test_explanation_from_a_replica_ends_with_its_age(standby):
    message_id = push_to_key("u1", 1)
    standby(Source("default", 0.4))
    age = "Read from the replica, at most 0.4 s old."
    assert of_message(message_id)[-1] == age
    assert explain.of_key("u1", 5, lambda _: [], list)[-1] == age


def test_explanation_tells_why_the_replica_was_not_read(standby):
    message_id = push_to_key("u1", 1)
    standby(Source(problem="The replica is too far behind."))
    told = "The replica is too far behind. This was read from the primary."
    assert of_message(message_id)[-1] == told


def test_message_that_the_replica_does_not_have_yet_is_read_from_the_primary(standby, monkeypatch):
    message_id = push_to_key("u1", 1)
    standby(Source("default", 0.4))
    find, sources = explain.history.find, []

    def find_on_primary(number: int) -> Message | None:
        sources.append(explain.current_source().age)
        return find(number) if sources[-1] is None else None

    monkeypatch.setattr(explain.history, "find", find_on_primary)
    accepted, *others = of_message(message_id)
    assert accepted.startswith(f"Message {message_id} was accepted")
    assert sources == [0.4, None]
    assert not any("replica" in one for one in others)
