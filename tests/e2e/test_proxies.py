"""Clients behind a proxy of raw connections that says where they are, and strangers that say so."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator

import pytest

from .frames import pack
from .harness import HOST, Embedded, System
from .world import World, new_key

V1 = b"PROXY TCP4 192.0.2.7 10.0.0.1 5000 8080\r\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24" + b"\x20\x01\x0d\xb8" + b"\0" * 11 + b"\x07" + b"\0" * 20
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"

Enter = Callable[[System], Awaitable[World]]


@pytest.fixture(scope="module")
def proxied(make_embedded: Callable[..., Embedded]) -> Iterator[System]:
    settings = {"IMGO_PROXY_PROTOCOL": "tcp,ws", "IMGO_TRUSTED_PROXIES": "127.0.0.1"}
    with make_embedded(**settings, IMGO_HANDSHAKE_TIMEOUT="2") as system:
        yield system


async def address_of(world: World, header: bytes, port: int, upgrade: bytes = b"") -> str:
    """The address that a session's row shows."""
    key = new_key()
    frame = pack(7, 1, (await world.token(key)).encode())
    message = bytes([0x82, 0x80 | len(frame), 0, 0, 0, 0]) + frame if upgrade else frame
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        for byte in header:  # however the network cut it
            writer.write(bytes([byte]))
            await writer.drain()
        writer.write(upgrade + message)
        await asyncio.wait_for(reader.readexactly(16), 10)
        await world.wait_for_sessions(key, 1)
        (row,) = (await world.api.key(key))["sessions"]
        return str(row["address"])
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    ("header", "address"),
    [(V1, "192.0.2.7"), (V2, "2001:db8::7"), (LOCAL, "127.0.0.1")],
    ids=["v1", "v2", "local"],
)
async def test_session_has_the_address_that_its_proxy_names(
    proxied: System, enter: Enter, header: bytes, address: str
) -> None:
    world = await enter(proxied)
    assert await address_of(world, header, world.node().tcp_port) == address
    upgrade = (
        b"GET /sub HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert await address_of(world, header, world.node().ws_port, upgrade) == address


@pytest.mark.parametrize("sent", [b"PROXY TCP4 nonsense\r\n", b"\0\0\0\x10", b"PROXY TCP4 ", b""])
@pytest.mark.long(but=["PROXY TCP4 "])
async def test_proxy_that_names_no_client_is_closed(
    proxied: System, enter: Enter, sent: bytes
) -> None:
    world = await enter(proxied)
    for port in (world.node().tcp_port, world.node().ws_port):
        reader, writer = await asyncio.open_connection(HOST, port)
        try:
            writer.write(sent)
            async with asyncio.timeout(10):
                with contextlib.suppress(ConnectionError):
                    await reader.read()
        finally:
            writer.close()


async def test_stranger_that_names_a_client_is_closed(embedded: System, enter: Enter) -> None:
    world = await enter(embedded)
    client = await world.connect("tcp")
    await client.send_raw(V1)
    assert (await client.ended()).code not in (None, 1000)
