"""Our own client of Server-Sent Events, behind the interface of the other clients.

Its first frame is the request for the stream. It sends other frames by POST, each on a connection
of its own, and repeats one that the server does not take for now.
"""

import asyncio
import json
from typing import Any, Self
from urllib.parse import urlencode

from .clients import Body, Client, Closed, send_reset
from .frames import AUTH, AUTH_REPLY, Frame
from .harness import HOST, Node

PATH = "/sub/events"
ATTEMPTS = 5  # of a POST
PAUSE = 0.2  # seconds between two of them
ANSWER_MAX = 5.0  # seconds for an answer to a POST


class EventsClient(Client):
    """A client whose stream begins with the auth frame.

    `last_id`: that of the last event; set before the auth, it resumes that session.
    """

    transport = "events"

    def __init__(self, node: Node) -> None:
        super().__init__()
        self._node = node
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._data = b""
        self._session = ""
        self._token = ""
        self._seq_of_auth = 0
        self.last_id = ""

    @classmethod
    async def open(cls, node: Node) -> Self:
        """A client that connects with its first frame."""
        return cls(node)

    def _encode(self, op: int, body: Body, seq: int) -> dict[str, Any]:
        content = json.loads(body or b"{}") if isinstance(body, bytes) else body
        return {"ver": 1, "op": op, "seq": seq, "body": content}

    async def send_raw(self, data: dict[str, Any]) -> None:
        if data["op"] == AUTH:
            self._seq_of_auth = data["seq"]
            await self._get(data["body"])
            return
        content = json.dumps(data).encode()
        for _ in range(ATTEMPTS):
            status = await self._post(content)
            if status == 202:
                return
            if status in (401, 404):
                raise Closed(None, f"a POST was answered with {status}")
            assert status in (0, 429, 503), f"a POST was answered with {status}"
            await asyncio.sleep(PAUSE)

    def _head(self, method: str, target: str, **headers: Any) -> bytes:
        headers = {"Host": HOST, "Authorization": f"Bearer {self._token}"} | headers
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        return f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode()

    async def _get(self, body: Any) -> None:
        members = body if isinstance(body, dict) else {"token": body}
        self._token = members["token"]
        fields = [("rooms", room) for room in members.get("rooms", ()) if room]
        fields += [("ack", "1")] if members.get("ack") else []
        fields += [("device", members["device"])] if members.get("device") else []
        headers = {"Last_Event_ID": self.last_id} if self.last_id else {}
        self._reader, self._writer = await asyncio.open_connection(HOST, self._node.http_port)
        self._writer.write(self._head("GET", f"{PATH}?{urlencode(fields)}", **headers))
        try:
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        except (ConnectionError, asyncio.IncompleteReadError):
            raise Closed from None
        status = int(head.split()[1])
        if status != 200:
            raise Closed(None, f"the request was answered with {status}")

    async def _post(self, content: bytes) -> int:
        """The status of the answer; 0 for none."""
        head = self._head(
            "POST",
            f"{PATH}/{self._session}",
            Content_Length=len(content),
            Content_Type="application/json",
            Connection="close",
        )
        try:
            async with asyncio.timeout(ANSWER_MAX):
                reader, writer = await asyncio.open_connection(HOST, self._node.http_port)
                try:
                    writer.write(head + content)
                    line = await reader.readline()
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return 0
        return int(line.split()[1]) if line else 0

    async def _read(self) -> list[Frame]:
        assert self._reader is not None
        frames: list[Frame] = []
        while not frames:
            while b"\n\n" not in self._data:
                try:
                    data = await self._reader.read(2**16)
                except ConnectionError:
                    raise Closed from None
                if not data:
                    raise Closed
                self._data += data
            *blocks, self._data = self._data.split(b"\n\n")
            frames = [frame for block in blocks if (frame := self._frame(block)) is not None]
        return frames

    def _frame(self, block: bytes) -> Frame | None:
        fields = dict(
            line.split(": ", 1) for line in block.decode().split("\n") if not line.startswith(":")
        )
        self.last_id = fields.get("id", self.last_id)
        if "data" not in fields:
            return None
        value = json.loads(fields["data"])
        if fields.get("event") == "open":
            self._session = value["session"]
            reply = json.dumps({"rooms": value["rooms"]}).encode()
            return Frame(1, AUTH_REPLY, self._seq_of_auth, reply)
        body = json.dumps(value["body"], separators=(",", ":")).encode()
        place = value.get("room", ""), value.get("offset", 0)
        return Frame(value["ver"], value["op"], value["seq"], body, int(value.get("id", 0)), *place)

    async def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def abort(self) -> None:
        if self._writer is not None and not self._writer.transport.is_closing():
            send_reset(self._writer.get_extra_info("socket"))
            self._writer.transport.abort()
