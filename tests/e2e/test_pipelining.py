"""Pipelined HTTP requests: a response must be read before the next request is served."""

import asyncio
import re
import socket
import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests import NO_TLS, eventually

from .harness import HOST, Embedded, System

REQUESTS = 40
SLOW_READER_TIMEOUT = 2
PATH = "/api/schema/"


@pytest.fixture(scope="module")
def quick(make_embedded: Callable[..., Embedded]) -> Iterator[System]:
    """A node that closes slow readers soon, and logs each request."""
    with make_embedded(IMGO_SLOW_READER_TIMEOUT=str(SLOW_READER_TIMEOUT), LOG_ACCESS="1") as system:
        yield system


def pipeline(system: System) -> socket.socket:
    """Send all requests at once; the kernel keeps little of the responses."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((HOST, system.nodes[0].http_port))
    connection.sendall(f"GET {PATH} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode() * REQUESTS)
    return connection


def served(system: System) -> int:
    """Number of requests for the path that were answered, from the access log."""
    return len(re.findall(re.escape(PATH), system.nodes[0].log.read_text()))


async def test_pipelined_requests_of_a_client_that_reads_are_all_answered(quick: System) -> None:
    with pipeline(quick) as connection:
        connection.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=connection)
        for _ in range(REQUESTS):
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
            assert head.startswith(b"HTTP/1.1 200")
            length = re.search(rb"content-length: (\d+)", head.lower())
            assert length
            await reader.readexactly(int(length[1]))
        writer.close()


async def test_client_that_reads_nothing_is_served_little_and_closed(quick: System) -> None:
    before = served(quick)
    connections = [pipeline(quick) for _ in range(20)]
    try:
        began = time.monotonic()
        for connection in connections:
            connection.setblocking(False)

        def are_closed() -> bool:
            return all(is_reset(connection) for connection in connections)

        await eventually(are_closed, 30)
        assert time.monotonic() - began > SLOW_READER_TIMEOUT / 2
    finally:
        for connection in connections:
            connection.close()
    # A response is larger than what the kernel takes for a client that does not read.
    assert 0 < served(quick) - before < 20 * REQUESTS / 4
    async with httpx.AsyncClient(verify=NO_TLS, trust_env=False) as client:
        assert (await client.get(f"{quick.nodes[0].url}/healthz")).status_code == 200


def is_reset(connection: socket.socket) -> bool:
    """Whether the server has closed a connection, without reading from it."""
    return connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0 or (
        connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != 1
    )
