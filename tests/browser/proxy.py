"""A proxy in front of a node, as the networks of some companies have one."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

HOST = "127.0.0.1"
PIECE = 65_536  # bytes
REFUSAL = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Proxy:
    """Proxy that serves one request a connection.

    `blocks`: refuse WebSockets. `holds`: pass on nothing of a stream of events.
    """

    def __init__(self, node: int, blocks: bool, holds: bool) -> None:
        self._node = node  # port
        self.blocks = blocks
        self.holds = holds
        self.refused = 0  # WebSockets
        self.streams = 0  # requests for a stream of events
        self.url = ""
        self._tasks: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection."""
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Not in the task: one that is cancelled before its first step runs no `finally`.
        task.add_done_callback(lambda _: writer.close())

    async def close(self) -> None:
        """Close all connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            if self.blocks and re.search(rb"\r\nupgrade: *websocket\r\n", head, re.IGNORECASE):
                self.refused += 1
                writer.write(REFUSAL)
                await writer.drain()
            else:
                await self._pass_on(head, reader, writer)

    async def _pass_on(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        is_stream = re.match(rb"GET [^ ]*/sub/events[ ?]", head) is not None
        self.streams += is_stream
        is_upgrade = b"\r\nupgrade:" in head.lower()
        if not is_upgrade:
            head = re.sub(rb"\r\nConnection:[^\r]*", b"", head, flags=re.IGNORECASE)
            head = _closing(head)
        answers, requests = await asyncio.open_connection(HOST, self._node)
        up = asyncio.create_task(_copy(reader, requests))
        try:
            requests.write(head)
            if self.holds and is_stream:
                await up  # until the client gives up
                return
            if not is_upgrade:  # a browser must not send another request on this connection
                writer.write(_closing(await answers.readuntil(b"\r\n")))
            down = asyncio.create_task(_copy(answers, writer))
            await asyncio.wait([up, down], return_when=asyncio.FIRST_COMPLETED)
            down.cancel()
        finally:
            up.cancel()
            requests.close()


def _closing(head: bytes) -> bytes:
    """Add to the first line of a request or a response that the connection ends behind it."""
    return head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(PIECE):
            writer.write(piece)
            await writer.drain()


@asynccontextmanager
async def proxy_before(port: int, blocks: bool = True, holds: bool = False) -> AsyncIterator[Proxy]:
    """Start a proxy before a node's port."""
    proxy = Proxy(port, blocks, holds)
    server = await asyncio.start_server(proxy.accept, HOST, 0)
    proxy.url = f"http://localhost:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
        await server.wait_closed()
