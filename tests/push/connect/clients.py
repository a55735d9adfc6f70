"""Clients of the consumers: under an ASGI server's events, and with a socket of their own."""

import asyncio
import json
import socket
from typing import Any

from asgiref.testing import ApplicationCommunicator
from websockets.frames import Opcode
from websockets.protocol import CLIENT, Protocol

from imgo_site.asgi import application
from offline.models import Pending
from push.session.link_manager import LinkManager
from push.session.outgoing import Kind
from push.session.socket_link import DIRECT_LINK, SocketLink
from push.session.tcp_link import TcpLink
from push.session.websocket_link import WebSocketLink
from push.wire import Decoder, Frame, Op, encode_binary
from tests import eventually, in_thread
from tests.push.conftest import get_node
from tests.push.sessions import read

PATIENCE = 10  # seconds until an answer that has not come is a failure


NAMES = {"text": Kind.TEXT, "binary": Kind.BINARY, "tcp": Kind.TCP}


class Client:
    """One connection; `frames` are what it was sent, `closed` is how it was closed."""

    def __init__(self, name: str) -> None:
        self.kind = NAMES[name]
        self.is_tcp = self.kind is Kind.TCP
        self.is_text = self.kind is Kind.TEXT
        self.frames: list[Frame] = []
        self.closed: int | None = None
        self.reason = ""
        self.headers: list[tuple[bytes, bytes]] = []

    def scope(self, path: str) -> dict[str, Any]:
        if self.is_tcp:
            return {"type": "tcp", "client": ("192.0.2.1", 7)}
        scope = {"type": "websocket", "path": path, "headers": self.headers}
        scope["subprotocols"] = []
        return scope | {"client": ("192.0.2.1", 7)}

    async def connect(self, path: str = "/sub") -> bool:
        """Whether the server takes the connection."""
        raise NotImplementedError

    async def send_raw(self, data: str | bytes) -> None:
        """One message, or on TCP, some bytes."""
        raise NotImplementedError

    async def event(self) -> None:
        """Take what the server sends next; raises what the consumer ended with."""
        raise NotImplementedError

    async def leave(self) -> None:
        """Go, and wait until the server has let go."""
        raise NotImplementedError

    async def send(self, op: int, body: Any = b"", seq: int = 1) -> None:
        """A frame; for binary, anything but bytes is sent as JSON."""
        if self.kind is Kind.TEXT:
            value = body.decode() if isinstance(body, bytes) else body
            await self.send_raw(json.dumps({"ver": 1, "op": op, "seq": seq, "body": value}))
        else:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            await self.send_raw(encode_binary(op, seq, data))

    async def answer(self) -> Frame:
        """The next frame."""
        while self._seen == len(self.frames):
            assert self.closed is None, (self.closed, self.reason)
            await self.event()
        self._seen += 1
        return self.frames[self._seen - 1]

    _seen = 0

    async def until_closed(self) -> int:
        """The code that it is closed with: the close frame's, or that of op 6."""
        while self.closed is None:
            await self.event()
        if not self.is_tcp:
            return self.closed
        assert self.frames[-1].op == Op.DISCONNECT
        return json.loads(self.frames[-1].body)["code"]

    async def auth(self, token: str = "t", **more: Any) -> Frame:
        await self.send(Op.AUTH, {"token": token, **more} if more else token.encode(), 77)
        return await self.answer()


class AsgiClient(Client):
    """A WebSocket that stays in another ASGI server: the resident link."""

    async def connect(self, path: str = "/sub") -> bool:
        self._server = ApplicationCommunicator(application, self.scope(path))
        await self._server.send_input({"type": "websocket.connect"})
        answer = await self._server.receive_output(PATIENCE)
        return answer["type"] == "websocket.accept"

    async def send_raw(self, data: str | bytes) -> None:
        name = "text" if isinstance(data, str) else "bytes"
        await self._server.send_input({"type": "websocket.receive", name: data})

    async def event(self) -> None:
        sent = asyncio.ensure_future(self._server.output_queue.get())
        both = {sent, self._server.future}
        await asyncio.wait(both, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        if not sent.done():
            sent.cancel()
            self._server.future.result()
        event = sent.result()
        if event["type"].endswith(".close"):
            self.closed, self.reason = event.get("code", 0), event.get("reason", "")
        else:
            data = event["text"].encode() if event.get("text") is not None else event["bytes"]
            self.frames += read(self.kind, data)

    async def leave(self) -> None:
        if not self._server.future.done():
            await self._server.send_input({"type": "websocket.disconnect", "code": 1001})
            await self._server.wait(PATIENCE)


class SocketClient(Client):
    """A connection whose session owns its socket: the direct link."""

    def __init__(self, name: str, manager: LinkManager) -> None:
        super().__init__(name)
        self._manager = manager
        self._framing = Protocol(CLIENT)
        self._decoder = Decoder(10**6)

    async def connect(self, path: str = "/sub") -> bool:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        if self.is_tcp:
            self._link: SocketLink = TcpLink(self._manager, theirs)
        else:
            self._link = WebSocketLink(self._manager, theirs, b"HTTP/1.1 101 Welcome\r\n\r\n")
        scope = self.scope(path) | {DIRECT_LINK: self._link}
        serve = application(scope, self._link.receive, self._link.send)
        self._server = asyncio.create_task(serve)
        self._reader, self._writer = await asyncio.open_connection(sock=ours)
        if self.is_tcp:
            return True
        head = await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), PATIENCE)
        return head.split()[1] == b"101"

    async def send_raw(self, data: str | bytes) -> None:
        if self.is_tcp:
            assert isinstance(data, bytes)
            self._writer.write(data)
        elif isinstance(data, str):
            self._framing.send_text(data.encode())
        else:
            self._framing.send_binary(data)
        self._flush()

    def _flush(self) -> None:
        self._writer.write(b"".join(self._framing.data_to_send()))

    async def event(self) -> None:
        reading = asyncio.ensure_future(self._reader.read(65_536))
        wait_for = {reading} if self._server.done() else {reading, self._server}
        await asyncio.wait(wait_for, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        if self._server.done():
            self._server.result()
        data = await asyncio.wait_for(reading, PATIENCE)
        if self.is_tcp:
            self.frames += self._decoder.feed(data)
            if not data:
                self.closed = 0
            return
        self._framing.receive_data(data)
        for frame in self._framing.events_received():
            if frame.opcode in {Opcode.TEXT, Opcode.BINARY}:
                self.frames += read(self.kind, bytes(frame.data))
        self._flush()
        if (close := self._framing.close_rcvd) is not None:
            self.closed, self.reason = close.code, close.reason

    async def leave(self) -> None:
        self._writer.close()
        await asyncio.wait({self._server}, timeout=PATIENCE)
        await eventually(
            lambda: self._link._socket.fileno() == -1 and not self._manager.background.tasks
        )


async def pending() -> int:
    return await in_thread(Pending.objects.count)


async def nothing_is_pending() -> bool:
    return not await pending()


async def rooms() -> dict[str, int]:
    return await in_thread((await get_node()).registry.rooms)


def error_of(frame: Frame) -> str | None:
    return json.loads(frame.body or b"{}").get("error", {}).get("code")
