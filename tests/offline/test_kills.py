"""Processes that are killed before each step of a cancel or of a replacement."""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.db import connection
from django.utils import timezone

from offline import cancellation, conservation, key_devices, schedule, streams
from offline.models import (
    CollapseKey,
    Event,
    Message,
    Outbox,
    Pending,
    ScheduledPush,
    StreamMessage,
)
from offline.outbox_queue import Busy
from offline.values import NewMessage
from push.accept.transaction import store
from push.models import Dedupe
from tests import PATIENCE, fork_server, wait_until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.long]

PROGRAM = Path(__file__).with_name("killed_program.py")
ROOT = Path(__file__).parents[2]
STEPS_MAX = 100
KEYS = ["a", "b", "c"]
POLICIES = {"kept": {"history": 10}}
SCOPES = {"each": "each"}


@pytest.fixture(autouse=True)
def _policies(imgo):
    imgo(ROOMS=POLICIES, ACK_SCOPE=SCOPES, DEVICES_MAX=2)


def ends(step: int, operation: str, argument: str) -> bool:
    """Run the program; return whether it has ended before it would kill itself."""
    url = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}")
    environment = {
        **os.environ,
        "DATABASE_URL": url.geturl(),
        "DJANGO_SETTINGS_MODULE": "imgo_site.settings",
        "PYTHONPATH": str(ROOT),
        "IMGO_ROOMS": json.dumps(POLICIES),
        "IMGO_ACK_SCOPE": json.dumps(SCOPES),
        "IMGO_DEVICES_MAX": "2",
    }
    command = [str(PROGRAM), str(step), operation, argument]
    done = fork_server.run(command, ROOT, environment, timeout=PATIENCE)
    assert done.returncode in (0, -9), done.stderr
    return done.returncode == 0


def check_balance() -> None:
    assert conservation.balance_of_latest(0).missing == 0
    assert conservation.unbalanced(0, 10**12) == []


def every_step(prepare: Callable[[], tuple[str, str]], check: Callable[[int], None]) -> None:
    """Kill the operation before each of its steps, each time with rows of its own."""
    for step in range(1, STEPS_MAX):
        operation, argument = prepare()
        has_ended = ends(step, operation, argument)
        check_balance()
        check(step)
        check_balance()
        for model in (Outbox, Pending, ScheduledPush, StreamMessage, Event, CollapseKey, Message):
            model.objects.all().delete()
        if has_ended:
            assert step > 3
            return
    raise AssertionError("there are too many steps")


def accept(*messages: NewMessage) -> list[int]:
    return store(messages).ids


def test_cancel_of_a_push_to_keys_is_completed_by_a_retry():
    def prepare() -> tuple[str, str]:
        members = {"hashes": (0, 1, 2), "collapse_key": ""}
        [push_id] = accept(NewMessage(b"{}", 600.0, keys=tuple(KEYS), **members))
        Outbox.objects.filter(partition=0).delete()  # it was sent to some
        return "cancel", str(push_id)

    def check(step: int) -> None:
        push_id = Message.objects.exclude(op=30).get().pk
        done = cancellation.cancel(push_id)
        assert (done.keys, done.message.cancelled_at is None) == (3, False), step
        assert not Pending.objects.exists()
        retractions = Message.objects.filter(op=30)
        assert retractions.count() == 1
        assert set(Outbox.objects.values_list("message_id", flat=True)) == {retractions.get().pk}

    every_step(prepare, check)


def test_cancel_of_a_kept_message_is_completed_by_a_retry():
    def prepare() -> tuple[str, str]:
        [push_id] = accept(NewMessage(b"{}", 600.0, audience="room", room="kept"))
        streams.assign([Message.objects.get()])
        Outbox.objects.all().delete()
        return "cancel", str(push_id)

    def check(step: int) -> None:
        push_id = Message.objects.exclude(op=30).get().pk
        done = cancellation.cancel(push_id)
        assert done.erased, step
        assert bytes(StreamMessage.objects.get().body) == b""
        assert Message.objects.filter(op=30).count() == 1

    every_step(prepare, check)


def pushes() -> list[dict[str, object]]:
    keyed = {"keys": KEYS, "collapse_key": "n", "dedupe_id": "d1"}
    roomed = {"audience": "room", "room": "kept", "collapse_key": "n", "dedupe_id": "d2"}
    return [keyed, roomed]


def test_replacement_happens_as_a_whole_or_not_at_all():
    def prepare() -> tuple[str, str]:
        Dedupe.objects.all().delete()
        older = [{**one, "dedupe_id": ""} for one in pushes()]
        accept(*(NewMessage(b"{}", 600.0, **one) for one in older))
        kept = Message.objects.get(audience="room")
        streams.assign([kept])
        Outbox.objects.filter(message=kept).delete()
        return "accept", json.dumps(pushes())

    def check(step: int) -> None:
        first, kept = Message.objects.order_by("pk")[:2]
        replaced = Event.objects.filter(message=first, kind="dropped", reason="replaced").count()
        assert replaced in (0, 3), step
        assert StreamMessage.objects.filter(body=b"").exists() == (replaced == 3)
        assert Message.objects.count() == (4 if replaced else 2)
        new = accept(*(NewMessage(b"{}", 600.0, **one) for one in pushes()))
        assert Message.objects.count() == 4
        assert set(Pending.objects.values_list("message_id", flat=True)) == {new[0]}
        assert set(CollapseKey.objects.values_list("push_id", flat=True)) == set(new)
        assert Message.objects.get(pk=kept.pk).drop_reason == "replaced"

    every_step(prepare, check)


def test_due_push_that_was_replaced_for_a_key_becomes_one_message():
    def prepare() -> tuple[str, str]:
        members = {"collapse_key": "n", "send_in": 60.0}
        accept(NewMessage(b"{}", 600.0, keys=tuple(KEYS), **members))
        accept(NewMessage(b"{}", 600.0, keys=("a",), collapse_key="n"))
        ScheduledPush.objects.update(due_at=timezone.now() - timedelta(seconds=1))
        return "due", ""

    def is_stored() -> bool:
        with suppress(Busy):  # Postgres has not noticed the end of the killed process yet
            schedule.store_due()
            return True
        return False

    def check(step: int) -> None:
        wait_until(is_stored)
        assert not ScheduledPush.objects.exists()
        assert Message.objects.count() == 2
        assert sorted(Pending.objects.values_list("key", flat=True)) == KEYS, step
        assert Event.objects.filter(reason="replaced").count() == 1

    every_step(prepare, check)


def of_devices() -> set[tuple[str, int]]:
    """Which devices of the key have how many messages pending."""
    return {(row.name, row.pending) for row in key_devices.devices_of("each")}


def test_registration_that_forgets_a_device_happens_as_a_whole_or_not_at_all():
    def prepare() -> tuple[str, str]:
        for name in ("phone", "laptop"):
            key_devices.register("each", name)
        accept(*(NewMessage(b"{}", 600.0, keys=("each",)) for _ in range(2)))
        return "register", json.dumps(["each", "tablet"])

    def check(step: int) -> None:
        after = {("laptop", 2), ("tablet", 0)}
        assert of_devices() in ({("phone", 2), ("laptop", 2)}, after), step
        key_devices.register("each", "tablet")
        assert of_devices() == after

    every_step(prepare, check)
