"""Attacks on sessions: connections that never authenticate, and frames without end."""

import asyncio
import contextlib
import time

from tests.e2e.clients import pack

from .http_attacks import SLOW, head
from .target import Target

HALF_AN_AUTH_FRAME = pack(7, 1, b"a token")[:-3]
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
            with contextlib.suppress(OSError, TimeoutError):
                reader, writer = await target.connect(port)
                writer.write(start)
                await asyncio.wait_for(reader.read(), until - time.monotonic())
                writer.close()

    await asyncio.gather(*(stay(*start) for start in starts for _ in range(SLOW // 4)))
