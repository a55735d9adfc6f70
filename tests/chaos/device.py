"""A device of a load: one client of a key, which comes back by itself to any node that is up."""

import asyncio
import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any

import websockets

from tests.e2e.clients import Closed, open_client
from tests.e2e.event_client import EventsClient
from tests.e2e.frames import AUTH, AUTH_REPLY, DISCONNECT, HEARTBEAT, MESSAGE, Frame
from tests.e2e.harness import Node

from .history import History, Session

if TYPE_CHECKING:
    from .load import Load

EVENTS = "events"  # the transport that is no door of `open_client`
BACK_OFF = (0.2, 1.0)  # seconds until a device tries to come back
OPEN_TIMEOUT = 10.0  # seconds for connect and auth
HEARTBEAT_EVERY = 30.0  # seconds without a message
ACKS_MAX = 40  # ids in one acknowledgement: 19 digits each fit into MAX_CLIENT_BODY
# How a connection ends, or cannot be made: the peer, the network, a handshake cut off.
LOST = (OSError, Closed, TimeoutError, asyncio.IncompleteReadError, websockets.WebSocketException)


@dataclass(eq=False)
class Gap:
    """A time that a device was away, and why: a close code, or none when there was no goodbye.

    `tries`: its vain ones to come back, told for people.
    """

    device: str
    node: Node
    code: int | None
    closed: float
    back: float = inf
    tries: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """How long it was away."""
        return self.back - self.closed


class Device:
    """One client of a key; it comes back to any node that is up.

    It asks no node twice in a row that has refused it, as a proxy in front of nodes would not.
    """

    def __init__(self, load: "Load", name: str, key: str, transport: str, *, acks: bool) -> None:
        self.name = name
        self.key = key
        self.transport = transport
        self.acks = acks
        self.room = ""  # one that acknowledges is in the room of those who push to its key
        self.node: Node | None = None
        self.session: Session | None = None
        self._in_room: Session | None = None
        self._unacknowledged: list[Frame] = []
        self.gaps: list[Gap] = []
        self.refusals: Counter[str] = Counter()
        self._refused_by: Node | None = None
        self._load = load
        self._random = random.Random(load.random.random())

    async def run(self) -> None:
        """Have session after session, until cancelled."""
        while True:
            node, start = self._choose_node(), self._load.history.clock()
            try:
                client = await self._open(node)
            except LOST as error:
                self._refused(node, start, error)
            else:
                self._refused_by = None
                code = await self._stay(client)
                self._ended(code)
            await asyncio.sleep(self._random.uniform(*BACK_OFF))

    @property
    def _history(self) -> History:
        return self._load.history

    @property
    def is_there(self) -> bool:
        """Whether it has a session."""
        return self.session is not None

    def _choose_node(self) -> Node:
        up = self._load.nodes_up()
        others = [node for node in up if node is not self._refused_by]
        return self._random.choice(others or up or self._load.cluster.nodes)

    def _refused(self, node: Node, start: float, error: BaseException) -> None:
        what = f"{type(error).__name__} {getattr(error, 'code', '')}"
        self.refusals[what] += 1
        self._refused_by = node
        if self.gaps:
            gap = self.gaps[-1]
            gap.tries.append(f"{start - gap.closed:.1f} s: {node.name} {what.strip()}")

    async def _open(self, node: Node) -> Any:
        """A client with a session. Raises what is in `LOST`."""
        async with asyncio.timeout(OPEN_TIMEOUT):
            if self.transport == EVENTS:
                client: Any = await EventsClient.open(node)
            else:
                client = await open_client(node, self.transport)
            try:
                await self._authenticate(client)
            except BaseException:
                client.abort()
                raise
        self.session, self.node = self._history.opened(self.name, self.key), node
        self._in_room = self._load.rooms.opened(self.name, self.room)
        if self.gaps and self.gaps[-1].back == inf:
            self.gaps[-1].back = self.session.opened
        return client

    async def _authenticate(self, client: Any) -> None:
        token = self._load.tokens[self.key]
        more = {"token": token, "ack": True, "rooms": [self.room]}
        await client.send(AUTH, more if self.acks else token)
        reply = await client.receive()
        if reply.op == DISCONNECT:
            raise Closed(reply.value["code"], reply.value["reason"])
        assert reply.op == AUTH_REPLY, f"instead of an auth reply: {reply}"

    async def _stay(self, client: Any) -> int | None:
        """Receive until the connection ends; returns the close code, if one was said."""
        code = None
        try:
            while True:
                try:
                    frame = await client.receive(HEARTBEAT_EVERY)
                except TimeoutError:
                    with suppress(Closed):  # what has been sent before can still be read
                        await client.send(HEARTBEAT)
                    continue
                if frame.op == DISCONNECT:
                    code = frame.value["code"]
                else:
                    await self._take(client, frame)
                if not client.has_frames or len(self._unacknowledged) == ACKS_MAX:
                    await self._acknowledge(client)
        except LOST as error:
            return code or getattr(error, "code", None)
        finally:
            self._unacknowledged.clear()
            client.abort()

    async def _take(self, client: Any, frame: Frame) -> None:
        """Take a frame that does not end the session."""
        if frame.op == MESSAGE:
            self._received(frame.body.decode(), frame.id)
            if self.acks:
                assert frame.id, f"no id in a session that acknowledges: {frame}"
                self._unacknowledged.append(frame)

    async def _acknowledge(self, client: Any) -> None:
        """Acknowledge what has come together in one frame, as the clients do.

        Over Server-Sent Events each acknowledgement is a request that the device waits for. With
        one for each message, its receipts would tell how long its own requests take.
        """
        if frames := self._unacknowledged:
            self._unacknowledged = []
            with suppress(Closed):
                await client.ack(*frames)

    def _received(self, body: str, message_id: int) -> None:
        assert self.session is not None
        assert self._in_room is not None
        if body in self._load.rooms.pushes:
            self._load.rooms.received(self._in_room, body, message_id)
        else:
            self._history.received(self.session, body, message_id)

    def _ended(self, code: int | None) -> None:
        assert self.session is not None
        assert self._in_room is not None
        assert self.node is not None
        self._history.closed(self.session)
        self._load.rooms.closed(self._in_room)
        self.gaps.append(Gap(self.name, self.node, code, self.session.closed))
        self.session = self.node = None
