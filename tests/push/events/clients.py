"""Clients of a stream of events, over a socket of its own and under another ASGI server."""

import asyncio
import socket
from typing import Any

from asgiref.testing import ApplicationCommunicator

from imgo_site.asgi import application
from push.session.event_link import EventLink
from push.session.link_manager import LinkManager
from push.session.socket_link import DIRECT_LINK
from tests import PATIENCE, eventually
from tests.push.sessions import Event, events

PATH = "/sub/events"


class StreamClient:
    """One GET. `status`, `headers`: of the answer; `body`: what came of it, not yet read."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.has_ended = False
        self.last_id = ""
        self.session = ""
        self.rooms: dict[str, Any] = {}

    def scope(self, query: str, headers: dict[str, str]) -> dict[str, Any]:
        return {
            "type": "http",
            "method": "GET",
            "path": PATH,
            "query_string": query.encode(),
            "headers": [
                (name.encode(), value.encode())
                for name, value in {"host": "localhost", **headers}.items()
            ],
            "client": ("192.0.2.1", 7),
            "scheme": "http",
        }

    async def open(self, query: str, **headers: str) -> int:
        """Send the request; return the status."""
        raise NotImplementedError

    async def more(self) -> None:
        """Take what the server sends next."""
        raise NotImplementedError

    async def leave(self) -> None:
        """Go, and wait until the server has let go."""
        raise NotImplementedError

    async def block(self) -> Event:
        """The next block that is no comment."""
        while True:
            while b"\n\n" not in self.body:
                assert not self.has_ended, "the stream has ended"
                await self.more()
            block, _, self.body = self.body.partition(b"\n\n")
            for event in events(block + b"\n\n"):
                if event.id is not None:
                    self.last_id = event.id
                return event

    async def event(self) -> Any:
        """The value of the next event; blocks without data are remembered, as browsers do."""
        while not (event := await self.block()).data:
            pass
        return event.value

    async def opened(self) -> dict[str, Any]:
        """The data of the first event."""
        first = await self.block()
        assert (first.event, first.id) == ("open", None)
        assert 1_000 <= int(first.retry) <= 5_000
        self.session, self.rooms = first.value["session"], first.value["rooms"]
        return first.value

    async def until_id(self, start: str, end: str = "") -> None:
        """Wait for a block with an id that starts and ends so."""
        while not (self.last_id.startswith(start) and self.last_id.endswith(end)):
            assert not (await self.block()).data

    async def until_ended(self) -> dict[str, Any]:
        """The body of op 6, behind which the stream ends."""
        frame = await self.event()
        assert frame["op"] == 6
        while not self.has_ended:
            await self.more()
        assert self.body == b""
        return frame["body"]

    async def answer(self) -> bytes:
        """Return the whole body, when the response has ended."""
        while not self.has_ended:
            await self.more()
        return self.body


class AsgiStream(StreamClient):
    """A stream that stays in another ASGI server."""

    async def open(self, query: str, **headers: str) -> int:
        self._server = ApplicationCommunicator(application, self.scope(query, headers))
        await self._server.send_input({"type": "http.request", "body": b""})
        start = await self._server.receive_output(PATIENCE)
        self.status = start["status"]
        self.headers = {k.decode(): v.decode() for k, v in start["headers"]}
        return self.status

    async def more(self) -> None:
        message = await self._server.receive_output(PATIENCE)
        self.body += message.get("body", b"")
        self.has_ended = not message.get("more_body")

    async def leave(self) -> None:
        if hasattr(self, "_server") and not self._server.future.done():
            await self._server.send_input({"type": "http.disconnect"})
            await self._server.wait(PATIENCE)


class SocketStream(StreamClient):
    """A stream whose session owns its socket."""

    def __init__(self, manager: LinkManager) -> None:
        super().__init__()
        self._manager = manager

    async def open(self, query: str, **headers: str) -> int:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        self._link = EventLink(self._manager, theirs)
        scope = self.scope(query, headers) | {DIRECT_LINK: self._link}
        self._server = asyncio.create_task(application(scope, self._link.receive, self._link.send))
        self._reader, self._writer = await asyncio.open_connection(sock=ours)
        head = await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), PATIENCE)
        first, *lines = head.decode().removesuffix("\r\n\r\n").split("\r\n")
        self.headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
        self.status = int(first.split()[1])
        return self.status

    async def more(self) -> None:
        data = await asyncio.wait_for(self._reader.read(65_536), PATIENCE)
        self.body += data
        self.has_ended = not data

    async def leave(self) -> None:
        if not hasattr(self, "_writer"):
            return
        self._writer.close()
        await asyncio.wait({self._server}, timeout=PATIENCE)
        await eventually(lambda: self._link.fileno() == -1 and not self._manager.background.tasks)
