"""Attacks on sessions: connections that never authenticate, and frames without end."""

import asyncio
import contextlib
import json
import time

from tests.e2e.clients import open_client
from tests.e2e.frames import JOIN, pack
from tests.e2e.world import new_key

from .http_attacks import SLOW, head
from .target import Target

HALF_AN_AUTH_FRAME = pack(7, 1, b"a token")[:-3]
CONTINUATION, TEXT, PING = 0, 1, 9  # opcodes of WebSocket
FLOODERS = 5
UPGRADED = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


async def silent_connections(target: Target, seconds: float) -> None:
    """Connections that are opened, upgraded even, and never authenticate."""
    until = time.monotonic() + seconds
    upgrade = head("GET /sub", *UPGRADED)
    starts = ((target.node.tcp_port, b""), (target.node.tcp_port, HALF_AN_AUTH_FRAME))
    starts += ((target.node.ws_port, upgrade), (target.node.http_port, b""))

    async def stay(port: int, start: bytes) -> None:
        while time.monotonic() < until:
            try:
                reader, writer = await target.connect(port)
            except OSError:
                continue
            try:
                writer.write(start)
                await asyncio.wait_for(reader.read(), max(0.1, until - time.monotonic()))
            except (OSError, TimeoutError):
                pass
            finally:
                writer.transport.abort()

    await asyncio.gather(*(stay(*start) for start in starts for _ in range(SLOW // 4)))


def masked(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """One WebSocket frame of a client, with a mask of zeros."""
    return bytes([fin << 7 | opcode, 0x80 | len(payload)]) + bytes(4) + payload


async def flood(target: Target, seconds: float, start: bytes, again: bytes) -> None:
    """Open WebSocket sessions, send `start`, then `again` without end; read what is answered."""
    until = time.monotonic() + seconds
    auth = json.dumps({"op": 7, "body": {"token": target.token, "ack": True}}).encode()

    async def send() -> None:
        reader, writer = await target.connect(target.node.ws_port)
        reading = None
        try:
            writer.write(head("GET /sub", *UPGRADED))
            await reader.readuntil(b"\r\n\r\n")
            reading = asyncio.ensure_future(read_all(reader))
            writer.write(masked(TEXT, auth) + start)
            while not reading.done():
                writer.write(again)
                await writer.drain()
        finally:
            writer.transport.abort()
            if reading is not None:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    async def send_again() -> None:
        while time.monotonic() < until:
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                async with asyncio.timeout(until - time.monotonic()):
                    await send()

    await asyncio.gather(*(send_again() for _ in range(FLOODERS)))


async def read_all(reader: asyncio.StreamReader) -> None:
    """Read to the end."""
    while await reader.read(65_536):
        pass


async def empty_fragments(target: Target, seconds: float) -> None:
    """A message whose fragments carry nothing and never end."""
    await flood(target, seconds, masked(TEXT, fin=False), masked(CONTINUATION, fin=False) * 500)


async def fragments_and_pings(target: Target, seconds: float) -> None:
    """A message of single bytes that never ends, with a ping behind each."""
    again = (masked(CONTINUATION, b"x", fin=False) + masked(PING)) * 250
    await flood(target, seconds, masked(TEXT, b"{", fin=False), again)


async def pings(target: Target, seconds: float) -> None:
    """Pings of the largest size, each of which is to be answered."""
    await flood(target, seconds, b"", masked(PING, b"x" * 125) * 50)


async def made_up_acknowledgements(target: Target, seconds: float) -> None:
    """Acknowledgements of ids that nobody was sent."""
    ids = ",".join(str(2**60 + n) for n in range(5))
    frame = masked(TEXT, b'{"op":22,"body":[%s]}' % ids.encode())
    await flood(target, seconds, b"", frame * 100)


async def heartbeats(target: Target, seconds: float) -> None:
    """Heartbeats without end."""
    await flood(target, seconds, b"", masked(TEXT, b'{"op":2}') * 500)


async def room_patterns(target: Target, seconds: float) -> None:
    """A pattern and a room that take a backtracking matcher for ever."""
    token = await target.api.make_token(new_key(), rooms=["*-*-*-*-*-*-*-*!"])
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        client = await open_client(target.node, "tcp")
        await client.auth(token)
        for _ in range(20):
            await client.ask(JOIN, "-" * 255)
        await client.close()
