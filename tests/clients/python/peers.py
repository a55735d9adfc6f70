"""A server that does what a test says: the other end of each connection of a client."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import websockets
from websockets.asyncio.server import ServerConnection, serve

from imgo_client import Client, Ending
from imgo_client.frames import Decoder, Frame, Op, encode_batch, encode_binary, value_of

HOST = "127.0.0.1"
CLOSED = Ending(1000, "closed by the client", False, 0.0)
Script = Callable[["Peer"], Awaitable[None]]


class Gone(Exception):
    """The client has closed."""


class Peer:
    """The server's end of one connection. Bodies are JSON values."""

    def __init__(self) -> None:
        self._frames: list[Frame] = []
        self.auth: Any = None  # the body of the auth frame

    async def accept(self) -> "Peer":
        """Answer the auth frame."""
        frame = await self.receive()
        assert frame.op == Op.AUTH
        self.auth = frame.body
        await self.send(Frame(Op.AUTH_REPLY, frame.seq, {}))
        return self

    async def receive(self) -> Frame:
        """The next frame. Raises `Gone`."""
        while not self._frames:
            self._frames += await self.read()
        return self._frames.pop(0)

    async def acks(self, count: int) -> list[list[str]]:
        """The bodies of acknowledgements, until they name as many ids."""
        lists: list[list[str]] = []
        while sum(map(len, lists)) < count:
            frame = await self.receive()
            assert frame.op == Op.ACK, f"instead of an acknowledgement: {frame}"
            lists.append(frame.body)
        return lists

    async def until_gone(self) -> list[Frame]:
        """What comes until the client closes."""
        frames = []
        with contextlib.suppress(Gone):
            while True:
                frames.append(await self.receive())
        return frames

    async def push(self, *ids: int) -> None:
        """Messages whose bodies are their ids, together."""
        await self.send(*(Frame(Op.MESSAGE, 0, number, 2, number) for number in ids))

    # What a transport does

    async def read(self) -> list[Frame]:
        """The frames that come next. Raises `Gone`."""
        raise NotImplementedError

    async def send(self, *frames: Frame) -> None:
        """Frames, together."""
        raise NotImplementedError

    async def raw(self, data: str | bytes) -> None:
        """Anything."""
        raise NotImplementedError

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """As the server does: with op 6 before it, but for codes of WebSocket's own."""
        if code >= 3000:
            body = {"code": code, "reason": reason, "reconnect": 4000 <= code < 4500}
            await self.send(Frame(Op.DISCONNECT, 0, body))
        await self.hang_up(code, reason)

    async def hang_up(self, code: int, reason: str) -> None:
        """Close the connection."""
        raise NotImplementedError


class WebSocketPeer(Peer):
    """Text messages."""

    def __init__(self, connection: ServerConnection) -> None:
        super().__init__()
        self.connection = connection

    async def read(self) -> list[Frame]:
        try:
            members = json.loads(await self.connection.recv())
        except websockets.ConnectionClosed:
            raise Gone from None
        return [Frame(members["op"], members["seq"], members["body"])]

    async def send(self, *frames: Frame) -> None:
        objects = [
            {"ver": f.ver, "op": int(f.op), "seq": f.seq, "body": f.body}
            | ({"id": str(f.id)} if f.id else {})
            for f in frames
        ]
        await self.raw(json.dumps(objects))

    async def raw(self, data: str | bytes) -> None:
        await self.connection.send(data)

    async def hang_up(self, code: int, reason: str) -> None:
        await self.connection.close(code, reason)


class TcpPeer(Peer):
    """Binary frames."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__()
        self.reader, self.writer = reader, writer
        self._decoder = Decoder(2**20)

    async def read(self) -> list[Frame]:
        try:
            data = await self.reader.read(2**16)
        except ConnectionError:
            raise Gone from None
        if not data:
            raise Gone
        return [f._replace(body=value_of(f.body)) for f in self._decoder.feed(data)]

    async def send(self, *frames: Frame) -> None:
        binary = [f._replace(body=json.dumps(f.body).encode()) for f in frames]
        # A client takes a batch on TCP too, as goim sends it.
        await self.raw(encode_binary(binary[0]) if len(binary) == 1 else encode_batch(binary))

    async def raw(self, data: str | bytes) -> None:
        self.writer.write(data.encode() if isinstance(data, str) else data)
        await self.writer.drain()

    async def hang_up(self, code: int, reason: str) -> None:
        self.writer.close()


class Server:
    """Runs `script` for each connection, and closes those that it has left."""

    def __init__(self, scheme: str, script: Script) -> None:
        self._scheme = scheme
        self._script = script
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""
        self.peers: list[Peer] = []
        self.failures: list[Exception] = []

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._play(TcpPeer(reader, writer))
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _serve_websocket(self, connection: ServerConnection) -> None:
        await self._play(WebSocketPeer(connection))

    async def _play(self, peer: Peer) -> None:
        self.peers.append(peer)
        try:
            await self._script(peer)
        except (Gone, ConnectionError, websockets.ConnectionClosed):
            pass
        except Exception as error:  # noqa: BLE001 - the test fails with it
            self.failures.append(error)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Server"]:
        """Until the block ends."""
        if self._scheme == "ws":
            async with serve(self._serve_websocket, HOST, 0, close_timeout=1) as server:
                self._name(server)
                yield self
        else:
            server = await asyncio.start_server(self._serve_tcp, HOST, 0)
            self._name(server)
            try:
                yield self
            finally:
                server.close()
                for task in tuple(self._tasks):
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)
        assert self.failures == []

    def _name(self, server: Any) -> None:
        port = server.sockets[0].getsockname()[1]
        scheme = "tcp" if self._scheme == "tcp" else "ws"
        self.url = f"{scheme}://{HOST}:{port}/sub"


class Log:
    """All that a client tells, with the time of each."""

    def __init__(self, client: Client) -> None:
        self.events: list[tuple[str, Any]] = []
        self.times: list[float] = []
        for event in ("state", "open", "close", "error"):
            client.on(event, lambda value, event=event: self._note(event, value))

    def _note(self, event: str, value: Any) -> None:
        self.events.append((event, value))
        self.times.append(asyncio.get_running_loop().time())

    def of(self, event: str) -> list[Any]:
        """What was told of one event, but for the end by the user's own close."""
        return [value for name, value in self.events if name == event and value != CLOSED]

    def assert_not_hot(self, shortest: float) -> None:
        """Each attempt but the first came as late after the one before as was told."""
        ends = [n for n, (name, _) in enumerate(self.events) if name == "close"]
        starts = [n for n, event in enumerate(self.events) if event == ("state", "connecting")]
        for end, start in zip(ends, starts[1:], strict=False):
            delay = self.events[end][1].delay
            assert delay >= shortest
            assert self.times[start] - self.times[end] >= delay - 0.005  # the clock's grain
