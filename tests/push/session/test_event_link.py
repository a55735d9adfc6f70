"""The direct link of a stream of events: its head, its refusal, and what its client sends."""

import pytest

from accounts.identity import Identity
from push.session.event_link import EventLink
from push.session.outgoing import Kind
from push.session.session import Session
from push.wire import CloseCode, Op
from tests import eventually
from tests.push.session.peers import BIG, Peer
from tests.push.sessions import KeptKeeper, events

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.fixture
def peer():
    found = Peer()
    yield found
    found.socket.close()


@pytest.fixture
def link(manager, peer):
    found = EventLink(manager, peer.theirs)
    yield found
    found.lose()


async def test_the_head_goes_before_the_first_bytes_only(link, peer):
    link.head = HEAD
    assert not link.has_begun
    link.write(b"data: 1\n\n")
    link.write(b"data: 2\n\n")
    assert link.has_begun
    link.close(CloseCode.GOING_AWAY, "")
    await peer.read_to_the_end()
    assert peer.got == HEAD + b"data: 1\n\ndata: 2\n\n"


async def test_a_refusal_takes_the_place_of_the_head(link, peer):
    link.head = HEAD
    link.refuse(b"HTTP/1.1 401 Unauthorized\r\n\r\n")
    await peer.read_to_the_end()
    assert peer.got == b"HTTP/1.1 401 Unauthorized\r\n\r\n"
    assert not link.has_begun


async def test_bytes_behind_the_request_change_nothing(link, peer):
    peer.socket.send(b"GET /sub/events HTTP/1.1\r\n\r\n")
    link.write(b"data: 1\n\n")
    await peer.read_until(9)
    assert peer.got == b"data: 1\n\n"
    assert link.is_open


async def test_a_client_that_sends_on_and_on_is_not_read(link, peer, manager, imgo):
    imgo(MAX_FRAMES_PER_SECOND=3)
    sent = 0

    async def is_full() -> bool:
        nonlocal sent
        try:
            sent += peer.socket.send(BIG)
        except BlockingIOError:
            return link in manager.paces
        return False

    await eventually(is_full)
    manager.paces[link].renew(10_000)
    manager.tick()
    assert sent
    await eventually(lambda: _takes(peer))


async def _takes(peer: Peer) -> bool:
    try:
        return peer.socket.send(b"x") > 0
    except BlockingIOError:
        return False


async def test_a_client_that_never_reads_is_closed_as_a_slow_reader(link, peer, imgo):
    imgo(SESSION_BYTES=200_000)
    session = Session("s1", Identity("u1"), Kind.EVENTS, link, KeptKeeper([]))
    link.session = session
    link.head = HEAD
    while not session.is_closed:
        link.write(b"data: %b\n\n" % BIG)
    assert session.close_code == CloseCode.SLOW_READER
    await peer.read_to_the_end()
    first, last = events(peer.got.removeprefix(HEAD))
    assert (first.data, last.event) == (BIG.decode(), "imgo")
    assert (last.value["op"], last.value["body"]["code"]) == (Op.DISCONNECT, 4001)
