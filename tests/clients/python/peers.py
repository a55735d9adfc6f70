"""A server that does what a test says: the other end of each connection of a client."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

import websockets
from websockets.asyncio.server import ServerConnection, serve

from imgo_client import Client, Ending
from imgo_client.frames import Decoder, Frame, Op, encode_batch, encode_binary, value_of
from tests import eventually

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

    async def accept(self, **rooms: Any) -> "Peer":
        """Answer the auth frame, with what is told of these rooms."""
        frame = await self.receive()
        assert frame.op == Op.AUTH
        self.auth = frame.body
        await self.send(Frame(Op.AUTH_REPLY, frame.seq, {"rooms": rooms} if rooms else {}))
        return self

    async def expect(self, op: int, body: Any = None) -> Any:
        """Answer the next request, which has this op, with `body`; return its own."""
        frame = await self.receive()
        assert frame.op == op, f"instead of op {op}: {frame}"
        await self.send(Frame(op + 1, frame.seq, {} if body is None else body))
        return frame.body

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

    async def push_to(self, room: str, *offsets: int) -> None:
        """Messages of a room whose bodies are their offsets, together."""
        await self.send(*(of_room(room, offset) for offset in offsets))

    # What a transport does

    async def read(self) -> list[Frame]:
        """The frames that come next. Raises `Gone`."""
        raise NotImplementedError

    async def send(self, *frames: Frame) -> None:
        """Send these frames in one write."""
        raise NotImplementedError

    async def raw(self, data: str | bytes) -> None:
        """Send these bytes or this text, which need not be a frame."""
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


def of_room(room: str, offset: int, body: Any = None) -> Frame:
    """A message of a room, whose body is its offset unless one is given."""
    body = offset if body is None else body
    return Frame(Op.MESSAGE, 0, body, 2, 100 + offset, room, offset)


def members_of(frame: Frame) -> dict[str, Any]:
    """The JSON object of a frame."""
    return (
        {"ver": frame.ver, "op": int(frame.op), "seq": frame.seq, "body": frame.body}
        | ({"id": str(frame.id)} if frame.id else {})
        | ({"room": frame.room} if frame.room else {})
        | ({"offset": frame.offset} if frame.offset else {})
        | ({"from": frame.sender} if frame.sender else {})
    )


class WebSocketPeer(Peer):
    """Peer of a client over WebSocket, with text messages."""

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
        await self.raw(json.dumps(list(map(members_of, frames))))

    async def raw(self, data: str | bytes) -> None:
        await self.connection.send(data)

    async def hang_up(self, code: int, reason: str) -> None:
        await self.connection.close(code, reason)


class TcpPeer(Peer):
    """Peer of a client over TCP, with binary frames."""

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


REFUSALS = {4011: "error", 4013: "unavailable", 4401: "not_authenticated", 4506: "room_forbidden"}


class EventsPeer(Peer):
    """A stream of events, and the requests beside it. `session`: its name in their paths.

    `refused_posts`: statuses for the next requests, instead of 202. `lost`: so many requests are
    answered and then lost. `last_id`: what the client has sent.
    """

    def __init__(self, writer: asyncio.StreamWriter, session: str, auth: Any, last_id: str) -> None:
        super().__init__()
        self.writer, self.session, self.last_id = writer, session, last_id
        self.refused_posts: list[int] = []
        self.lost = 0
        self.has_begun = self.is_open = False
        self._posted: asyncio.Queue[Frame | None] = asyncio.Queue()
        self._posted.put_nowait(Frame(Op.AUTH, 1, auth))

    def posted(self, content: bytes) -> int:
        """Take a request; return the status of the answer."""
        if self.refused_posts:
            return self.refused_posts.pop(0)
        members = json.loads(content)
        if self.lost:
            self.lost -= 1
        else:
            self._posted.put_nowait(Frame(members["op"], members["seq"], members["body"]))
        return 202

    def client_has_gone(self) -> None:
        """Make `read` raise `Gone`."""
        self._posted.put_nowait(None)

    async def read(self) -> list[Frame]:
        frame = await self._posted.get()
        if frame is None:
            self._posted.put_nowait(None)
            raise Gone
        return [frame]

    async def send(self, *frames: Frame) -> None:
        await self.raw("".join(map(self._event, frames)))

    def _event(self, frame: Frame) -> str:
        if frame.op == Op.AUTH_REPLY and not self.is_open:
            self.is_open = True
            data = {"session": self.session, "rooms": {}, **frame.body}
            return f"retry: 1000\nevent: open\ndata: {json.dumps(data)}\n\n"
        is_message = frame.op == Op.MESSAGE and not frame.seq
        name = "" if is_message else "event: imgo\n"
        return f"{name}data: {json.dumps(members_of(frame))}\n\n"

    async def raw(self, data: str | bytes) -> None:
        if not self.has_begun:
            self.has_begun = True
            self.writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
            )
        self.writer.write(data.encode() if isinstance(data, str) else data)
        await self.writer.drain()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        if self.has_begun or code not in REFUSALS:
            await super().close(code, reason)
            return
        problem = json.dumps({"code": REFUSALS[code], "detail": reason, "status": 400})
        self.writer.write(response(400, problem, "application/problem+json"))
        self.writer.close()

    async def hang_up(self, code: int, reason: str) -> None:
        self.writer.close()


def response(status: int, content: str = "", kind: str = "text/plain") -> bytes:
    """A whole HTTP response."""
    head = f"HTTP/1.1 {status} -\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n\r\n"
    return (head + content).encode()


async def request(reader: asyncio.StreamReader) -> tuple[str, str, dict[str, str], bytes]:
    """Method, target, headers and body of the next HTTP request. Raises `Gone`."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    except (asyncio.IncompleteReadError, ConnectionError):
        raise Gone from None
    method, target, _ = first.split(" ")
    return method, target, headers, body


def auth_of(query: str, headers: dict[str, str]) -> dict[str, Any]:
    """What a request for events says, as an auth body."""
    fields = parse_qs(query)
    said: dict[str, Any] = {name: values[0] for name, values in fields.items()}
    if "authorization" in headers:
        said["token"] = headers["authorization"].removeprefix("Bearer ")
    if "ack" in said:
        said["ack"] = said["ack"] == "1"
    if "rooms" in fields:
        said["rooms"] = fields["rooms"]
    return said


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

    async def _serve_http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while True:
                method, target, headers, body = await request(reader)
                path, _, query = target.partition("?")
                if method == "GET":
                    await self._stream(reader, writer, auth_of(query, headers), headers)
                    return
                writer.write(response(self._post(path, body)))
        except Gone:
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _stream(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        auth: Any,
        headers: dict[str, str],
    ) -> None:
        session = f"session-{len(self.peers)}"
        peer = EventsPeer(writer, session, auth, headers.get("last-event-id", ""))
        playing = asyncio.ensure_future(self._play(peer))
        ending = asyncio.ensure_future(reader.read())
        ending.add_done_callback(lambda _: peer.client_has_gone())
        try:
            await playing
            await writer.drain()
            writer.close()
        except ConnectionError:
            pass
        finally:
            for one in (playing, ending):
                one.cancel()
            await asyncio.gather(playing, ending, return_exceptions=True)

    def _post(self, path: str, body: bytes) -> int:
        for peer in self.peers:
            if isinstance(peer, EventsPeer) and path.endswith(f"/{peer.session}"):
                return peer.posted(body)
        return 404

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
            serve_one = self._serve_http if self._scheme == "http" else self._serve_tcp
            server = await asyncio.start_server(serve_one, HOST, 0)
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
        self.url = f"{self._scheme}://{HOST}:{port}/sub"


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


async def quiet(peer: Peer) -> None:
    """Accept, and read until the client goes."""
    await peer.accept()
    await peer.until_gone()


async def take_messages(source: AsyncIterable[Any], count: int) -> list[Any]:
    """Return the next messages of a client or a room; each is acknowledged."""
    messages = []
    async for message in source:
        messages.append(message)
        message.ack()
        if len(messages) == count:
            break
    return messages


async def take(client: Client, count: int) -> list[int]:
    """Return the ids of the next messages; each is acknowledged."""
    return [message.id for message in await take_messages(client, count)]


async def until_no_more(sent: Callable[[], int]) -> None:
    """Wait until a server has sent something and can send no more, as the client reads nothing."""
    before = await eventually(sent) and -1
    while sent() != before:
        before = sent()
        for _ in range(50):
            await asyncio.to_thread(int)  # a round of the loop that takes a moment
