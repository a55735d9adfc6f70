"""A session: what it is sent, in which order, in which version, and what it acknowledges."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from push.session.outgoing import Batch, Kind
from push.wire import CloseCode, Op
from tests.push.sessions import KeptKeeper, frames, make_session, message, read

kinds = pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.name.lower())


@kinds
def test_a_live_message_is_written(kind):
    session = make_session(kind=kind)
    session.deliver(message(7, body=b'{"n": 1}', op=1001))
    ((ver, op, seq, body, id_),) = frames(session)
    # Events always have the id: a client that comes back may get some twice.
    assert (ver, op, seq, id_) == ((2, 1001, 0, 7) if kind is Kind.EVENTS else (1, 1001, 0, 0))
    assert json.loads(body) == {"n": 1}


@kinds
def test_a_session_that_acknowledges_gets_version_2_with_the_id(kind):
    session = make_session(kind=kind, acks=True)
    session.deliver(message(2**53 + 1))
    (frame,) = frames(session)
    assert (frame.ver, frame.id) == (2, 2**53 + 1)


@kinds
@pytest.mark.parametrize("acks", [True, False])
def test_a_reply_has_the_seq_and_the_version_of_the_question(kind, acks):
    session = make_session(kind=kind, acks=acks)
    session.reply(Op.HEARTBEAT_REPLY, 77, ver=3)
    (frame,) = frames(session)
    assert (frame.ver, frame.op, frame.seq, frame.id) == (3, Op.HEARTBEAT_REPLY, 77, 0)


@kinds
@pytest.mark.parametrize("is_goim", [True, False])
def test_goims_clients_get_a_message_by_itself_in_op_9_over_websocket(kind, is_goim):
    session = make_session(kind=kind, is_goim=is_goim)
    session.deliver(message(7, body=b'{"n":1}', op=1001))
    session.deliver(Batch([message(8, op=1002), message(9, op=1003)]))
    got = frames(session)
    if is_goim and kind is Kind.BINARY:
        assert [frame.op for frame in got] == [Op.RAW, Op.RAW]
        got = [inner for frame in got for inner in read(kind, frame.body)]
    elif kind is Kind.BINARY:
        got = [got[0], *read(kind, got[1].body)]
    assert [frame.op for frame in got] == [1001, 1002, 1003]


@kinds
@pytest.mark.parametrize("is_goim", [True, False])
def test_a_heartbeat_tells_goims_clients_the_size_of_their_room(kind, is_goim):
    session = make_session(kind=kind, is_goim=is_goim)
    session.reply_to_heartbeat(77, 3)
    (frame,) = frames(session)
    assert (frame.ver, frame.op, frame.seq, frame.id) == (3, Op.HEARTBEAT_REPLY, 77, 0)
    empty = b"{}" if kind.is_json else b""
    assert frame.body == (b"\0\0\x03\xe8" if is_goim and not kind.is_json else empty)
    assert session.link.receipts == [0]


def test_a_body_that_is_not_json_is_a_string_in_text_and_itself_in_binary():
    text, binary = make_session(kind=Kind.TEXT), make_session(kind=Kind.BINARY)
    for session in (text, binary):
        session.deliver(message(1, body=b'say "\xff"', is_json=False))
    assert json.loads(frames(text)[0].body) == 'say "\ufffd"'
    assert frames(binary)[0].body == b'say "\xff"'


@pytest.mark.parametrize(
    ("acks", "key", "acknowledged"),
    [(False, "u1", [(7, "u1")]), (False, "", []), (True, "u1", []), (True, "", [])],
)
def test_reading_acknowledges_for_who_cannot(acks, key, acknowledged):
    got = []
    session = make_session(acks=acks, acknowledged=got)
    session.deliver(message(7, key))
    session.replay(message(8, key))
    assert got == acknowledged + [(8, k) for _, k in acknowledged]


def test_what_the_kernel_has_not_taken_is_not_acknowledged():
    got = []
    session = make_session(acknowledged=got)
    session.link.slow = True
    session.deliver(message(7))
    assert (session.link.receipts, got) == ([7], [])


# Holding, replaying, releasing


def ids(session) -> list[int]:
    return [frame.id for frame in frames(session)]


def test_what_is_live_waits_until_what_was_pending_is_sent():
    session = make_session(acks=True)
    session.hold(10_000)
    session.deliver(message(3))
    session.replay(message(1))
    session.deliver(message(4))
    session.replay(message(2))
    assert ids(session) == [1, 2]
    session.release()
    assert ids(session) == [1, 2, 3, 4]
    session.deliver(message(5))
    assert ids(session) == [1, 2, 3, 4, 5]


def test_a_message_that_is_both_pending_and_live_is_sent_once():
    session = make_session(acks=True)
    session.hold(10_000)
    session.deliver(message(1))
    session.replay(message(1))
    session.replay(message(2))
    session.release()
    session.deliver(message(2))  # its live copy was slow
    session.deliver(message(3))
    assert ids(session) == [1, 2, 3]


def test_a_slow_copy_is_looked_for_until_it_is_forgotten():
    session = make_session(acks=True)
    session.hold(10_000)
    session.replay(message(1))
    session.release()
    session.forget_replayed()
    session.deliver(message(1))
    assert ids(session) == [1, 1]


def test_a_session_that_was_never_held_has_nothing_to_release():
    session = make_session()
    session.release()
    assert session.link.written == []


def test_replies_are_not_held():
    session = make_session()
    session.hold(10_000)
    session.deliver(message(1))
    session.reply(Op.AUTH_REPLY, 1)
    assert [frame.op for frame in frames(session)] == [Op.AUTH_REPLY]


def test_holding_more_than_the_limit_closes_the_session():
    session = make_session(acks=True)
    session.hold(10)
    session.deliver(message(1, body=b"12345"))
    session.deliver(message(2, body=b"12345"))
    assert not session.is_closed
    session.deliver(message(3, body=b"1"))
    session.deliver(message(4, body=b"1"))
    session.release()
    assert [frame.op for frame in frames(session)] == [Op.DISCONNECT]
    assert session.link.closed == [(CloseCode.SLOW_READER, CloseCode.SLOW_READER.reason)]


@given(
    st.sets(st.integers(1, 12)),
    st.sets(st.integers(1, 20)),
    st.lists(st.booleans(), min_size=24, max_size=24),
)
def test_in_any_interleaving_each_is_sent_once_and_what_was_pending_first(pending, more, turns):
    """`pending` is what the database holds, `live` what the layer brings while it is replayed."""
    live = {one for one in more if one in pending or one > max(pending, default=0)}
    session = make_session(acks=True)
    session.hold(10**6)
    rest = [sorted(pending), sorted(live)]
    for turn in turns:
        if queue := rest[turn]:
            (session.deliver if turn else session.replay)(message(queue.pop(0)))
    for one in rest[0]:
        session.replay(message(one))
    session.release()
    for one in rest[1]:
        session.deliver(message(one))
    assert ids(session) == sorted(pending | live)


def test_whether_to_send_what_the_replay_has_overtaken_is_asked():
    keeper = KeptKeeper([])
    session = make_session(keeper=keeper)
    session.hold(10_000)
    session.deliver(message(1))
    session.replay(message(3))
    session.release()
    session.deliver(message(2))
    assert keeper.late == [1, 2]
    session.replay(message(2))  # the answer
    session.deliver(message(2))
    session.replay(message(2))
    session.deliver(message(4))
    assert keeper.acknowledged == [(3, "u1"), (2, "u1"), (4, "u1")]
    assert keeper.late == [1, 2]


def test_held_messages_below_the_next_replayed_one_come_before_it():
    session = make_session(acks=True)
    session.hold(10_000)
    for one in (message(4), message(2), message(3, ""), message(6)):
        session.deliver(one)
    session.replay_held(1)
    session.replay(message(1))
    session.replay_held(5)
    session.replay(message(5))
    session.release()
    assert ids(session) == [1, 2, 4, 5, 3, 6]


def test_held_messages_that_the_replay_has_overtaken_do_not_follow_later_ones_unasked():
    """A gap may end between two pages, and late copies of messages that others had arrive."""
    keeper = KeptKeeper([])
    session = make_session(keeper=keeper, acks=True)
    session.hold(10_000)
    session.replay(message(3))
    for one in (message(2), message(3), message(4)):
        session.deliver(one)
    session.replay_held(5)
    session.replay(message(5))
    assert ids(session) == [3, 4, 5]
    session.release()
    assert (ids(session), keeper.late) == ([3, 4, 5], [2])


def test_to_a_room_nothing_is_older_than_the_replay():
    session = make_session(acks=True)
    session.hold(10_000)
    session.deliver(message(1, ""))
    session.replay(message(3))
    session.release()
    session.deliver(message(2, ""))
    assert ids(session) == [3, 1, 2]


# Closing


@kinds
def test_a_session_is_told_why_it_is_closed(kind):
    session = make_session(kind=kind)
    session.disconnect(CloseCode.KICKED, "for a reason")
    (frame,) = frames(session)
    assert frame.op == Op.DISCONNECT
    body = {"code": 4504, "reason": "for a reason", "reconnect": False}
    assert json.loads(frame.body) == body
    assert session.link.closed == [(4504, "for a reason")]
    assert session.is_closed


def test_the_reason_is_the_tables_when_none_is_given():
    session = make_session()
    session.disconnect(CloseCode.GOING_AWAY)
    assert json.loads(frames(session)[0].body)["reason"] == CloseCode.GOING_AWAY.reason
    assert session.link.closed == [(4000, CloseCode.GOING_AWAY.reason)]


def test_a_session_is_closed_once():
    session = make_session()
    session.disconnect(CloseCode.KICKED)
    session.disconnect(CloseCode.GOING_AWAY)
    assert len(session.link.written) == len(session.link.closed) == 1


# Sharing


@kinds
@pytest.mark.parametrize("acks", [True, False])
def test_a_message_is_encoded_once_for_all_sessions_of_a_kind(kind, acks):
    one = message(7)
    first, second = (make_session(kind=kind, acks=acks) for _ in range(2))
    assert one.packet_for(first) is one.packet_for(second)


def test_each_kind_has_bytes_of_its_own_of_a_batch():
    batch = Batch([message(7, ""), message(8, "")])
    sessions = [make_session(kind=kind) for kind in Kind]
    for session in sessions:
        session.deliver(batch)
    tcp, binary, text, events = (session.link.written[0] for session in sessions)
    assert [frame.op for frame in read(Kind.TCP, tcp)] == [Op.MESSAGE, Op.MESSAGE]
    assert [frame.op for frame in read(Kind.BINARY, binary)] == [Op.RAW]
    assert [frame.op for frame in read(Kind.TEXT, text)] == [Op.MESSAGE, Op.MESSAGE]
    assert [frame.op for frame in read(Kind.EVENTS, events)] == [Op.MESSAGE, Op.MESSAGE]


# Batches


@kinds
def test_a_batch_is_one_packet_with_all_messages_in_order(kind):
    session = make_session(kind=kind, acks=True)
    batch = Batch([message(n, body=b"%d" % n) for n in (1, 2, 3)])
    session.deliver(batch)
    (data,) = session.link.written
    found = frames(session)
    if kind is Kind.BINARY:
        (raw,) = found
        assert raw.op == Op.RAW
        found = read(kind, raw.body)
    assert [(frame.ver, frame.op, frame.id, frame.body) for frame in found] == [
        (2, Op.MESSAGE, n, b"%d" % n) for n in (1, 2, 3)
    ]
    assert data is batch.packet_for(make_session(kind=kind, acks=True))
    assert len(batch) == 3


def test_a_batch_settles_nothing():
    got = []
    session = make_session(acknowledged=got)
    session.deliver(Batch([message(1, ""), message(2, "")]))
    assert got == []


# The short way


def test_the_short_way_opens_when_nothing_has_to_be_looked_at():
    session = make_session()
    session.hold(100)
    assert session.is_replaying
    session.replay(message(1))
    session.release()
    assert session.is_replaying  # live copies of what was replayed may come
    session.forget_replayed()
    assert not session.is_replaying


def test_the_words_for_transports():
    assert [kind.transport for kind in Kind] == ["tcp", "websocket", "websocket", "sse"]


def test_session_knows_what_it_was_sent_and_has_not_acknowledged():
    session = make_session(acks=True)
    for one in (1, 2):
        session.deliver(message(one))
    session.deliver(message(3, key=""))
    assert [session.take_acknowledged(one) for one in (2, 2, 3, 4, 1)] == [True, *[False] * 3, True]
    assert session.unacknowledged is None


def test_session_forgets_the_oldest_ids_it_was_sent():
    session = make_session(acks=True)  # its keeper lets it remember ten
    for one in range(1, 13):
        session.deliver(message(one))
    assert [one for one in range(1, 13) if session.awaits_ack_of(one)] == list(range(3, 13))


def test_session_that_cannot_acknowledge_remembers_nothing():
    session = make_session()
    session.deliver(message(1))
    assert session.unacknowledged is None
