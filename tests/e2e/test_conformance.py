"""WebSocket as RFC 6455 has it, frame by frame, on both links: what closes, and with which code."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from tests.attacks.session_attacks import UPGRADED

from .frames import pack
from .harness import HOST, System, logs
from .world import World, new_key

PATIENCE = 10.0  # seconds
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FIN = 0x80
HEARTBEAT = b'{"op":2,"seq":5}'
NO_CODE = 1005


def masked(first: int, payload: bytes = b"", length: int | None = None) -> bytes:
    """A frame of a client with this first byte; `length` is what it says of its payload."""
    size = len(payload) if length is None else length
    head = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2)
    return (
        bytes([first]) + head + b"\1\2\3\4" + bytes(b ^ (n % 4 + 1) for n, b in enumerate(payload))
    )


def close_frame(code: int, reason: bytes = b"") -> bytes:
    return masked(FIN | CLOSE, code.to_bytes(2) + reason)


class Raw:
    """A session on a bare socket: what it says is bytes, what it hears is frames."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def frame(self) -> tuple[int, bytes]:
        """The opcode and the payload of the next frame."""
        async with asyncio.timeout(PATIENCE):
            first, size = await self._reader.readexactly(2)
            if size == 126:
                size = int.from_bytes(await self._reader.readexactly(2))
            return first & 0xF, await self._reader.readexactly(size)

    async def until_closed(self) -> int:
        """The code of the close frame; the connection must end behind it."""
        while (frame := await self.frame())[0] != CLOSE:
            pass
        async with asyncio.timeout(PATIENCE):
            assert await self._reader.read() == b""
        return int.from_bytes(frame[1][:2]) if frame[1] else NO_CODE

    def end(self) -> None:
        self._writer.close()


@pytest.fixture
async def world(embedded: System, enter: Callable[[System], Awaitable[World]]) -> World:
    return await enter(embedded)


@pytest.fixture
async def raw(world: World) -> AsyncIterator[Raw]:
    """A WebSocket of text, authenticated, whose bytes the test writes itself."""
    token = await world.token(new_key())
    reader, writer = await asyncio.open_connection(HOST, world.node().ws_port)
    writer.write("\r\n".join(("GET /sub HTTP/1.1", "Host: localhost", *UPGRADED, "", "")).encode())
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    client = Raw(reader, writer)
    client.send(masked(FIN | TEXT, b'{"op":7,"body":"%s"}' % token.encode()))
    assert b'"op":8' in (await client.frame())[1]
    yield client
    client.end()


ANSWERED = {
    "in one frame": masked(FIN | TEXT, HEARTBEAT),
    "in fragments": masked(TEXT, HEARTBEAT[:4]) + masked(FIN | CONT, HEARTBEAT[4:]),
    "with empty fragments": masked(TEXT) + masked(CONT) * 2 + masked(FIN | CONT, HEARTBEAT),
    "with a pong between": masked(TEXT, b"{")
    + masked(FIN | PONG)
    + masked(FIN | CONT, HEARTBEAT[1:]),
    "with a length of two bytes": masked(FIN | TEXT, HEARTBEAT + b" " * 200),
    "in binary": masked(FIN | BINARY, pack(2, 5, b"")),
}


@pytest.mark.parametrize("name", ANSWERED)
async def test_message_is_answered(raw: Raw, name: str) -> None:
    raw.send(ANSWERED[name])
    assert await raw.frame() == (TEXT, b'[{"ver":1,"op":3,"seq":5,"body":{}}]')


@pytest.mark.parametrize("payload", [b"", b"x", bytes(range(125))])
async def test_ping_is_answered_also_between_fragments(raw: Raw, payload: bytes) -> None:
    raw.send(masked(TEXT, HEARTBEAT[:3]) + masked(FIN | PING, payload))
    assert await raw.frame() == (PONG, payload)
    raw.send(masked(FIN | CONT, HEARTBEAT[3:]))
    assert (await raw.frame())[0] == TEXT


SPLIT = "ä".encode()
CLOSED = {
    "reserved bit": (masked(FIN | 0x40 | TEXT, b"{}"), 1002),
    "reserved data opcode": (masked(FIN | 0x3, b"x"), 1002),
    "reserved control opcode": (masked(FIN | 0xB), 1002),
    "ping of 126 bytes": (masked(FIN | PING, bytes(126)), 1002),
    "ping in fragments": (masked(PING, b"x"), 1002),
    "close in fragments": (masked(CLOSE, b"\x03\xe8"), 1002),
    "continuation of nothing": (masked(FIN | CONT, b"x"), 1002),
    "a message inside of another": (masked(TEXT, b"x") + masked(FIN | TEXT, b"x"), 1002),
    "no mask": (b"\x81\x02{}", 1002),
    "bad UTF-8": (masked(FIN | TEXT, b"\xff"), 1007),
    "bad UTF-8 in fragments": (masked(TEXT, SPLIT[:1]) + masked(FIN | CONT, b"x"), 1007),
    "half a character": (masked(FIN | TEXT, SPLIT[:1]), 1007),
    "too long": (masked(FIN | BINARY, length=20_000), 1009),
    "too long in fragments": (masked(BINARY, bytes(12_000)) + masked(CONT, bytes(1_000)), 1009),
    "too long, and more behind": (masked(FIN | BINARY, bytes(60_000)) * 5, 1009),
    "close": (close_frame(1000, b"bye"), 1000),
    "close with a code of its own": (close_frame(4321), 4321),
    "close without a code": (masked(FIN | CLOSE), NO_CODE),
    "close between fragments": (masked(TEXT, b"{") + close_frame(1000), 1000),
    "close, and more behind": (close_frame(1000) + masked(FIN | TEXT, HEARTBEAT), 1000),
    "close of one byte": (masked(FIN | CLOSE, b"\x03"), 1002),
    "close with a code that is reserved": (close_frame(1005), 1002),
    "close with a bad reason": (close_frame(1000, b"\xff"), 1007),
}


@pytest.mark.parametrize("name", CLOSED)
async def test_close_has_the_code_that_the_protocol_names(raw: Raw, name: str) -> None:
    data, code = CLOSED[name]
    raw.send(data)
    assert await raw.until_closed() in {code, 1000 if code == NO_CODE else code}


async def test_character_may_be_cut_by_a_fragment(raw: Raw) -> None:
    body = b'{"op":4,"seq":1,"body":"%s"}' % SPLIT
    raw.send(masked(TEXT, body[:-3]) + masked(FIN | CONT, body[-3:]))
    assert b'"op":5' in (await raw.frame())[1]


async def test_compression_is_not_agreed_to(world: World) -> None:
    offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
    reader, writer = await asyncio.open_connection(HOST, world.node().ws_port)
    lines = ("GET /sub HTTP/1.1", "Host: localhost", *UPGRADED, offer, "", "")
    writer.write("\r\n".join(lines).encode())
    head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    assert b" 101 " in head
    assert b"extensions" not in head.lower()


BAD_THINGS: dict[str, bytes] = {
    "bad frame": masked(FIN | 0x3, b"x"),
    "bad text": masked(FIN | TEXT, b"{"),
    "auth that is refused": masked(FIN | TEXT, b'{"op":7,"body":"wrong"}'),
    "close": close_frame(1000),
    "half a frame": masked(FIN | TEXT, b"{", length=100),
}


@pytest.mark.parametrize("path", ["/sub", "/elsewhere"])
async def test_bad_things_in_any_order_leave_no_traceback(world: World, path: str) -> None:
    """Two of them behind each other, with the upgrade or behind its answer; then the end."""

    async def provoke(first: bytes, second: bytes, *, waits: bool) -> None:
        reader, writer = await asyncio.open_connection(HOST, world.node().ws_port)
        lines: Any = (f"GET {path} HTTP/1.1", "Host: localhost", *UPGRADED, "", "")
        with contextlib.suppress(OSError):
            try:
                writer.write("\r\n".join(lines).encode() + (b"" if waits else first + second))
                if waits:
                    await reader.readuntil(b"\r\n\r\n")
                    writer.write(first + second)
            finally:
                writer.close()
                await writer.wait_closed()

    inputs = BAD_THINGS.values()
    await asyncio.gather(
        *(provoke(a, b, waits=waits) for a in inputs for b in inputs for waits in (True, False))
    )
    await world.session(new_key(), "text")  # the server has come behind all of it
    assert logs.complaints() == []
