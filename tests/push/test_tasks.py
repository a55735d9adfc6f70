"""fan_out: who is sent what, in which order, and what is not sent again."""

from collections.abc import Callable

import pytest
from celery.exceptions import Retry
from django.utils import timezone

from imgo_site.errors import Unavailable
from offline.models import Message, Pending
from push import tasks
from push.envelope import CLOSE, MESSAGE
from push.groups import ALL, key_group, room_group
from push.publish import publish
from push.services import Push, accept_push, accept_pushes
from push.tasks import fan_out
from tests import in_thread

pytestmark = pytest.mark.django_db(transaction=True)

KEYS = {key_group(key): key for key in ("a", "b", "c")}


@pytest.fixture
async def heard(listen) -> Callable:
    """(group, id, key) of everything that is sent to a, b, c, the room r, and all."""
    messages = await listen(*KEYS, room_group("r"), ALL)

    async def sent() -> list[tuple[str, int, str]]:
        names = KEYS | {room_group("r"): "room r", ALL: "all"}
        return [(names[m["group"]], m["id"], m["key"]) for m in await messages()]

    return sent


async def accept(*pushes: Push) -> list[int]:
    return await in_thread(accept_pushes, pushes)


async def run(ids: list[int]) -> None:
    await in_thread(fan_out, ids)


async def test_each_push_goes_to_its_groups_in_order_of_id(heard):
    ids = await accept(
        Push(b"1", keys=("a", "b")),
        Push(b"2", room="r"),
        Push(b"3", to_all=True),
        Push(b"4", keys=("b", "c"), store=False),
        Push(b"5", keys=("a",)),
    )
    await run(ids[::-1])
    one, two, three, four, five = ids
    assert await heard() == [
        ("a", one, "a"),
        ("b", one, "b"),
        ("room r", two, ""),
        ("all", three, ""),
        ("b", four, ""),
        ("c", four, ""),
        ("a", five, "a"),
    ]


async def test_the_envelope_has_all_that_a_session_needs(listen):
    messages = await listen(key_group("a"))
    body = bytes(range(256))
    (one,) = await accept(Push(body, keys=("a",), is_json=False, op=1001))
    await run([one])
    assert await messages() == [
        {
            "type": MESSAGE,
            "group": key_group("a"),
            "id": one,
            "op": 1001,
            "body": body,
            "is_json": False,
            "key": "a",
        }
    ]


async def test_what_one_device_was_replayed_meanwhile_still_goes_to_the_others(heard):
    (one,) = await accept(Push(b"1", keys=("a", "b")))
    await in_thread(Pending.objects.acknowledge, [(one, "a")])
    await run([one])
    assert await heard() == [("a", one, "a"), ("b", one, "b")]


async def test_a_task_that_is_run_again_sends_only_what_is_still_owed(heard):
    (one,) = await accept(Push(b"1", keys=("a", "b")))
    await in_thread(Pending.objects.acknowledge, [(one, "a")])

    def run_again() -> None:
        fan_out.push_request(delivery_info={"redelivered": True})
        try:
            fan_out([one])
        finally:
            fan_out.pop_request()

    await in_thread(run_again)
    assert await heard() == [("b", one, "b")]


async def test_what_has_expired_is_not_sent(heard):
    ids = await accept(
        Push(b"1", keys=("a",)), Push(b"2", room="r"), Push(b"3", keys=("b",)), Push(b"4", room="r")
    )
    gone = Message.objects.filter(pk__in=ids[:2])
    await in_thread(gone.update, expires_at=timezone.now())
    await run(ids)
    assert await heard() == [("b", ids[2], "b"), ("room r", ids[3], "")]


async def test_messages_that_are_gone_are_no_mistake(heard):
    await run([10**12])
    await run([])
    assert await heard() == []


async def test_a_task_that_runs_twice_sends_what_is_still_owed_with_the_same_id(heard):
    (one,) = await accept(Push(b"1", keys=("a",)))
    await run([one])
    await run([one])
    assert await heard() == [("a", one, "a")] * 2


async def test_a_key_keeps_no_more_than_its_share(heard, imgo):
    imgo(OFFLINE_MAX=3)
    for _ in range(5):
        await run(await accept(Push(b"1", keys=("a",)), Push(b"1", keys=("a", "b"))))

    def kept(key: str) -> list[int]:
        return sorted(Pending.objects.filter(key=key).values_list("message_id", flat=True))

    everything = [one for group, one, _ in await heard() if group == "a"]
    assert await in_thread(kept, "a") == everything[-3:]
    assert len(await in_thread(kept, "b")) == 3


async def test_many_keys_cost_a_few_queries(heard, django_assert_max_num_queries):
    (one,) = await accept(Push(b"1", keys=tuple(f"k{n}" for n in range(300))))

    def count() -> None:
        from django.db import connection

        with django_assert_max_num_queries(6, connection=connection):
            fan_out([one])

    await in_thread(count)


# When the layer is away


def layer_away(settings, port: int) -> None:
    layers = dict(settings.CHANNEL_LAYERS["default"])
    layers["CONFIG"] = {"hosts": [f"redis://127.0.0.1:{port}/0"]}
    settings.CHANNEL_LAYERS = {"default": layers}


def test_a_publisher_is_told_that_the_layer_is_away(settings, closed_port):
    layer_away(settings, closed_port)
    message = {"type": CLOSE, "group": "g", "sessions": [], "code": 4504, "reason": ""}
    with pytest.raises(Unavailable, match="channel layer cannot be reached"):
        publish([message])


def test_a_task_is_tried_again_when_the_layer_is_away(settings, closed_port, queued):
    one = accept_push(Push(b"1", keys=("a",)))
    assert queued() == [[one]]
    layer_away(settings, closed_port)
    # As a worker calls it.
    fan_out.push_request(args=([one],), kwargs={}, retries=0, called_directly=False)
    try:
        with pytest.raises(Retry) as retry:
            fan_out.run([one])
    finally:
        fan_out.pop_request()
    assert isinstance(retry.value.exc, Unavailable)
    assert queued() == [[one]]
    assert list(Pending.objects.values_list("message_id", flat=True)) == [one]


def test_the_task_is_known_to_workers_by_its_name():
    from imgo_site.celery import app

    assert app.tasks["push.fan_out"] is not None
    assert app.tasks["push.fan_out"].name == tasks.fan_out.name
    assert app.conf.task_acks_late
    assert app.conf.task_reject_on_worker_lost
