"""Upgrade requests as attackers, proxies and impatient clients send them."""

import asyncio
import base64
import hashlib
from collections.abc import Awaitable, Callable

import pytest

from .frames import HEARTBEAT, HEARTBEAT_REPLY, pack, unpack
from .harness import HOST, System, logs
from .world import World, new_key

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = base64.b64encode(
    hashlib.sha1(KEY.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
)
PING = b"\x89\x81\0\0\0\0x"
PONG = b"\x8a\x01x"

Enter = Callable[[System], Awaitable[World]]


def upgrade(
    *headers: str, target: str = "/sub", host: str = "Host: localhost", version: str = "13"
) -> bytes:
    lines = [f"GET {target} HTTP/1.1", host, "Upgrade: websocket", "Connection: Upgrade"]
    lines += [f"Sec-WebSocket-Version: {version}"] if version else []
    lines += [f"Sec-WebSocket-Key: {KEY}", *headers, "", ""]
    return "\r\n".join(line for line in lines if line is not host or line).encode("latin1")


async def answer(system: System, sent: bytes, until: bytes = b"\r\n\r\n") -> bytes:
    """What comes back, up to `until` or the end."""
    reader, writer = await asyncio.open_connection(HOST, system.nodes[0].http_port)
    try:
        writer.write(sent)
        async with asyncio.timeout(10):
            return await reader.readuntil(until)
    except asyncio.IncompleteReadError as error:
        return error.partial
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("character", ["\x0b", "\x0c", "\x1c", "\x01", "\x85", "\xff"])
async def test_upgrade_with_odd_header_is_answered_and_closed(
    embedded: System, character: str
) -> None:
    got = await answer(embedded, upgrade(f"X-A: a{character}b"), b"\0never")
    assert got.startswith((b"HTTP/1.1 400", b"HTTP/1.1 101"))
    assert logs.complaints() == []


async def test_upgrade_with_a_frame_behind_it_is_answered_first(embedded: System) -> None:
    got = await answer(embedded, upgrade() + PING, PONG)
    head, _, rest = got.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101")
    assert ACCEPT in head
    assert rest == PONG


async def test_upgrade_behind_another_request_loses_neither_answer(embedded: System) -> None:
    before = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    got = await answer(embedded, before + upgrade() + PING, PONG)
    first, _, second = got.partition(b'{"status":"ok"}')
    assert first.startswith(b"HTTP/1.1 200")
    assert second.startswith(b"HTTP/1.1 101")
    assert second.endswith(b"\r\n\r\n" + PONG)


@pytest.mark.parametrize("version", ["", "12", "14", "x"])
async def test_upgrade_of_another_version_is_told_ours(embedded: System, version: str) -> None:
    got = await answer(embedded, upgrade(version=version))
    assert got.startswith(b"HTTP/1.1 426")
    assert b"\r\nSec-WebSocket-Version: 13\r\n" in got


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (upgrade(host="X: y"), b"400"),
        (upgrade("Host: localhost"), b"400"),
        (upgrade(host="Host: evil.example"), b"403"),
        (upgrade("Origin: http://10.0.0.1", host="Host: 10.0.0.1"), b"403"),
        (upgrade(host="Host: 10.0.0.1:8090"), b"101"),
        (upgrade(target="http://localhost/sub"), b"101"),
        (upgrade(target="http://evil.example/sub"), b"403"),
        (upgrade(target="ws:/sub"), b"400"),
        (upgrade("Content-Length: 300000000"), b"413"),
        (upgrade("Transfer-Encoding: chunked") + b"5\r\nhello\r\n", b"413"),
        (b"GET /healthz HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/1.0\r\n\r\n", b"200"),
        (b"GET http://localhost/healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n", b"200"),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nDaphne-Root-Path: /\xff\r\n\r\n", b"200"),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nDaphne-Root-Path: /p\r\n\r\n", b"200"),
    ],
)
async def test_request_is_held_to_its_host_and_target(
    embedded: System, sent: bytes, status: bytes
) -> None:
    got = await answer(embedded, sent)
    assert got.split(b" ", 2)[1] == status
    assert logs.complaints() == []


async def test_frames_behind_an_upgrade_open_a_session(embedded: System, enter: Enter) -> None:
    world = await enter(embedded)
    frames = pack(7, 1, (await world.token(new_key())).encode()) + pack(HEARTBEAT, 2)
    assert len(frames) < 126
    message = bytes([0x82, 0x80 | len(frames), 0, 0, 0, 0]) + frames
    reader, writer = await asyncio.open_connection(HOST, world.node().ws_port)
    try:
        writer.write(upgrade() + message)
        async with asyncio.timeout(10):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
            ops = []
            while len(ops) < 2:
                _, length = await reader.readexactly(2)
                ops += [frame.op for frame in unpack(await reader.readexactly(length))[0]]
    finally:
        writer.close()
        await writer.wait_closed()
    assert ops == [8, HEARTBEAT_REPLY]
