"""Coalescing: a quiet group gets a message at once, a busy one gets many in one write."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from push.bus.layers import InProcessChannelLayer
from push.node import coalescer as module
from push.node.coalescer import Coalescer, split_by_filter, write_spread, write_to_all
from push.node.hub import Hub
from push.session.outgoing import Kind
from push.session.session import Session, Written
from tests import eventually
from tests.push.sessions import frames, make_session, message

GROUP = "r.1"


@pytest.fixture
def hub():
    return Hub(InProcessChannelLayer(), "n1")


@pytest.fixture
def sessions(hub) -> list[Session]:
    """Five sessions in the group."""
    found = [make_session(f"s{n}", acks=True) for n in range(5)]
    hub.groups[GROUP] = set(found)
    return found


@pytest.fixture
def coalescer(hub) -> Coalescer:
    found = Coalescer(hub, GROUP, 3)
    hub.coalescers[GROUP] = found
    yield found
    found.close()


def ids(session: Session) -> list[int]:
    return [frame.id for frame in frames(session)]


def writes(session: Session) -> int:
    return len(session.link.written)


async def test_a_quiet_group_gets_its_message_at_once(coalescer, sessions):
    coalescer.write_or_queue(message(1))
    assert [ids(session) for session in sessions] == [[1]] * 5


async def test_a_busy_group_gets_its_messages_together_after_the_window(coalescer, sessions, imgo):
    imgo(BATCH_WINDOW=0.02)
    coalescer.write_or_queue(message(1))
    coalescer.write_or_queue(message(2))
    coalescer.write_or_queue(message(3))
    assert ids(sessions[0]) == [1]
    await eventually(lambda: writes(sessions[0]) == 2)
    assert [ids(session) for session in sessions] == [[1, 2, 3]] * 5


async def test_a_full_batch_does_not_wait_for_the_window(coalescer, sessions, imgo):
    imgo(BATCH_WINDOW=3600.0)
    for n in range(1, 9):
        coalescer.write_or_queue(message(n))
    assert ids(sessions[0]) == [1, 2, 3, 4, 5, 6, 7]
    assert writes(sessions[0]) == 3
    coalescer.close()


async def test_a_key_is_never_given_two_messages_in_one_write(hub, sessions, imgo):
    imgo(BATCH_WINDOW=3600.0)
    coalescer = Coalescer(hub, GROUP, 1)
    for n in range(1, 6):
        coalescer.write_or_queue(message(n))
    assert ids(sessions[0]) == [1, 2, 3, 4, 5]
    assert writes(sessions[0]) == 5
    coalescer.close()


async def test_a_group_that_is_quiet_again_costs_nothing(hub, coalescer, sessions, imgo):
    imgo(BATCH_WINDOW=0.005)
    coalescer.write_or_queue(message(1))
    coalescer.write_or_queue(message(2))
    assert hub.coalescers == {GROUP: coalescer}
    await eventually(lambda: hub.coalescers == {})
    assert ids(sessions[0]) == [1, 2]


@pytest.fixture
def crowd(hub) -> list[Session]:
    """More sessions in the group than one slice."""
    found = [make_session(f"s{n}", acks=True) for n in range(2 * module.YIELD_AFTER + 1)]
    hub.groups[GROUP] = set(found)
    return found


async def test_others_get_a_turn_while_a_large_group_is_written_to(coalescer, crowd):
    coalescer.write_or_queue(message(1))
    seen = []
    while len(seen) < 2 or seen[-1] < len(crowd):
        seen.append(sum(map(writes, crowd)))
        await asyncio.sleep(0)
    assert any(0 < count < len(crowd) for count in seen)


async def test_what_comes_while_a_large_group_is_written_to_comes_behind(coalescer, crowd, imgo):
    imgo(BATCH_WINDOW=0.005)
    for n in range(1, 12):
        coalescer.write_or_queue(message(n))
        if n % 4 == 0:
            await asyncio.sleep(0)
    await eventually(lambda: all(len(ids(session)) == 11 for session in crowd))
    assert all(ids(session) == list(range(1, 12)) for session in crowd)


async def test_what_waits_is_written_although_the_batch_before_it_was_cut_off(
    hub, coalescer, crowd, imgo, monkeypatch
):
    imgo(BATCH_WINDOW=0.005)
    is_over = asyncio.Event()

    class Turns:
        """asyncio, but for a turn that ends with an error."""

        def __getattr__(self, name: str):
            return getattr(asyncio, name)

        async def sleep(self, seconds: float) -> None:
            await is_over.wait()
            monkeypatch.setattr(module, "asyncio", asyncio)
            raise asyncio.CancelledError

    monkeypatch.setattr(module, "asyncio", Turns())
    coalescer.write_or_queue(message(1))
    coalescer.write_or_queue(message(2))
    asyncio.get_running_loop().call_later(0.02, is_over.set)  # behind the end of the window
    await eventually(lambda: all(ids(session)[-1:] == [2] for session in crowd))


async def test_a_group_that_cannot_follow_drops_the_oldest_and_counts_them(
    hub, coalescer, crowd, imgo, monkeypatch
):
    imgo(BATCH_WINDOW=0.005)
    monkeypatch.setattr(module, "WAITING_MAX", 4)
    coalescer.write_or_queue(message(1))  # being written to the first slice
    for n in range(2, 8):
        coalescer.write_or_queue(message(n))
    assert hub.drops == {"busy_group": 2}
    await eventually(lambda: all(ids(session) == [1, 4, 5, 6, 7] for session in crowd))


async def test_a_closed_coalescer_forgets_what_waits(hub, coalescer, sessions, imgo):
    imgo(BATCH_WINDOW=0.005)
    other = Coalescer(hub, "r.2", 3)
    hub.groups["r.2"] = {witness := make_session("s9", acks=True)}
    for box in (coalescer, other):  # one after the other, so that the other's window is the last
        box.write_or_queue(message(1))
        box.write_or_queue(message(2))
    coalescer.close()
    await eventually(lambda: ids(witness) == [1, 2])
    assert ids(sessions[0]) == [1]


async def test_everything_arrives_once_and_in_order_whenever_it_is_offered(
    coalescer, sessions, imgo
):
    imgo(BATCH_WINDOW=0.001)
    for n in range(1, 301):
        coalescer.write_or_queue(message(n))
        if n % 7 == 0:
            await asyncio.sleep(0.0005 * (n % 4))
    await eventually(lambda: len(ids(sessions[0])) == 300)
    assert all(ids(session) == list(range(1, 301)) for session in sessions)
    assert writes(sessions[0]) < 300


# The short way


class Socket:
    """Takes at most `room` bytes, and then raises."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.got = b""

    def send(self, data: bytes) -> int:
        if not self.room:
            raise BlockingIOError
        taken = data[: self.room]
        self.room -= len(taken)
        self.got += taken
        return len(taken)


def with_socket(name: str, room: int, got: list, **options) -> tuple[Session, Socket, list]:
    session = make_session(name, acknowledged=got, **options)
    sock, rest = Socket(room), []
    session.send = sock.send
    session.link.write_rest = lambda data, sent, receipt: rest.append((data[sent:], receipt))
    return session, sock, rest


def test_the_short_way_gives_the_bytes_to_the_socket():
    got: list = []
    # The first of a kind has the message encoded.
    encoder = make_session("s0")
    session, sock, rest = with_socket("s1", 10**6, got)
    one = message(7)
    write_to_all([encoder, session], one, Written())
    assert sock.got == encoder.link.written[0]
    assert (rest, got, session.link.written) == ([], [(7, "u1")], [])


def test_who_acknowledges_itself_is_not_acknowledged_for():
    got: list = []
    encoder = make_session("s0", acks=True)
    session, sock, _ = with_socket("s1", 10**6, got, acks=True)
    write_to_all([encoder, session], message(7), Written())
    assert (sock.got, got) == (encoder.link.written[0], [])


@pytest.mark.parametrize("room", [0, 5])
@pytest.mark.parametrize("acks", [False, True])
def test_what_the_socket_does_not_take_is_the_links(room, acks):
    got: list = []
    encoder = make_session("s0", acks=acks)
    session, sock, rest = with_socket("s1", room, got, acks=acks)
    write_to_all([encoder, session], message(7), Written())
    data = encoder.link.written[0]
    assert sock.got == data[:room]
    assert rest == [(data[room:], 7)]
    assert got == []


def test_the_long_way_and_the_short_way_write_the_same():
    for kind in Kind:
        got: list = []
        plain = [make_session(f"s{n}", kind=kind) for n in range(2)]
        session, sock, _ = with_socket("s9", 10**6, got, kind=kind)
        write_to_all([*plain, session], message(7), Written())
        assert {plain[0].link.written[0], plain[1].link.written[0], sock.got} == {sock.got}


# goim's accepts


async def test_own_ops_reach_the_sessions_that_take_them_and_those_that_take_all(hub, imgo):
    imgo(BATCH_WINDOW=3600.0)
    wanted = {"all": None, "none": [], "1000": [1000], "both": [1000, 1001]}
    found = {
        name: make_session(name, accepts=accepts, acks=True) for name, accepts in wanted.items()
    }
    hub.groups[GROUP] = set(found.values())
    coalescer = Coalescer(hub, GROUP, 4)
    for number, op in enumerate([5, 1000, 1001, 1002, 5], 1):
        coalescer.write_or_queue(message(number, op=op))
    coalescer.close()
    got = {name: ids(session) for name, session in found.items()}
    assert got == {
        "all": [1, 2, 3, 4, 5],
        "none": [1, 5],
        "1000": [1, 2, 5],
        "both": [1, 2, 3, 5],
    }
    assert writes(found["both"]) == 2  # the others came together


async def test_sessions_that_name_the_same_ops_share_them():
    first, second = (make_session(name, accepts=[1000, 1001]) for name in "ab")
    assert first.accepts is second.accepts


# Spread over time


async def test_a_message_is_spread_over_the_seconds_it_may_take():
    loop = asyncio.get_running_loop()
    sessions = [make_session(f"s{n}") for n in range(50)]
    times = []
    for session in sessions:
        session.link.write = lambda *_: times.append(loop.time())
    begin = loop.time()
    await write_spread(sessions, message(1), 0.5, Written())
    assert 0.5 <= loop.time() - begin < 5
    assert len(times) == 50
    # A machine that is busy writes later, and never earlier: not more than one step ahead.
    early = [n for n, at in enumerate(times) if at - begin < 0.5 * n / 50 - 0.1]
    assert early == []


async def test_a_spread_message_leaves_out_who_has_gone_and_who_does_not_take_it():
    gone, choosy, there = (
        make_session(name, accepts=accepts)
        for name, accepts in [("a", None), ("b", [1000]), ("c", None)]
    )
    gone.is_closed = True
    await write_spread([gone, choosy, there], message(1, op=1001), 0.01, Written())
    assert [writes(session) for session in (gone, choosy, there)] == [0, 0, 1]


async def test_spreading_to_nobody_is_over_at_once():
    await asyncio.wait_for(write_spread([], message(1), 60.0, Written()), 5)


@given(st.data())
def test_split_leaves_out_each_session_that_a_message_excludes(data):
    names = ["a", "b", "c", "d"]
    accepts = {name: data.draw(st.sampled_from([None, [1000]])) for name in names}
    sessions = [make_session(name, accepts=accepts[name]) for name in names]
    messages = []
    for number in range(data.draw(st.integers(1, 6))):
        one = message(number + 1, "", op=data.draw(st.sampled_from([5, 1000, 1001])))
        one.exclude = data.draw(st.frozensets(st.sampled_from(names), max_size=2))
        messages.append(one)
    got = {name: [] for name in names}
    for shared, taken in split_by_filter(sessions, messages):
        for session in shared:
            got[session.id] += [one.id for one in taken]
    for session in sessions:
        due = [m.id for m in messages if session.id not in m.exclude and session.accepts_op(m.op)]
        assert got[session.id] == due
