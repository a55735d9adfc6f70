"""Drain of rooms with history: offsets are committed before they are published, and in order."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import transaction

from imgo_site.errors import Unavailable
from offline import outbox_queue, stream_retention, streams
from offline.models import Message, Outbox, StreamMessage
from push import fanout
from push.accept.accept import Push, accept_push, push_to_key, push_to_room
from push.bus.group_names import room_group
from push.fanout import drain
from tests import PATIENCE, call_and_close, in_thread

pytestmark = pytest.mark.django_db(transaction=True)

ROOM = "chat-1"


@pytest.fixture(autouse=True)
def _policies(imgo, redis_client):
    imgo(ROOMS={"chat-*": {"history": 100}}, PARTITIONS=1)


@pytest.fixture
async def heard(listen):
    """(offset, body) of each message to the room."""
    messages = await listen(room_group(ROOM))

    async def sent() -> list[tuple[int, bytes]]:
        return [(one.get("offset", 0), one["body"]) for one in await messages()]

    return sent


def kept() -> list[tuple[int, int]]:
    """(offset, message id) of what the room keeps."""
    rows = StreamMessage.objects.order_by("offset")
    return list(rows.values_list("offset", "message_id"))


async def test_messages_of_a_room_carry_its_name_their_offset_and_the_epoch(listen):
    messages = await listen(room_group(ROOM), room_group("lobby"))
    await in_thread(push_to_room, ROOM, 1)
    await in_thread(push_to_room, "lobby", 2)
    await in_thread(drain, 0)
    first, second = sorted(await messages(), key=lambda one: one["room"])
    state = (await in_thread(streams.find_states, [ROOM]))[ROOM]
    assert (first["room"], first["offset"], first["epoch"]) == (ROOM, 1, state.epoch)
    assert second["room"] == "lobby"
    assert not {"offset", "epoch"} & second.keys()


async def test_what_is_not_to_be_stored_keeps_its_place_between_the_others(heard):
    for number, store in enumerate((True, False, True)):
        await in_thread(push_to_room, ROOM, number, store=store)
    assert await in_thread(drain, 0) == 3
    assert await heard() == [(1, b"0"), (0, b"1"), (2, b"2")]


def begin_early(may_commit: threading.Event, has_stored: threading.Event) -> int:
    """Store a message, and commit it only when that is allowed."""
    with transaction.atomic():
        message_id = accept_push(Push(b'"early"', room=ROOM))
        has_stored.set()
        assert may_commit.wait(PATIENCE)
    return message_id


async def test_message_that_is_committed_late_has_the_next_offset(heard):
    may_commit, has_stored = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        early = pool.submit(call_and_close, begin_early, may_commit, has_stored)
        assert has_stored.wait(PATIENCE)
        late = await in_thread(push_to_room, ROOM, "late")
        await in_thread(drain, 0)
        may_commit.set()
        early_id = early.result(PATIENCE)
    await in_thread(drain, 0)
    assert early_id < late
    assert await in_thread(kept) == [(1, late), (2, early_id)]
    assert await heard() == [(1, b'"late"'), (2, b'"early"')]


async def test_drain_that_cannot_publish_gives_the_same_offsets_again(heard, monkeypatch):
    ids = [await in_thread(push_to_room, ROOM, number) for number in range(3)]

    def fail(envelopes) -> None:
        if envelopes:
            raise Unavailable("no layer")

    with monkeypatch.context() as patch:
        patch.setattr(fanout, "publish", fail)
        with pytest.raises(Unavailable):
            await in_thread(drain, 0)
    before = await in_thread(kept)
    assert [message_id for _, message_id in before] == ids
    assert await in_thread(drain, 0) == 3
    assert await in_thread(kept) == before
    assert await heard() == [(1, b"0"), (2, b"1"), (3, b"2")]
    assert not await in_thread(Outbox.objects.exists)


async def test_late_message_is_kept_and_sent_however_long_it_waited(heard, imgo):
    message_id = await in_thread(push_to_room, ROOM, 1)
    await in_thread(Message.objects.filter(pk=message_id).update, expires_at="2020-01-01T00:00:00Z")
    assert await in_thread(drain, 0) == 1
    assert await heard() == [(1, b"1")]


async def test_many_messages_are_drained_page_by_page(heard, monkeypatch):
    monkeypatch.setattr(fanout, "PAGE", 7)
    for number in range(20):
        await in_thread(push_to_room, ROOM, number)
        await in_thread(push_to_key, "u1", number)
    assert await in_thread(drain, 0) == 40
    assert await heard() == [(number + 1, b"%d" % number) for number in range(20)]


async def test_message_that_cannot_be_sent_is_tried_once_in_a_drain(monkeypatch):
    await in_thread(push_to_key, "u1", 1)
    await in_thread(push_to_room, ROOM, 2)
    real = fanout.publish

    def fail(envelopes) -> None:
        if any(envelope["key"] for envelope in envelopes):
            raise ValueError("a bad message")
        real(envelopes)

    monkeypatch.setattr(fanout, "publish", fail)
    await in_thread(drain, 0)
    assert await in_thread(lambda: Outbox.objects.get().attempts) == 1


@pytest.mark.parametrize("history", [1, 2])
async def test_a_burst_above_the_history_keeps_its_order_and_its_offsets(heard, imgo, history):
    imgo(ROOMS={"chat-*": {"history": history}}, PARTITIONS=1)
    for number in range(4):
        await in_thread(push_to_room, ROOM, number)
    assert await in_thread(drain, 0) == 4
    assert await heard() == [(offset, b"%d" % (offset - 1)) for offset in (1, 2, 3, 4)]
    (last,) = await in_thread(streams.read_history, ROOM, limit=1, newest=True)
    assert (last.offset, last.body) == (4, b"3")


async def test_what_a_drain_has_not_published_survives_the_emptying(heard):
    await in_thread(push_to_room, ROOM, 0)
    await in_thread(drain, 0)
    await in_thread(push_to_room, ROOM, 1)
    await in_thread(assign_only)
    assert await in_thread(stream_retention.empty, ROOM) == 1
    await in_thread(drain, 0)
    assert await heard() == [(1, b"0"), (2, b"1")]


def assign_only() -> None:
    """What a drain does before it is cut off."""
    with outbox_queue.draining(0, wait=True):
        streams.assign([row.message for row in outbox_queue.read_page(0, 0, 100)])
