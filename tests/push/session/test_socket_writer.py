"""Writing over one end of a socket pair: bytes that the kernel does not accept, and the close."""

import asyncio
import time

import pytest

from push.session import link_manager
from push.wire import CloseCode, Op, encode_binary
from tests import eventually
from tests.push.session.peers import BIG, is_lost, slow_readers
from tests.push.sessions import message, read


async def test_what_the_kernel_takes_is_acknowledged_at_once(session, peer, acknowledged):
    session.deliver(message(7))
    assert (session.link.waiting, acknowledged) == (0, [(7, "u1")])
    await peer.read()
    assert [frame.op for frame in read(session.kind, peer.got)] == [Op.MESSAGE]


async def test_what_it_does_not_take_waits_and_is_acknowledged_when_it_has(
    session, peer, acknowledged
):
    for n in range(1, 4):
        session.deliver(message(n, body=BIG))
    session.deliver(message(4))
    assert session.link.waiting > 200_000
    assert acknowledged == []
    size = 3 * (16 + len(BIG)) + 16 + 7
    got = await peer.read_until(size)
    assert [len(frame.body) for frame in read(session.kind, got)] == [len(BIG)] * 3 + [7]
    await eventually(lambda: [one for one, _ in acknowledged] == [1, 2, 3, 4])
    assert session.link.waiting == 0


async def test_the_short_way_is_open_while_nothing_waits(session, peer):
    assert session.send == session.link._socket.send
    session.deliver(message(1, body=BIG))
    assert session.send is None
    await peer.read_until(16 + len(BIG))
    await eventually(lambda: session.send is not None)


async def test_the_short_way_stays_closed_while_copies_have_to_be_looked_for(session):
    session.hold(1000)
    session.replay(message(1))
    session.send = None
    session.release()
    assert session.send is None
    session.forget_replayed()
    assert session.send is not None


async def test_the_rest_of_a_short_way_goes_first(session, peer):
    data = encode_binary(Op.MESSAGE, 0, BIG)
    sent = session.send(data)
    assert 0 < sent < len(data)
    session.link.write_rest(data, sent, 7)
    session.deliver(message(8))
    got = await peer.read_until(len(data) + 23)
    assert [len(frame.body) for frame in read(session.kind, got)] == [len(BIG), 7]


async def test_drained_waits_for_the_client(session, peer):
    await asyncio.wait_for(session.link.drained(), 1)
    session.deliver(message(1, body=BIG))
    waiters = [asyncio.create_task(session.link.drained()) for _ in range(3)]
    await asyncio.sleep(0)
    assert not any(waiter.done() for waiter in waiters)
    await peer.read_until(16 + len(BIG))
    await asyncio.wait_for(asyncio.gather(*waiters), 10)


async def test_over_the_budget_the_session_is_closed_and_what_waits_is_dropped(
    manager, session, peer, acknowledged, imgo
):
    imgo(SESSION_BYTES=250_000)
    before = slow_readers()
    for n in range(1, 6):
        session.deliver(message(n, body=BIG))
    assert session.is_closed
    assert slow_readers() == before + 1
    assert session.link.waiting <= 16 + len(BIG)
    got = await peer.read_to_the_end()
    # The message that the kernel had taken a part of is whole; no other is begun.
    assert [len(frame.body) for frame in read(session.kind, got)] == [len(BIG)]
    assert acknowledged == []


async def test_a_reader_that_takes_too_long_is_closed(manager, session, peer, imgo, node):
    before = slow_readers()
    session.deliver(message(1, body=BIG))
    manager.tick()
    assert not session.is_closed
    imgo(SLOW_READER_TIMEOUT=0.0)
    await asyncio.sleep(0)
    manager.tick()
    assert session.is_closed
    assert slow_readers() == before + 1
    await peer.read_to_the_end()
    peer.socket.close()
    await eventually(lambda: node.dismissed == [session])


async def test_a_reader_that_takes_a_little_is_given_time_again(manager, session, peer, imgo):
    imgo(SESSION_BYTES=10**7)
    for n in range(1, 4):
        session.deliver(message(n, body=BIG))
    since = manager.stalled[session.link]
    await peer.read_until(16 + len(BIG))
    await eventually(lambda: session.link.waiting < 2 * (16 + len(BIG)))
    assert manager.stalled[session.link] > since


async def test_a_goodbye_comes_behind_what_was_written(session, peer, node):
    session.deliver(message(1, body=BIG))
    session.disconnect(CloseCode.KICKED)
    session.deliver(message(2))
    got = read(session.kind, await peer.read_to_the_end())
    assert [frame.op for frame in got] == [Op.MESSAGE, Op.DISCONNECT]
    assert not is_lost(session)  # the peer may still be sending
    peer.socket.close()
    await eventually(lambda: is_lost(session))
    assert node.dismissed == [session]


async def test_a_peer_that_does_not_answer_a_goodbye_is_not_waited_for(
    manager, session, node, monkeypatch
):
    monkeypatch.setattr(link_manager, "CLOSE_TIMEOUT", 0.0)
    session.disconnect(CloseCode.KICKED)
    await asyncio.sleep(0)
    manager.tick()
    assert is_lost(session)
    await eventually(lambda: node.dismissed == [session])


@pytest.mark.parametrize("resets", [False, True])
async def test_a_client_that_goes_is_dismissed_once(manager, session, peer, node, resets):
    if resets:
        session.deliver(message(1, body=BIG))  # unread bytes make its end a reset
    peer.socket.close()
    await eventually(lambda: node.dismissed)
    assert is_lost(session)
    session.deliver(message(2))
    session.disconnect(CloseCode.KICKED)
    session.link.lose()
    manager.tick()
    assert node.dismissed == [session]
    assert len(manager.poller) == 0
    assert session.send is None


async def test_closing_the_node_drops_who_is_left(manager, session, node):
    session.disconnect(CloseCode.GOING_AWAY)
    manager.close()
    assert is_lost(session)
    await eventually(lambda: node.dismissed == [session])
    manager.poller = type("Closed", (), {"close": lambda self: None})()


async def test_closed_link_drops_a_flood_up_to_its_limit(session, peer, node, monkeypatch):
    monkeypatch.setattr(link_manager, "CLOSING_BYTES", 20_000)
    session.disconnect(CloseCode.KICKED)
    with pytest.raises(ConnectionError):
        await asyncio.get_running_loop().sock_sendall(peer.socket, bytes(10**6))
    await eventually(lambda: node.dismissed == [session])


async def test_closed_link_is_read_though_it_was_paused(session, peer, imgo):
    """Unread bytes would make the close a reset, and the goodbye might be lost."""
    imgo(MAX_FRAMES_PER_SECOND=1)
    peer.socket.sendall(encode_binary(Op.HEARTBEAT, 1) * 10)
    await eventually(lambda: session.link._pauses)
    session.disconnect(CloseCode.KICKED)
    await asyncio.get_running_loop().sock_sendall(peer.socket, bytes(100_000))
    assert await peer.read_to_the_end()


async def test_a_time_has_passed_only_when_it_has(manager, session):
    """`tick` is called every second: what is not due stays."""
    session.disconnect(CloseCode.KICKED)
    assert manager.closing[session.link].until > time.monotonic()
    manager.tick()
    assert not is_lost(session)


async def test_tick_serves_the_other_links_when_one_fails(manager, session, peer, monkeypatch):
    class Failing:
        is_lost = False

        def abort(self) -> None:
            raise LookupError("a bug")

        def lose(self) -> None:
            self.is_lost = True
            del manager.closing[self]

    failing = Failing()
    due = link_manager.ClosingLimits()
    due.until = 0.0
    manager.closing = {failing: due, session.link: due}
    manager.tick()
    assert failing.is_lost
    assert is_lost(session)
