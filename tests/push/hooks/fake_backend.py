"""A user's backend for the tests: an HTTP server whose next answers a test chooses."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

Body = dict[str, Any]


@dataclass
class Request:
    """One request that the backend got."""

    path: str
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> Body:
        """The JSON value of the body."""
        return json.loads(self.raw)


def response(status: int, value: object = None, *headers: str) -> bytes:
    """A whole HTTP response; `value` is bytes or becomes JSON."""
    body = (
        value if isinstance(value, bytes) else b"" if value is None else json.dumps(value).encode()
    )
    lines = [f"HTTP/1.1 {status} Because", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@dataclass
class Backend:
    """A server that gives the answer of `answer(request)`; None: none at all."""

    answer: Callable[[Request], bytes | None]
    port: int = 0
    requests: list[Request] = field(default_factory=list)
    connections: int = 0  # accepted so far
    open_at_once: int = 0
    most_at_once: int = 0
    gate: asyncio.Event | None = None  # answers wait for it
    closes_after_answer: bool = False
    hangs_up: bool = False  # instead of an answer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.connections += 1
        self.open_at_once += 1
        self.most_at_once = max(self.most_at_once, self.open_at_once)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                first, *lines = head.strip().split("\r\n")
                headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
                raw = await reader.readexactly(int(headers["content-length"]))
                request = Request(first.split()[1], headers, raw)
                self.requests.append(request)
                if self.gate is not None:
                    await self.gate.wait()
                if self.hangs_up:
                    return
                answer = self.answer(request)
                if answer is None:
                    await reader.read()  # until the caller gives up
                    return
                writer.write(answer)
                await writer.drain()
                if self.closes_after_answer:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open_at_once -= 1
            writer.close()


@asynccontextmanager
async def backend(answer: Callable[[Request], bytes | None]) -> AsyncIterator[Backend]:
    """Run a backend while the context is open."""
    found = Backend(answer)
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def dripping(head: bytes, rest: bytes) -> AsyncIterator[Backend]:
    """Run a backend that writes `head`, then `rest` again and again, slowly and without end."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(head)
            while True:
                writer.write(rest)
                await writer.drain()
                await asyncio.sleep(0.02)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    async with server:
        yield Backend(lambda _: None, server.sockets[0].getsockname()[1])
