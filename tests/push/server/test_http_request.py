"""Flow control of a response: the server waits for a client that reads slowly."""

import asyncio

import pytest

from push.server.http_request import NodeRequest


class Channel:
    """A channel that notes its eviction."""

    evicted = False

    def evict(self) -> None:
        self.evicted = True


@pytest.fixture
def request_of_slow_reader():
    """A request whose response the transport cannot take yet."""
    request = NodeRequest.__new__(NodeRequest)
    request._writable = asyncio.Event()
    request.channel = Channel()
    request.finished = 0
    return request


async def test_client_that_does_not_read_is_evicted(request_of_slow_reader, imgo):
    imgo(SLOW_READER_TIMEOUT=0.05)
    await request_of_slow_reader.drained()
    assert request_of_slow_reader.channel.evicted


async def test_client_that_reads_is_waited_for(request_of_slow_reader):
    waiting = asyncio.ensure_future(request_of_slow_reader.drained())
    await asyncio.sleep(0)
    assert not waiting.done()
    request_of_slow_reader.resumeProducing()
    await waiting
    assert not request_of_slow_reader.channel.evicted


async def test_finished_response_is_not_waited_for(request_of_slow_reader, imgo):
    """Twisted has removed the request's channel, which waits for the client itself."""
    imgo(SLOW_READER_TIMEOUT=0.05)
    del request_of_slow_reader.channel
    request_of_slow_reader.finished = 1
    await asyncio.wait_for(request_of_slow_reader.drained(), 1)


async def test_response_that_is_finished_meanwhile_is_not_evicted(request_of_slow_reader, imgo):
    imgo(SLOW_READER_TIMEOUT=0.05)
    waiting = asyncio.ensure_future(request_of_slow_reader.drained())
    await asyncio.sleep(0)
    del request_of_slow_reader.channel
    request_of_slow_reader.finished = 1
    await waiting
