"""The resident link: order, receipts, the byte budget, closing, and the end of its client."""

import asyncio

import pytest

from push.session.resident_link import ResidentLink
from push.wire import CloseCode
from tests import eventually
from tests.push.sessions import make_session


class Client:
    """What a link sends to. It reads while `reading` is set."""

    def __init__(self) -> None:
        self.reading = asyncio.Event()
        self.reading.set()
        self.asked: list[bytes] = []
        self.got: list[bytes] = []
        self.closed: list[tuple[int, str]] = []
        self.error: Exception | None = None

    async def send(self, data: bytes) -> None:
        self.asked.append(data)
        await self.reading.wait()
        if self.error is not None:
            raise self.error
        self.got.append(data)

    async def close(self, code: int, reason: str) -> None:
        self.closed.append((code, reason))


@pytest.fixture
def client():
    return Client()


@pytest.fixture
def receipts():
    return []


@pytest.fixture
def link(client, receipts):
    made = ResidentLink(client.send, client.close, limit=10, patience=60)
    made.session = make_session(acknowledged=receipts)
    return made


@pytest.fixture
async def running(link):
    task = asyncio.create_task(link.run())
    yield task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_writes_arrive_in_order(link, client, running):
    for n in range(10):
        link.write(b"%d" % n)
    await link.drained()
    assert client.got == [b"%d" % n for n in range(10)]
    assert link.waiting == 0


async def test_a_receipt_is_given_after_send_has_returned(link, client, receipts, running):
    client.reading.clear()
    link.write(b"a", 1)
    link.write(b"b")
    link.write(b"c", 3)
    await eventually(lambda: client.asked == [b"a"])
    assert receipts == []
    assert link.waiting == 3
    client.reading.set()
    await link.drained()
    assert receipts == [(1, "u1"), (3, "u1")]


async def test_drained_waits_for_what_is_queued(link, client, running):
    await asyncio.wait_for(link.drained(), 1)  # nothing is
    client.reading.clear()
    link.write(b"a")
    waiter = asyncio.create_task(link.drained())
    await eventually(lambda: client.asked == [b"a"])
    assert not waiter.done()
    client.reading.set()
    await asyncio.wait_for(waiter, 10)


async def test_up_to_the_limit_may_wait(link, client, running):
    client.reading.clear()
    link.write(b"12345")
    link.write(b"67890")
    client.reading.set()
    await link.drained()
    assert client.got == [b"12345", b"67890"]
    assert client.closed == []


async def test_one_write_above_the_limit_is_sent_when_nothing_waits(link, client, running):
    link.write(b"x" * 100)
    await link.drained()
    assert client.got == [b"x" * 100]


async def test_a_slow_reader_is_closed_and_gets_no_receipt_for_what_is_dropped(
    link, client, receipts, running
):
    client.reading.clear()
    link.write(b"123", 1)
    await eventually(lambda: client.asked)
    link.write(b"456", 2)
    link.write(b"789", 3)
    link.write(b"00", 4)
    link.write(b"0", 5)
    await asyncio.wait_for(running, 10)  # though the client reads nothing
    assert (client.got, receipts) == ([], [])
    assert client.closed == [(CloseCode.SLOW_READER, CloseCode.SLOW_READER.reason)]


async def test_who_takes_nothing_for_a_while_is_closed(client, receipts):
    link = ResidentLink(client.send, client.close, limit=10, patience=0.01)
    link.session = make_session(acknowledged=receipts)
    client.reading.clear()
    link.write(b"123", 1)
    link.write(b"456", 2)
    await asyncio.wait_for(link.run(), 10)
    assert (client.got, receipts) == ([], [])
    assert client.closed == [(CloseCode.SLOW_READER, CloseCode.SLOW_READER.reason)]
    assert link.session.is_closed


async def test_close_comes_after_what_was_written(link, client, running):
    client.reading.clear()
    link.write(b"a")
    link.write(b"b")
    link.close(4504, "kicked")
    link.close(4000, "later")
    link.write(b"too late")
    client.reading.set()
    await asyncio.wait_for(running, 10)
    assert client.got == [b"a", b"b"]
    assert client.closed == [(4504, "kicked")]


async def test_an_idle_link_closes_at_once(link, client, running):
    await asyncio.sleep(0)
    link.close(4504, "kicked")
    await asyncio.wait_for(running, 10)
    assert client.closed == [(4504, "kicked")]


async def test_a_cancelled_link_lets_go(link, client, receipts, running):
    client.reading.clear()
    link.write(b"a", 1)
    link.write(b"b", 2)
    waiter = asyncio.create_task(link.drained())
    await eventually(lambda: client.asked)
    running.cancel()
    await asyncio.wait_for(waiter, 10)  # nobody waits for a client that has gone
    link.write(b"c", 3)
    link.close(4000, "too late")
    assert (client.got, receipts, client.closed) == ([], [], [])


async def test_a_client_that_has_gone_ends_the_link(link, client, receipts, running):
    client.error = OSError("gone")
    link.write(b"a", 1)
    link.write(b"b", 2)
    with pytest.raises(OSError, match="gone"):
        await asyncio.wait_for(running, 10)
    await asyncio.wait_for(link.drained(), 10)
    assert (client.asked, receipts) == ([b"a"], [])


async def test_a_link_without_a_session_sends_too(client):
    link = ResidentLink(client.send, client.close, limit=10, patience=60)
    link.write(b"a", 1)
    link.close(4401, "")
    await asyncio.wait_for(link.run(), 10)
    assert client.got == [b"a"]
