"""Runs: the messages of a stream that many sessions recover at once."""

import pytest

from push.node import stream_runs
from push.node.room_stream import RoomStream
from push.node.stream_runs import Runs, run_of
from push.session.outgoing import OutgoingMessage
from tests.push.sessions import make_session


def kept(offset: int, body: bytes = b'{"n":1}', op: int = 5) -> OutgoingMessage:
    return OutgoingMessage(offset, op, body, True, room="chat", offset=offset, epoch="e")


def stream_of(*offsets: int) -> RoomStream:
    stream = RoomStream("chat", "e", max(offsets))
    stream.tail.extend(kept(offset) for offset in offsets)
    return stream


@pytest.mark.parametrize(
    ("offsets", "last", "expected"),
    [((2, 3, 4), 3, [2, 3]), ((2, 4), 4, [2]), ((3, 4), 4, None), ((), 4, None)],
)
def test_run_of_ends_at_the_last_offset_and_at_a_gap(offsets, last, expected):
    run = run_of(map(kept, offsets), 1, last)
    assert (run and [message.offset for message in run.messages]) == expected


def test_run_of_counts_a_tombstone_and_does_not_write_it():
    run = run_of([kept(2), kept(3, b"")], 1, 3)
    assert (run.last, len(run.messages)) == (3, 1)


def test_run_of_many_bytes_ends_so_that_the_client_can_read(monkeypatch):
    monkeypatch.setattr(stream_runs, "RUN_BYTES", 10)
    assert run_of(map(kept, (2, 3, 4, 5)), 1, 5).last == 3


def test_runs_same_position_shares_a_run_until_a_message_changes(monkeypatch):
    monkeypatch.setattr(stream_runs, "RUNS_MAX", 1)
    runs, stream = Runs(), stream_of(1, 2, 3)
    run = runs.after(stream, 1, 3)
    assert runs.after(stream, 1, 3) is run
    runs.clear()
    again = runs.after(stream, 1, 3)
    assert again is not run
    runs.after(stream, 2, 3)  # one more than are kept
    assert runs.after(stream, 1, 3) is not again


def test_session_run_is_one_shared_write_if_the_link_joins_packets():
    run = run_of([kept(2), kept(3, op=2_000)], 1, 3)
    first, second, paced = (make_session() for _ in range(3))
    filtered = make_session(accepts=[1_000])
    for session in (first, second, filtered):
        session.link.joins_packets = True
    for session in (first, second, paced, filtered):
        session.write_run(run)
    (joined,) = first.link.written
    assert second.link.written[0] is joined
    assert (len(paced.link.written), b"".join(paced.link.written)) == (2, joined)
    assert filtered.link.written == paced.link.written[:1]
