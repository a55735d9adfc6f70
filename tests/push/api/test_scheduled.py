"""Pushes with `send_at` over the API: objects, arrays and streams, and their records."""

from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from offline.models import RECEIVED, Message, Outbox, Pending, ScheduledPush
from offline.settlement import record_receipts
from offline.values import Receipt
from push.node import due_pushes
from push.status import explain

from .test_v1 import PUSHES, check_problem, send

pytestmark = pytest.mark.django_db

PUSH = {"to": {"key": "u1"}, "body": {"n": 1}}


def schedule(api, **push) -> str:
    """Push in a minute; return the id."""
    return send(api, {**PUSH, "send_at": 60, **push}).json()["id"]


def send_all() -> None:
    """Let everything be due now, and store it."""
    ScheduledPush.objects.update(due_at=timezone.now() - timedelta(seconds=1))
    due_pushes.store()


@pytest.mark.parametrize(
    ("send_at", "code"),
    [
        (60, 202),
        (0.5, 202),
        ("2000-01-01T00:00:00Z", 202),
        ("2026-12-24T18:00:00", 400),
        ("soon", 400),
        (-1, 400),
        (31 * 86_400, 400),
        ("9999-12-31T23:59:59Z", 400),
        (True, 400),
        ([], 400),
    ],
)
def test_time_is_accepted_or_refused(api, queued, send_at, code):
    answer = send(api, {**PUSH, "send_at": send_at})
    assert answer.status_code == code, answer.content
    assert ScheduledPush.objects.count() == (code == 202 and not isinstance(send_at, str))
    if code == 400:
        check_problem(answer, 400, "bad_request")


def test_array_has_scheduled_and_other_pushes(api, queued):
    items = [{**PUSH, "send_at": 60}, PUSH, {**PUSH, "send_at": "soon"}]
    one, two, three = send(api, items).json()
    assert ScheduledPush.objects.get().pk == int(one["id"])
    assert Message.objects.get().pk == int(two["id"])
    assert "soon" in three["error"]["detail"]


def test_record_of_a_scheduled_push_names_its_time_and_then_its_message(api):
    at = (timezone.now() + timedelta(hours=1)).isoformat()
    push_id = schedule(api, to={"keys": ["u1", "u2"]}, send_at=at, ttl=600)
    record = api.get(f"{PUSHES}/{push_id}").json()
    assert record["fan_out"] == {"state": "scheduled"}
    assert datetime.fromisoformat(record["send_at"]) == datetime.fromisoformat(at)
    expires = datetime.fromisoformat(record["expires_at"])
    assert expires - datetime.fromisoformat(at) == timedelta(seconds=600)
    assert [(row["key"], row["state"]) for row in record["results"]] == [
        ("u1", "scheduled"),
        ("u2", "scheduled"),
    ]
    send_all()
    record = api.get(f"{PUSHES}/{push_id}").json()
    assert record["scheduled_id"] == push_id != record["id"]
    assert record == api.get(f"{PUSHES}/{record['id']}").json()
    assert record["totals"]["pending"] == 2


def test_explain_names_the_schedule_before_and_after(api):
    push_id = int(schedule(api))
    accepted, scheduled = explain.of_message("u1", push_id)
    assert accepted.startswith(f"Push {push_id} was accepted by ")
    assert scheduled.startswith("It is scheduled for ")
    assert "It was not pushed to 'u2'." in explain.of_message("u2", push_id)
    send_all()
    sentences = explain.of_message("u1", push_id, lambda _: [], list)
    assert sentences[0].startswith(f"Message {Message.objects.get().pk} was accepted by ")
    assert f"as push {push_id}" in sentences[1]


def test_cancel_settles_what_is_scheduled_and_is_the_same_when_repeated(api):
    push_id = schedule(api, to={"keys": ["u1", "u2"]})
    wanted = {"id": push_id, "state": "cancelled", "cancelled": 2, "too_late": 0}
    for _ in range(2):
        answer = api.delete(f"{PUSHES}/{push_id}")
        assert (answer.status_code, answer.json()) == (200, wanted)
    send_all()
    assert not Pending.objects.exists()
    assert "cancelled_at" in api.get(f"{PUSHES}/{push_id}").json()
    sentences = explain.of_message("u1", int(push_id), lambda _: [], list)
    assert any(one.startswith("It was cancelled at ") for one in sentences)


def test_cancel_of_a_due_push_by_the_id_that_was_answered(api):
    push_id = schedule(api, to={"keys": ["u1", "u2"]})
    send_all()
    message_id = Message.objects.get().pk
    record_receipts([Receipt(message_id, "u1", RECEIVED, "s1")])
    answer = api.delete(f"{PUSHES}/{push_id}").json()
    assert answer == {"id": str(message_id), "state": "partly", "cancelled": 1, "too_late": 1}


@pytest.mark.parametrize("to", [{"room": "r"}, {"all": True}])
def test_cancel_of_a_push_to_a_room_or_all_until_it_is_sent(api, to):
    push_id = schedule(api, to=to)
    other = schedule(api, to=to)
    answer = api.delete(f"{PUSHES}/{push_id}").json()
    assert answer == {"id": push_id, "state": "cancelled", "cancelled": 0, "too_late": 0}
    send_all()
    Outbox.objects.all().delete()  # it is sent
    assert api.delete(f"{PUSHES}/{other}").json()["state"] == "too_late"


def test_cancel_needs_the_same_caller_or_admin(api, caller):
    mine, other, admin = caller("push"), caller("push"), caller("admin")
    push_id = schedule(mine)
    check_problem(other.delete(f"{PUSHES}/{push_id}"), 403, "forbidden")
    check_problem(caller("read").delete(f"{PUSHES}/{push_id}"), 403, "forbidden")
    assert mine.delete(f"{PUSHES}/{push_id}").json()["cancelled"] == 1
    assert admin.delete(f"{PUSHES}/{schedule(mine)}").json()["cancelled"] == 1
    check_problem(admin.delete(f"{PUSHES}/{2**62}"), 404, "not_found")


def test_cancel_by_the_dedupe_id_of_the_same_caller(caller):
    mine, other = caller("push"), caller("push")
    push_id = schedule(mine, dedupe_id="order-7")
    check_problem(other.delete(f"{PUSHES}?dedupe_id=order-7"), 404, "not_found")
    check_problem(mine.delete(PUSHES), 400, "bad_request")
    answer = mine.delete(f"{PUSHES}?dedupe_id=order-7").json()
    assert answer == {"id": push_id, "state": "cancelled", "cancelled": 1, "too_late": 0}
