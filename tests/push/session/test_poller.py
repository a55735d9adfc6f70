"""The poller: readiness of many sockets through one."""

import asyncio
import socket

import pytest

from push.session.poller import EVENTS_MAX, READ, WRITE, Poller
from tests import eventually


@pytest.fixture
async def poller():
    found = Poller(asyncio.get_running_loop())
    yield found
    found.close()


@pytest.fixture
def pairs():
    found = [socket.socketpair() for _ in range(EVENTS_MAX + 10)]
    for pair in found:
        for end in pair:
            end.setblocking(False)
    yield found
    for pair in found:
        for end in pair:
            end.close()


async def test_every_ready_socket_is_told(poller, pairs):
    got = {}
    for n, (ours, _) in enumerate(pairs):
        poller.add(ours.fileno(), lambda events, n=n: got.__setitem__(n, pairs[n][0].recv(10)))
    assert len(poller) == len(pairs)
    for n, (_, theirs) in enumerate(pairs):
        theirs.send(b"%d" % n)
    await eventually(lambda: len(got) == len(pairs))
    assert got == {n: b"%d" % n for n in range(len(pairs))}


async def test_a_socket_is_told_of_what_it_watches(poller, pairs):
    (ours, theirs), *_ = pairs
    seen = []
    poller.add(ours.fileno(), seen.append, WRITE)
    await eventually(lambda: seen)
    poller.watch(ours.fileno(), READ)
    await asyncio.sleep(0)
    seen.clear()
    theirs.send(b"x")
    await eventually(lambda: seen)
    assert not seen[0] & WRITE


async def test_the_end_of_the_peer_is_told(poller, pairs):
    (ours, theirs), *_ = pairs
    seen = []
    poller.add(ours.fileno(), seen.append)
    theirs.close()
    await eventually(lambda: seen)
    assert ours.recv(1) == b""


async def test_a_removed_socket_is_not_told_of_this_round_either(poller, pairs):
    first, second = pairs[0][0], pairs[1][0]
    seen = []

    def remove_both(events: int) -> None:
        seen.append(events)
        for sock in (first, second):
            poller.remove(sock.fileno())

    poller.add(first.fileno(), remove_both)
    poller.add(second.fileno(), remove_both)
    for _, theirs in pairs[:2]:
        theirs.send(b"x")
    await eventually(lambda: seen)
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(seen) == 1
    assert len(poller) == 0
