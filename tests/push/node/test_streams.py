"""Streams of a node: recovery, live messages and gaps."""

import asyncio
import json
import random

import pytest

from accounts.auth_body import RoomRequest
from offline import outbox_queue, stream_retention
from offline import streams as kept
from offline.models import Stream, StreamMessage
from push.accept.accept import Push, accept_push
from push.bus.envelope import Envelope
from push.bus.group_names import room_group
from push.node import stream_joins
from push.node import streams as streams_of_node
from push.node.node import Node
from push.node.stream_joins import StreamJoin
from push.session.outgoing import Kind
from push.session.session import Session
from push.wire import Op
from tests import eventually, in_thread
from tests.push.conftest import push_now
from tests.push.sessions import admit

ROOM = "chat-1"


@pytest.fixture(autouse=True)
def _policies(imgo):
    imgo(ROOMS={"last": {"history": 1}, "chat-*": {"history": 1_000}}, PARTITIONS=1)


async def publish(count: int = 1, room: str = ROOM) -> None:
    for _ in range(count):
        await in_thread(push_now, Push(b'{"n":1}', room=room))


async def join(
    node: Node, request: RoomRequest | None = None, room: str = ROOM, key: str = "u1"
) -> tuple[Session, StreamJoin]:
    """A session that joins with a request, and what it was told."""
    session = await admit(node, key, kind=Kind.TEXT)
    session.release()
    session.set_names(True)
    told: list[StreamJoin] = []
    await node.membership.join_stream(session, room, request or RoomRequest(), told.append)
    return session, told[0]


def objects(session: Session) -> list[dict]:
    return [each for data in session.link.written for each in json.loads(data)]


def offsets(session: Session) -> list[int]:
    """What the session was sent, gaps as negative numbers."""
    return [
        -each["body"]["offset"] if each["op"] == Op.STREAM_GAP else each["offset"]
        for each in objects(session)
        if each["op"] in (Op.MESSAGE, Op.STREAM_GAP)
    ]


async def position(room: str = ROOM) -> RoomRequest:
    state = (await in_thread(kept.read_states, [room]))[room]
    return RoomRequest(state.epoch, state.top)


async def test_a_session_gets_what_it_has_missed_and_then_what_is_live(node):
    await publish(3)
    epoch = (await position()).epoch
    session, told = await join(node, RoomRequest(epoch, 1))
    assert told.reply() == {"epoch": epoch, "offset": 3, "recovered": True}
    await publish(2)
    await eventually(lambda: offsets(session) == [2, 3, 4, 5])
    (first, *_) = objects(session)
    assert (first["ver"], first["room"], first["body"]) == (2, ROOM, {"n": 1})


async def test_a_node_behind_the_client_does_not_tell_it_an_earlier_position(node, monkeypatch):
    await publish(3)
    asked, offset_here = await position(), iter([2])
    monkeypatch.setattr(stream_joins, "written_up_to", lambda _, s: next(offset_here, s.last))
    session, told = await join(node, asked)
    assert told.reply() == {"epoch": asked.epoch, "offset": 3, "recovered": True}
    await publish()
    await eventually(lambda: offsets(session) == [4])


async def test_without_a_position_only_live_messages_come(node):
    await publish(3)
    session, told = await join(node)
    assert told.reply() == {"epoch": (await position()).epoch, "offset": 3}
    await publish()
    await eventually(lambda: offsets(session) == [4])


async def test_a_rewind_gives_the_newest(node):
    await publish(5)
    session, told = await join(node, RoomRequest(rewind=2))
    assert told.offset == 5
    assert offsets(session) == [4, 5]
    _, told = await join(node, RoomRequest(rewind=100), room="chat-2")
    assert told.offset == 0


async def test_a_last_value_room_gives_its_last_value(node):
    await publish(3, "last")
    session, _ = await join(node, RoomRequest(rewind=5), room="last")
    assert offsets(session) == [3]


@pytest.mark.parametrize("wrong", ["foreign epoch", "future", "past the window"])
async def test_a_position_that_cannot_be_recovered_is_told_and_gets_none(node, wrong, imgo):
    await publish(5)
    epoch, top, *_ = await position()
    imgo(ROOMS={"chat-*": {"history": 2}})
    asked = {
        "foreign epoch": RoomRequest("other", 3),
        "future": RoomRequest(epoch, top + 1),
        "past the window": RoomRequest(epoch, 2),
    }
    session, told = await join(node, asked[wrong])
    assert told.reply() == {"epoch": epoch, "offset": 5, "recovered": False}
    await publish()
    await eventually(lambda: offsets(session) == [6])


async def test_a_position_at_the_edge_of_the_window_is_recovered(node, imgo):
    await publish(5)
    epoch = (await position()).epoch
    imgo(ROOMS={"chat-*": {"history": 2}})
    session, told = await join(node, RoomRequest(epoch, 3))
    assert (told.recovered, offsets(session)) == (True, [4, 5])


async def test_sessions_that_do_not_ask_get_the_frames_of_a_plain_room(node):
    session = await admit(node, "u2", ROOM, kind=Kind.TEXT)
    session.release()
    await publish(2)
    await eventually(lambda: len(objects(session)) == 2)
    assert all(each.keys() == {"ver", "op", "seq", "id", "body"} for each in objects(session))


def envelope(offset: int, epoch: str, message_id: int = 10**9) -> Envelope:
    return Envelope(
        type="imgo.message",
        group=room_group(ROOM),
        id=message_id + offset,
        op=5,
        body=b"{}",
        is_json=True,
        key="",
        ensure=False,
        at=0.0,
        room=ROOM,
        offset=offset,
        epoch=epoch,
    )


async def test_a_message_that_arrives_twice_is_delivered_once(node):
    session, told = await join(node)
    await publish()
    await eventually(lambda: offsets(session) == [1])
    node.hub.handle(envelope(1, told.epoch))
    await publish()
    await eventually(lambda: offsets(session) == [1, 2])


async def store(count: int) -> None:
    """Messages that are stored, and whose envelopes this node never gets."""
    for _ in range(count):
        await in_thread(_store)


def _store() -> None:
    accept_push(Push(b'{"n":2}', room=ROOM))
    with outbox_queue.draining(0, wait=True):
        rows = outbox_queue.read_page(0, 0, 100)
        places = kept.places_of(rows)
        kept.assign([row.message for row in rows if row.message_id not in places])
        outbox_queue.delete_rows(rows)


async def test_missing_messages_are_read_before_later_ones(node):
    session, told = await join(node)
    other, _ = await join(node, key="u2")
    await publish()
    await store(3)
    node.hub.handle(envelope(4, told.epoch))
    await publish()
    for each in (session, other):
        await eventually(lambda each=each: offsets(each) == [1, 2, 3, 4, 5])


async def test_a_join_brings_those_who_are_there_up_to_date(node):
    session, told = await join(node)
    await store(2)
    other, _ = await join(node, RoomRequest(told.epoch, 2), key="u2")
    await publish()
    await eventually(lambda: offsets(session) == [1, 2, 3])
    await eventually(lambda: offsets(other) == [3])


async def test_after_a_gap_of_the_layer_every_stream_is_read(node):
    session, _ = await join(node)
    other = await admit(node, "u2", ROOM, kind=Kind.TEXT)
    other.release()
    await publish()
    await store(2)
    node.layer_lost()
    node.layer_regained()
    await eventually(lambda: offsets(session) == [1, 2, 3])
    await eventually(lambda: len(objects(other)) == 3)


async def test_the_audit_finds_what_never_arrived(node):
    session, _ = await join(node)
    await publish()
    await store(1)
    await node.rounds.audit_streams()
    await eventually(lambda: offsets(session) == [1, 2])


async def test_what_is_missing_and_not_kept_any_more_is_told(node):
    session, told = await join(node)
    await publish()
    await store(3)
    await in_thread(stream_retention.empty, ROOM)
    node.hub.handle(envelope(4, told.epoch))
    await eventually(lambda: offsets(session) == [1, -4])
    await publish()
    await eventually(lambda: offsets(session) == [1, -4, 5])


async def test_another_epoch_is_told(node):
    session, told = await join(node)
    await publish()
    await eventually(lambda: offsets(session) == [1])
    await in_thread(Stream.objects.update, cluster="another")
    await publish()
    await eventually(lambda: offsets(session) == [1, -2])
    gap = next(each for each in objects(session) if each["op"] == Op.STREAM_GAP)
    now = await position()
    assert gap["body"] == {"room": ROOM, "epoch": now.epoch, "offset": 2}
    assert now.epoch != told.epoch
    await publish()
    await eventually(lambda: offsets(session) == [1, -2, 3])


@pytest.mark.parametrize("many", [100, pytest.param(1_000, marks=pytest.mark.long)])
async def test_many_who_come_back_cost_few_queries(node, thread_queries, many):
    missed = 50
    await store(missed + 10)
    epoch = (await position()).epoch
    queries = await thread_queries()
    found = await asyncio.gather(
        *(join(node, RoomRequest(epoch, 10 + n % 10), key=f"u{n}") for n in range(many))
    )
    for n, (session, _) in enumerate(found):
        assert offsets(session) == list(range(11 + n % 10, missed + 11))
    assert len([sql for sql in queries if "page_0" in sql]) == 1
    # Sessions that come in the same milliseconds share a query of the position.
    assert len([sql for sql in queries if "s.epoch" in sql]) <= max(5, many // 20)


async def test_a_message_cancelled_after_a_recovery_is_not_recovered_again(node):
    await store(3)
    epoch = (await position()).epoch
    first, _ = await join(node, RoomRequest(epoch, 1))
    cancelled = next(int(each["id"]) for each in objects(first) if each["offset"] == 2)
    node.hub.streams.retracted(room_group(ROOM), [cancelled])
    second, _ = await join(node, RoomRequest(epoch, 1), key="u2")
    assert (offsets(first), offsets(second)) == ([2, 3], [3])


async def test_a_long_way_back_is_read_page_by_page(node, monkeypatch):
    monkeypatch.setattr("push.node.streams.PAGE", 10)
    monkeypatch.setattr("push.node.stream_joins.PAGE", 10)
    await store(35)
    epoch = (await position()).epoch
    session, told = await join(node, RoomRequest(epoch, 0))
    assert (told.recovered, offsets(session)) == (True, list(range(1, 36)))


async def test_a_message_that_goes_during_the_recovery_is_told(node, monkeypatch):
    monkeypatch.setattr("push.node.streams.PAGE", 2)
    monkeypatch.setattr("push.node.stream_joins.PAGE", 2)
    await store(6)
    epoch = (await position()).epoch
    session = await admit(node, "u1", kind=Kind.TEXT)
    session.release()
    session.set_names(True)

    async def drained() -> None:
        await in_thread(StreamMessage.objects.all().delete)

    session.link.drained = drained
    await node.membership.join_stream(session, ROOM, RoomRequest(epoch, 0), lambda told: None)
    assert offsets(session) == [1, 2, -6]
    await publish()
    await eventually(lambda: offsets(session) == [1, 2, -6, 7])


async def test_hole_among_the_missed_messages_is_told(node):
    await store(4)
    epoch = (await position()).epoch
    await in_thread(StreamMessage.objects.filter(offset=2).delete)
    session, _ = await join(node, RoomRequest(epoch, 0))
    assert offsets(session) == [1, -4]
    await publish()
    await eventually(lambda: offsets(session) == [1, -4, 5])


async def test_a_stream_without_sessions_is_forgotten(node):
    session, _ = await join(node)
    await publish()
    await eventually(lambda: offsets(session) == [1])
    assert (len(node.hub.streams), node.hub.streams.size > 0) == (1, True)
    await node.dismiss(session)
    assert (len(node.hub.streams), node.hub.streams.size) == (0, 0)


async def test_tails_keep_within_their_bytes(node, imgo):
    imgo(STREAM_TAILS=2_000, ROOMS={"chat-*": {"history": 100}}, PARTITIONS=1)
    await join(node)
    await join(node, room="chat-2")
    for n in range(5):
        await publish(2, f"chat-{n % 2 + 1}")
    await eventually(lambda: sum(s.last for s in node.hub.streams._by_group.values()) == 10)
    assert 0 < node.hub.streams.size <= 2_000


@pytest.mark.long(but=["embedded-0", "production-1"])
@pytest.mark.parametrize("seed", range(5))
async def test_every_session_has_each_offset_once_and_in_order_whatever_is_lost(node, seed):
    draw = random.Random(seed)
    sessions: list[tuple[Session, int]] = []
    epoch = (await position()).epoch

    async def come() -> None:
        top = (await position()).offset
        start = draw.randint(max(0, top - 20), top)
        session, told = await join(node, RoomRequest(epoch, start), key=f"u{len(sessions)}")
        assert told.recovered
        sessions.append((session, start))

    async def leave() -> None:
        if sessions:
            await node.dismiss(draw.choice(sessions)[0])

    async def lose() -> None:
        await store(draw.randint(1, 4))

    for _ in range(12):
        await asyncio.gather(
            *(draw.choice([publish, publish, come, leave, lose])() for _ in range(4))
        )
    await node.rounds.audit_streams()
    top = (await position()).offset
    for session, start in sessions:
        found = offsets(session)
        if session.id in node.hub.sessions:
            await eventually(
                lambda session=session, start=start: (
                    offsets(session) == [*range(start + 1, top + 1)]
                )
            )
        else:
            assert found == [*range(start + 1, start + 1 + len(found))]


async def test_what_a_check_finds_during_a_reading_is_read_too(node, monkeypatch):
    session, _ = await join(node)
    await store(1)
    until_read, may_go_on = asyncio.Event(), asyncio.Event()
    get = streams_of_node.stream_pages.get

    async def wait(page):
        found = await get(page)
        until_read.set()
        await may_go_on.wait()
        return found

    monkeypatch.setattr(streams_of_node.stream_pages, "get", wait)
    await node.rounds.audit_streams()
    await until_read.wait()
    await store(1)  # which nothing publishes, and the reading under way has not seen
    await node.rounds.audit_streams()
    may_go_on.set()
    await eventually(lambda: offsets(session) == [1, 2])


class Gate:
    """asyncio, but for a pause that lasts until the test lets it end."""

    def __init__(self) -> None:
        self.is_open = asyncio.Event()
        self.waiting = asyncio.Event()

    def __getattr__(self, name: str):
        return getattr(asyncio, name)

    async def sleep(self, seconds: float) -> None:
        self.waiting.set()
        await self.is_open.wait()


@pytest.mark.parametrize("is_all_asked_for", [True, False])
async def test_who_leaves_and_joins_during_a_batch_has_each_offset_once(
    node, monkeypatch, is_all_asked_for
):
    found = [await join(node, key=f"u{n}") for n in range(4)]
    epoch = found[0][1].epoch
    gate = Gate()
    monkeypatch.setattr("push.node.coalescer.YIELD_AFTER", 1)
    monkeypatch.setattr("push.node.coalescer.asyncio", gate)
    await store(1)
    node.hub.handle(envelope(1, epoch))
    await gate.waiting.wait()  # the first of them has the message
    request = RoomRequest(epoch, 0) if is_all_asked_for else RoomRequest()
    for session, _ in found:
        session.link.written.clear()
        await node.membership.leave(session, ROOM)
        await node.membership.join_stream(session, ROOM, request, lambda told: None)
    gate.is_open.set()
    await publish()
    for session, _ in found:
        await eventually(lambda session=session: offsets(session)[-1:] == [2])
        assert offsets(session) == ([1, 2] if is_all_asked_for else [2])


async def test_who_leaves_and_joins_an_empty_room_has_each_offset_once(node):
    """A drain was cut off after it had published, so the next one publishes the same again."""
    session, told = await join(node)
    await store(3)
    for offset in (1, 2):
        node.hub.handle(envelope(offset, told.epoch))
    # A session that leaves does not get what still waits for the room's next write.
    await eventually(lambda: offsets(session) == [1, 2])
    await node.membership.leave(session, ROOM)
    await node.membership.join(session, ROOM)
    for offset in (1, 2, 3):
        node.hub.handle(envelope(offset, told.epoch))
    await eventually(lambda: offsets(session)[-1:] == [3])
    assert offsets(session) == [1, 2, 3]


async def test_who_joins_an_emptied_room_gets_nothing_that_waited_for_others(node, imgo):
    imgo(BATCH_WINDOW=0.05)
    session, told = await join(node)
    await store(4)
    for offset in (1, 2, 3):  # the second and the third wait for the room's next write
        node.hub.handle(envelope(offset, told.epoch))
    await node.membership.leave(session, ROOM)
    later, told = await join(node, key="u2")
    assert told.offset == 4
    await publish()
    await eventually(lambda: offsets(later) == [5])
    assert offsets(session) == [1]


async def test_rewind_in_an_emptied_room_gets_what_waited_for_the_next_write(node, imgo):
    imgo(BATCH_WINDOW=1.0)
    first, told = await join(node)
    await store(3)
    for offset in (1, 2, 3):  # the second and the third wait for the room's next write
        node.hub.handle(envelope(offset, told.epoch))
    await in_thread(stream_retention.empty, ROOM)
    later, told = await join(node, RoomRequest(rewind=5), key="u2")
    assert told.offset == 1
    await publish()
    await eventually(lambda: offsets(later)[-1:] == [4])
    assert offsets(later) == [2, 3, 4]
    assert offsets(first) == [1, 2, 3, 4]


async def test_no_more_left_streams_are_remembered_than_allowed(node, monkeypatch):
    monkeypatch.setattr(streams_of_node, "LEFT_MAX", 2)
    for number in range(4):
        session, _ = await join(node, room=f"chat-{number}")
        await node.membership.leave(session, f"chat-{number}")
    assert list(node.hub.streams._left) == [room_group("chat-2"), room_group("chat-3")]


async def test_a_gap_is_told_behind_the_batch_that_is_being_written(node, monkeypatch):
    found = [await join(node, key=f"u{n}") for n in range(4)]
    epoch = found[0][1].epoch
    gate = Gate()
    monkeypatch.setattr("push.node.coalescer.YIELD_AFTER", 1)
    monkeypatch.setattr("push.node.coalescer.asyncio", gate)
    await store(4)
    node.hub.handle(envelope(1, epoch))
    await gate.waiting.wait()  # the first of them has the message
    await in_thread(stream_retention.empty, ROOM)
    monkeypatch.setattr(streams_of_node.stream_pages, "get", get := CountedGet())
    node.hub.handle(envelope(4, epoch))
    await eventually(lambda: get.count == 1)
    gate.is_open.set()
    for session, _ in found:
        await eventually(lambda session=session: len(offsets(session)) == 2)
        assert offsets(session) == [1, -4]


class CountedGet:
    """A loader's `get` that counts its answers."""

    def __init__(self) -> None:
        self.count = 0
        self._get = streams_of_node.stream_pages.get

    async def __call__(self, page):
        found = await self._get(page)
        # Behind the turns in which the caller goes on.
        asyncio.get_running_loop().call_later(0.01, self._counted)
        return found

    def _counted(self) -> None:
        self.count += 1


async def test_a_gap_is_told_behind_messages_that_wait_for_the_next_batch(node, imgo):
    session, told = await join(node)
    await store(5)
    imgo(BATCH_WINDOW=0.3)
    for offset in (1, 2):
        node.hub.handle(envelope(offset, told.epoch))
    await in_thread(stream_retention.empty, ROOM)
    node.hub.handle(envelope(5, told.epoch))
    await eventually(lambda: len(offsets(session)) == 3)
    assert offsets(session) == [1, 2, -5]


async def test_a_gap_is_told_behind_messages_that_a_session_holds(node):
    session, told = await join(node)
    await store(4)
    session.hold(1_000)  # as while one of its key's messages is looked up
    node.hub.handle(envelope(1, told.epoch))
    await in_thread(stream_retention.empty, ROOM)
    node.hub.handle(envelope(4, told.epoch))
    await eventually(lambda: node.hub.streams.of(room_group(ROOM)).last == 4)
    session.release()
    assert offsets(session) == [1, -4]


async def test_another_epoch_during_a_join_is_told(node):
    await publish()
    session = await admit(node, "u1", kind=Kind.TEXT)
    session.release()
    session.set_names(True)
    session.rooms.add(ROOM)
    other, _ = await join(node, key="u2")
    async with stream_joins.joining(node.hub, session, {ROOM: RoomRequest()}) as joins:
        await in_thread(Stream.objects.update, cluster="another")
        await node.rounds.audit_streams()
        await eventually(lambda: offsets(other) == [-1])
        await stream_joins.finish(joins.values(), session.link.drained)
    now = await position()
    (gap,) = objects(session)
    assert gap["body"] == {"room": ROOM, "epoch": now.epoch, "offset": 1}
