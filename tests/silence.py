"""TCP proxy that stands between the project and a service, to delay, silence or cut its links.

It runs on a thread of its own, so synchronous tests, coroutines and other processes can use it:

    with Proxy.to_url(database_url) as proxy:
        environment["DATABASE_URL"] = proxy.url
        ...
        proxy.silence()     # nothing passes any more, a close neither; new links are accepted
        proxy.restore()     # what was kept back passes, in order

Commands act on every link, present and future. A link has the same commands for itself alone.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit, urlunsplit

T = TypeVar("T")

CHUNK = 65_536  # bytes of one read
COMMAND_TIMEOUT = 30.0  # seconds for the proxy's thread to carry out a command
TO_SERVICE, FROM_SERVICE = "to the service", "from the service"
BOTH = (TO_SERVICE, FROM_SERVICE)
RESET = struct.pack("ii", 1, 0)  # SO_LINGER that makes a close a reset

Writer = asyncio.StreamWriter


class Link:
    """One connection through the proxy. Use it from the proxy's thread only, or by its commands."""

    def __init__(self, proxy: "Proxy", client: Writer) -> None:
        self._proxy = proxy
        self._client = client
        self._service: Writer | None = None
        self._gates = {direction: asyncio.Event() for direction in BOTH}
        self.passed = dict.fromkeys(BOTH, 0)  # bytes by direction
        self.pieces = dict.fromkeys(BOTH, 0)  # reads by direction
        self.is_over = False

    def silence(self, *directions: str) -> None:
        """Let nothing pass, in both directions or only in these."""
        self._proxy.call(self._set, directions or BOTH, False)

    def restore(self) -> None:
        """Let everything pass, first what was kept back."""
        self._proxy.call(self._set, BOTH, True)

    def cut(self) -> None:
        """Reset both connections."""
        self._proxy.call(self._reset)

    def _set(self, directions: tuple[str, ...], is_open: bool) -> None:
        for direction in directions:
            gate = self._gates[direction]
            gate.set() if is_open else gate.clear()

    def _reset(self) -> None:
        for writer in (self._client, self._service):
            if writer is not None:
                with contextlib.suppress(OSError, AttributeError):
                    sock = writer.get_extra_info("socket")
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                writer.transport.abort()

    async def run(self, reader: asyncio.StreamReader) -> None:
        """Pass bytes both ways until both ends are closed."""
        try:
            # A silenced service accepts connections, as a stopped process's kernel does.
            await self._gates[TO_SERVICE].wait()
            from_service, self._service = await asyncio.open_connection(*self._proxy.upstream)
            await asyncio.gather(
                self._pass(TO_SERVICE, reader, self._service),
                self._pass(FROM_SERVICE, from_service, self._client),
            )
        except OSError:
            pass
        finally:
            self.is_over = True
            for writer in (self._client, self._service):
                if writer is not None:
                    writer.transport.abort()

    async def _pass(self, direction: str, reader: asyncio.StreamReader, writer: Writer) -> None:
        loop = asyncio.get_running_loop()
        read: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(100)
        reading = loop.create_task(self._read(reader, read))
        try:
            data = b"begin"
            while data:
                due, data = await read.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                await self._gates[direction].wait()
                if data:
                    writer.write(data)
                    await writer.drain()
                    self.passed[direction] += len(data)
                    self.pieces[direction] += 1
            if writer.can_write_eof():
                writer.write_eof()
        finally:
            reading.cancel()

    async def _read(self, reader: asyncio.StreamReader, read: asyncio.Queue[Any]) -> None:
        data = b"begin"
        while data:
            try:
                data = await reader.read(CHUNK)
            except OSError:
                data = b""
            await read.put((asyncio.get_running_loop().time() + self._proxy.delay, data))


class Proxy:
    """Listens on a port of its own and passes each connection on to `host:port`.

    A context manager. `delay`: seconds that bytes take each way, also for links that are open.
    """

    def __init__(self, host: str, port: int) -> None:
        self.upstream = (host, port)
        self.port = 0
        self.links: list[Link] = []  # those that are open
        self.accepted = 0
        self.delay = 0.0
        self._url = f"tcp://{host}:{port}"
        self._closed: frozenset[str] = frozenset()  # directions
        self._is_refusing = False
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread
        self._server: asyncio.Server | None = None

    @classmethod
    def to_url(cls, url: str) -> Self:
        """Stand before the service of a URL such as DATABASE_URL; `url` is the way through here."""
        parts = urlsplit(url)
        assert parts.hostname, f"{url!r} names no host"
        assert parts.port, f"{url!r} names no port"
        proxy = cls(parts.hostname, parts.port)
        proxy._url = url
        return proxy

    @property
    def url(self) -> str:
        """The service's URL, with this proxy's address in it."""
        parts = urlsplit(self._url)
        login = parts.netloc.rpartition("@")[0]
        address = f"127.0.0.1:{self.port}"
        return urlunsplit(parts._replace(netloc=f"{login}@{address}" if login else address))

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._wait_for(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._wait_for(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def silence(self, *directions: str) -> None:
        """Let nothing pass, in both directions or only in these; new links are as silent."""
        self.call(self._set, frozenset(directions or BOTH))

    def restore(self) -> None:
        """Let everything pass, first what was kept back, and take new links again."""
        self.call(self._set, frozenset())
        self._is_refusing = False

    def cut(self) -> None:
        """Reset all links; new ones are taken."""
        self.call(self._cut)

    def refuse(self) -> None:
        """Reset all links, and each new one at once, until `restore`."""
        self._is_refusing = True
        self.cut()

    @contextlib.contextmanager
    def silent(self, *directions: str) -> Iterator[None]:
        """Silence it meanwhile."""
        self.silence(*directions)
        try:
            yield
        finally:
            self.restore()

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function on the proxy's thread, and wait for what it returns."""

        async def called() -> T:
            return function(*args)

        return self._wait_for(called())

    def _wait_for(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(COMMAND_TIMEOUT)

    def _set(self, closed: frozenset[str]) -> None:
        self._closed = closed
        for link in self.links:
            link._set(BOTH, True)
            link._set(tuple(closed), False)

    def _cut(self) -> None:
        for link in self.links:
            link._reset()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _accept(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        link = Link(self, writer)
        self.accepted += 1
        if self._is_refusing:
            link._reset()
            return
        link._set(BOTH, True)
        link._set(tuple(self._closed), False)
        self.links.append(link)
        try:
            with contextlib.suppress(asyncio.CancelledError):  # at the end: nobody asks the task
                await link.run(reader)
        finally:
            self.links.remove(link)

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        await _turns()  # a connection that was accepted in this moment becomes a link
        self._cut()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await _turns()  # transports close their sockets in the next one


async def _turns() -> None:
    """Let the event loop do what it has to do, and what comes of that."""
    for _ in range(5):
        await asyncio.sleep(0)
