"""The consumers under an ASGI server's events: WebSocket in text and binary, and raw TCP.

What real sockets, clients and servers make of it is in tests/e2e.
"""

import asyncio
import contextlib
import json
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator
from django.db import OperationalError
from websockets.frames import Opcode
from websockets.protocol import CLIENT, Protocol

from accounts.models import Token
from imgo_site.asgi import application
from imgo_site.errors import BadRequest
from offline.models import Pending
from push.accept.accept import Push, accept_push
from push.registry.redis_registry import RedisRegistry
from push.routing import WebSocketRouter
from push.session.link_manager import LinkManager
from push.session.outgoing import Kind
from push.session.socket_link import DIRECT_LINK, Gone, SocketLink
from push.session.tcp_link import TcpLink
from push.session.websocket_link import WebSocketLink
from push.wire import CloseCode, Decoder, Frame, Op, encode_binary
from tests import eventually, in_thread
from tests.push.conftest import get_node, push_now, stop_node
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


@pytest.fixture(params=NAMES)
def name(request) -> str:
    return request.param


# Every mode can have either link: two of the four, and the rest is left to tests/e2e.
LINKS = [("embedded", "resident"), ("production", "direct")]


@pytest.fixture(params=LINKS, ids=" ".join)
def way(request, mode_of) -> str:
    """How sessions are served, in one of the two modes."""
    mode, link = request.param
    mode_of(mode)
    return link


@pytest.fixture
async def make_client(way) -> AsyncIterator[Callable[[str], Client]]:
    """Makes clients that are served one way."""
    manager = LinkManager(asyncio.get_running_loop())

    def make(name: str) -> Client:
        # Raw TCP is our own server's in any case.
        return (
            AsgiClient(name) if way == "resident" and name != "tcp" else SocketClient(name, manager)
        )

    yield make
    manager.close()


@pytest.fixture
async def connect(transactional_db, make_client) -> AsyncIterator[Callable]:
    """Connects clients; u1's token is t, and u2's is t2."""
    await in_thread(Token.objects.issue, "u1", token="t")
    await in_thread(Token.objects.issue, "u2", token="t2")
    async with AsyncExitStack() as stack:
        stack.push_async_callback(stop_node)

        async def make(name: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> Client:
            client = make_client(name)
            client.headers = list(headers)
            assert await client.connect()
            stack.push_async_callback(client.leave)
            return client

        yield make


@pytest.fixture
async def client(connect, name) -> Client:
    """A session of u1 that acknowledges."""
    found = await connect(name)
    assert (await found.auth(ack=True)).op == Op.AUTH_REPLY
    return found


# Connecting


@pytest.mark.parametrize(
    ("path", "accepted"), [("/sub", True), ("/sub/", True), ("/", False), ("/subs", False)]
)
async def test_the_one_path(make_client, path, accepted):
    client = make_client("text")
    assert await client.connect(path) is accepted
    await client.leave()


async def test_a_session_begins_with_auth(connect, name):
    client = await connect(name)
    reply = await client.auth()
    assert (reply.ver, reply.op, reply.seq) == (1, Op.AUTH_REPLY, 77)
    node = await get_node()
    (entry,) = await in_thread(node.registry.sessions, "u1")
    assert (entry.transport, entry.address) == (client.kind.transport, "192.0.2.1")


@pytest.mark.parametrize(
    ("proxies", "address"),
    [([], "192.0.2.1"), (["192.0.2.1"], "10.0.0.8"), (["192.0.2.0/24", "10.0.0.8"], "203.0.113.9")],
)
async def test_a_session_behind_a_proxy_has_its_clients_address(
    connect, imgo, proxies, address, monkeypatch
):
    failed: list[str] = []
    monkeypatch.setattr(application.instance.guard, "failed", failed.append)
    imgo(TRUSTED_PROXIES=proxies)
    # A header may come in several parts.
    parts = (b"127.0.0.1, 203.0.113.9", b"10.0.0.8")
    headers = [(b"X-Forwarded-For", part) for part in parts]
    await (await connect("text", headers)).auth()
    node = await get_node()
    (entry,) = await in_thread(node.registry.sessions, "u1")
    assert entry.address == address
    guesser = await connect("text", headers)
    await guesser.send(Op.AUTH, b"wrong")
    assert await guesser.until_closed() == CloseCode.UNAUTHORIZED
    assert failed == [address]


async def test_the_vector_of_the_protocol_page(connect):
    client = await connect("tcp")
    await in_thread(Token.objects.issue, "u3", token="abc")
    vector = "00000013 0010 0001 00000007 00000001 616263"
    for byte in bytes.fromhex(vector):
        await client.send_raw(bytes([byte]))
    assert await client.answer() == Frame(1, Op.AUTH_REPLY, 1)


async def test_the_kind_of_the_first_message_is_that_of_all_answers(connect):
    for name in ("text", "binary"):
        client = await connect(name)
        await client.auth()
        other = "binary" if name == "text" else "text"
        kind, client.kind = client.kind, NAMES[other]
        await client.send(Op.HEARTBEAT, b"", 5)
        client.kind = kind
        assert (await client.answer()).op == Op.HEARTBEAT_REPLY


async def test_op_0_may_come_before_auth(connect, name):
    client = await connect(name)
    await client.send(Op.HANDSHAKE, b"", 5)
    reply = await client.answer()
    assert (reply.op, reply.seq) == (Op.HANDSHAKE_REPLY, 5)
    assert (await client.auth()).op == Op.AUTH_REPLY


async def test_anything_else_before_auth_closes(connect, name):
    client = await connect(name)
    await client.send(Op.HEARTBEAT)
    assert await client.until_closed() == CloseCode.NOT_AUTHENTICATED


async def test_a_wrong_token_closes_with_a_code_and_a_reason(connect, name):
    client = await connect(name)
    await client.send(Op.AUTH, b"wrong")
    assert await client.until_closed() == CloseCode.UNAUTHORIZED
    if name != "text":
        body = json.loads(client.frames[-1].body)
        assert body["reconnect"] is True
        assert "not valid" in body["reason"]
    if name != "tcp":
        assert "not valid" in client.reason


async def test_handshake_whose_look_up_is_silent_is_closed_in_time(
    connect, name, imgo, monkeypatch
):
    """Whatever the look-up does when it is cancelled."""
    imgo(HANDSHAKE_TIMEOUT=0.5, AUTHENTICATOR="tests.push.connect.test_consumers.silent")
    client = await connect(name)
    await client.send(Op.AUTH, b"u1")
    assert await client.until_closed() == CloseCode.UNAVAILABLE
    assert Op.AUTH_REPLY not in [frame.op for frame in client.frames]


async def silent(body, facts) -> None:
    """An AUTHENTICATOR whose database does not answer, and that ignores its cancellation."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(3600)
    await asyncio.sleep(0.2)
    raise OperationalError("silent")


async def test_who_says_nothing_is_closed(connect, name, imgo):
    imgo(HANDSHAKE_TIMEOUT=0.05)
    client = await connect(name)
    assert await client.until_closed() == CloseCode.HANDSHAKE_TIMEOUT


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("tcp", b"GET / HTTP/1.1\r\n\r\n", CloseCode.FRAME_TOO_LARGE),
        ("tcp", b"\xff" * 16, CloseCode.BAD_FRAME),
        ("binary", b"\0", CloseCode.BAD_FRAME),
        ("binary", b"", CloseCode.BAD_FRAME),
        ("text", "not json", CloseCode.BAD_FRAME),
        ("text", "[" * 5000, CloseCode.BAD_FRAME),
        ("text", '{"op": "7"}', CloseCode.BAD_FRAME),
    ],
    ids=lambda value: repr(value)[:20],
)
async def test_what_is_no_frame_closes(connect, name, data, code, caplog):
    for is_authenticated in (False, True):
        client = await connect(name)
        if is_authenticated:
            await client.auth()
        await client.send_raw(data)
        assert await client.until_closed() == code
    assert caplog.text == ""


async def test_a_frame_with_another_token_may_be_long(connect, name):
    client = await connect(name)
    await client.auth()
    await client.send(Op.AUTH, {"token": "t", "more": "x" * 8_000}, 5)
    reply = await client.answer()
    assert (reply.op, reply.seq, b"error" in reply.body) == (Op.AUTH_REPLY, 5, False)


@pytest.mark.parametrize("kind", ["text", "binary", "tcp"])
async def test_no_other_frame_may_be_long(connect, kind):
    rooms = [f"room-{n:03}" for n in range(100)]
    client = await connect(kind)
    assert (await client.auth(rooms=rooms)).op == Op.AUTH_REPLY
    text = json.dumps({"op": Op.JOIN, "body": "x" * 11_000})
    data = encode_binary(Op.JOIN, 1, b"x" * 2_000)
    await client.send_raw(text if kind == "text" else data)
    assert await client.until_closed() == CloseCode.FRAME_TOO_LARGE


async def test_the_good_frames_before_a_bad_one_count(connect):
    client = await connect("tcp")
    good = encode_binary(Op.AUTH, 77, b"t") + encode_binary(Op.HEARTBEAT, 78)
    await client.send_raw(good + b"\xff" * 16 + encode_binary(Op.HEARTBEAT, 79))
    assert await client.until_closed() == CloseCode.BAD_FRAME
    assert [frame.op for frame in client.frames] == [
        Op.AUTH_REPLY,
        Op.HEARTBEAT_REPLY,
        Op.DISCONNECT,
    ]


async def test_without_the_database_the_first_client_may_come_back(
    database_down, make_client, name
):
    client = make_client(name)
    await client.connect()
    try:
        await client.send(Op.AUTH, b"t")
        assert await client.until_closed() == CloseCode.UNAVAILABLE
    finally:
        await client.leave()
        await stop_node()


async def test_without_the_registry_the_first_client_may_come_back(
    transactional_db, make_client, name, closed_port, monkeypatch
):
    registry = RedisRegistry(f"redis://127.0.0.1:{closed_port}/0")
    monkeypatch.setattr("push.node.node.open_registry", lambda: registry)
    client = make_client(name)
    await client.connect()
    try:
        await client.send(Op.AUTH, b"t")
        assert await client.until_closed() == CloseCode.UNAVAILABLE
    finally:
        await client.leave()
        await registry._client.aclose()
        await stop_node()


# Frames


async def test_several_frames_at_once_are_answered_in_order(connect):
    for name in ("tcp", "binary"):
        client = await connect(name)
        frames = [encode_binary(Op.AUTH, 1, b"t")]
        frames += [encode_binary(Op.HEARTBEAT, seq) for seq in (2, 3)]
        await client.send_raw(b"".join(frames))
        assert [(await client.answer()).seq for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("op", "body", "reply", "answer"),
    [
        (Op.HEARTBEAT, b"", Op.HEARTBEAT_REPLY, b""),
        (Op.HEARTBEAT, b"t", Op.HEARTBEAT_REPLY, b""),
        (Op.HANDSHAKE, b"", Op.HANDSHAKE_REPLY, b""),
        (Op.TEST, b"", Op.TEST_REPLY, b'{"test":"come on"}'),
        (Op.SEND, b"anything", Op.MESSAGE, b"{}"),
    ],
)
async def test_an_op_is_answered(client, op, body, reply, answer):
    await client.send(op, body, 42)
    frame = await client.answer()
    assert (frame.ver, frame.op, frame.seq) == (1, reply, 42)
    if client.kind is Kind.TEXT:
        assert json.loads(frame.body) == json.loads(answer or b"{}")
    else:
        assert frame.body == answer


async def test_an_unknown_op_closes(connect, name):
    for op in (8, 9, 10, 11, 13, 23, 253, -1, 2**31 - 1):
        client = await connect(name)
        await client.auth(ack=True)
        await client.send(op)
        assert await client.until_closed() == CloseCode.UNKNOWN_OP, op
        assert [frame.op for frame in client.frames[1:]] == [Op.DISCONNECT], op


# Messages


async def test_messages_reach_the_sessions_that_they_are_for(connect, client, name):
    other = await connect(name)
    await other.auth("t2", ack=True)
    for_u1 = await in_thread(push_now, Push(b'{"n":1}', keys=("u1",)))
    for_all = await in_thread(push_now, Push(b'{"n":2}', to_all=True))
    first, second = await client.answer(), await client.answer()
    assert [(f.ver, f.op, f.id) for f in (first, second)] == [(2, 5, for_u1), (2, 5, for_all)]
    assert json.loads(first.body) == {"n": 1}
    assert (await other.answer()).id == for_all


async def pending() -> int:
    return await in_thread(Pending.objects.count)


async def nothing_is_pending() -> bool:
    return not await pending()


async def test_who_cannot_acknowledge_has_what_it_was_sent(connect, name, imgo):
    imgo(REPLAY_PAGE=2)
    for _ in range(5):
        await in_thread(accept_push, Push(b"1", keys=("u1",)))
    client = await connect(name)
    await client.auth()
    await in_thread(push_now, Push(b"2", keys=("u1",)))
    bodies = [(await client.answer()).body for _ in range(6)]
    assert bodies == [b"1"] * 5 + [b"2"]
    assert all((frame.ver, frame.id) == (1, 0) for frame in client.frames)
    await eventually(nothing_is_pending)


async def test_who_acknowledges_is_sent_it_until_then(connect, client, name):
    ids = [await in_thread(push_now, Push(b"1", keys=("u1",))) for _ in range(3)]
    assert [(await client.answer()).id for _ in range(3)] == ids
    assert await pending() == 3
    again = await connect(name)
    await again.auth(ack=True)
    assert [(await again.answer()).id for _ in range(3)] == ids
    await again.send(Op.ACK, [str(ids[0]), ids[1]])
    await eventually(_is_pending(1))
    await again.send(Op.ACK, [ids[2], ids[2], 10**15])
    await eventually(nothing_is_pending)


def _is_pending(count: int) -> Callable:
    async def check() -> bool:
        return await pending() == count

    return check


async def test_nobody_acknowledges_for_another(connect, client, name):
    one = await in_thread(push_now, Push(b"1", keys=("u1",)))
    other = await connect(name)
    await other.auth("t2", ack=True)
    await other.send(Op.ACK, [one])
    await other.send(Op.HEARTBEAT)
    await other.answer()
    await stop_node()  # writes what was acknowledged
    assert await pending() == 1


async def test_the_ids_of_rooms_cost_nothing_when_they_are_acknowledged(
    connect, client, monkeypatch
):
    one = await in_thread(push_now, Push(b"1", to_all=True))
    frame = await client.answer()
    assert frame.id == one
    node = await get_node()
    asked = []
    monkeypatch.setattr(node.acknowledger, "acknowledged", lambda *about: asked.append(about))
    await client.send(Op.ACK, [str(one), str(one + 1)])
    await client.send(Op.HEARTBEAT)
    await client.answer()
    assert [about[0] for about in asked] == [one + 1]


async def test_a_bad_acknowledgement_closes(connect, name):
    for body in ("x", {}, [0], [-1], [1.5], [True], ["x"], [2**63], [[1]], None):
        client = await connect(name)
        await client.auth(ack=True)
        await client.send(Op.ACK, body)
        assert await client.until_closed() == CloseCode.BAD_FRAME, body


# Rooms


async def test_acknowledgement_right_before_the_end_counts(connect, client, name):
    one = await in_thread(push_now, Push(b'{"n":1}', keys=("u1",)))
    assert (await client.answer()).id == one
    await client.send(Op.ACK, json.dumps([one]).encode() if not client.is_text else [one])
    await client.leave()
    await eventually(nothing_is_pending)


async def test_ids_that_nobody_was_sent_take_no_others_place(connect, client, name, monkeypatch):
    """Made-up ids of one key are dropped, while another's acknowledgement waits to be written."""
    monkeypatch.setattr("offline.node_io.BACKLOG_MAX", 5_000)
    node = await get_node()
    monkeypatch.setattr(node.acknowledger, "_waiting", deque(maxlen=5_000))
    other = await connect(name)
    await other.auth("t2", ack=True)
    one = await in_thread(push_now, Push(b'{"n":1}', keys=("u2",)))
    assert (await other.answer()).id == one
    (session,) = (one for one in node.hub.sessions.values() if one.key == "u1")
    (sender,) = (one for one in node.hub.sessions.values() if one.key == "u2")
    node.receipts.acknowledged(one, sender)
    for made_up in range(10**12, 10**12 + 20_000):
        node.receipts.acknowledged(made_up, session)
    assert node.acknowledger.waiting < 2_000
    await eventually(nothing_is_pending)


@pytest.mark.parametrize("body", [b"1000", b"\xff", b"[1,2", b"1000,1001", b""])
async def test_binary_message_of_a_text_session_gets_text_answers(connect, body):
    """The answers are JSON whatever the body of a binary frame was."""
    client = await connect("text")
    await client.auth()
    await client.send_raw(encode_binary(Op.SUB, 3, body))
    reply = await client.answer()
    assert (reply.op, reply.seq) == (Op.SUB_REPLY, 3)


async def test_text_message_of_a_binary_session_gets_binary_answers(connect):
    client = await connect("binary")
    await client.auth()
    await client.send_raw('{"op":14,"seq":3,"body":"1000,1001"}')
    reply = await client.answer()
    assert (reply.op, reply.seq, reply.body) == (Op.SUB_REPLY, 3, b'"1000,1001"')


@pytest.mark.parametrize("way", [("embedded", "resident")], indirect=True)
async def test_frames_are_handled_at_the_allowed_pace(connect, imgo):
    """What came too fast is answered later, and all of it. Our own sockets: test_sockets.py."""
    client = await connect("binary")
    await client.auth()
    imgo(MAX_FRAMES_PER_SECOND=5)
    start = asyncio.get_running_loop().time()
    for _ in range(3):
        await client.send_raw(b"".join(encode_binary(Op.HEARTBEAT, n) for n in range(4)))
    assert [(await client.answer()).seq for _ in range(12)] == list(range(4)) * 3
    assert asyncio.get_running_loop().time() - start > 0.5


async def test_refusal_of_a_path_ends_quietly_if_the_client_has_gone():
    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def send(event: dict[str, str]) -> None:
        raise Gone(event["type"])

    await WebSocketRouter(application)({"path": "/elsewhere", "headers": []}, receive, send)


async def rooms() -> dict[str, int]:
    return await in_thread((await get_node()).registry.rooms)


def error_of(frame: Frame) -> str | None:
    return json.loads(frame.body or b"{}").get("error", {}).get("code")


async def test_op_12_changes_the_room(client):
    for body, there in ((b"a", {"a": 1}), (b"b", {"b": 1}), (b"b", {"b": 1}), (b"", {})):
        await client.send(Op.CHANGE_ROOM, body, 9)
        reply = await client.answer()
        assert (reply.op, reply.seq, error_of(reply)) == (Op.CHANGE_ROOM_REPLY, 9, None)
        assert await rooms() == there


async def test_a_session_may_be_in_many_rooms(client):
    for op, body, there in (
        (Op.JOIN, b"a", {"a": 1}),
        (Op.JOIN, b"b", {"a": 1, "b": 1}),
        (Op.JOIN, b"a", {"a": 1, "b": 1}),
        (Op.LEAVE, b"a", {"b": 1}),
        (Op.LEAVE, b"never", {"b": 1}),
    ):
        await client.send(op, body, 9)
        reply = await client.answer()
        assert (reply.op, reply.seq, error_of(reply)) == (op + 1, 9, None)
        assert await rooms() == there
    await in_thread(push_now, Push(b"1", room="a"))
    one = await in_thread(push_now, Push(b"2", room="b"))
    assert (await client.answer()).id == one


@pytest.mark.parametrize("op", [Op.JOIN, Op.LEAVE])
async def test_a_bad_room_is_an_error_and_no_end(client, op):
    for body in (b"", b"[1]", b'"a\\u0000"', b"1.5", b"x" * 300):
        is_json = client.kind is Kind.TEXT and body not in {b"", b"x" * 300}
        await client.send(op, json.loads(body) if is_json else body)
        assert error_of(await client.answer()) == "bad_request", body
        assert await rooms() == {}


async def test_a_room_that_is_not_allowed(connect, name):
    await in_thread(Token.objects.issue, "u1", token="t", rooms=["mine.*"])
    client = await connect(name)
    await client.auth(rooms=["mine.1"])
    for op, body, code in (
        (Op.JOIN, b"yours", "room_forbidden"),
        (Op.CHANGE_ROOM, b"yours", "room_forbidden"),
        (Op.JOIN, b"mine.2", None),
    ):
        await client.send(op, body)
        assert error_of(await client.answer()) == code
    assert await rooms() == {"mine.1": 1, "mine.2": 1}


async def test_too_many_rooms(client, imgo):
    imgo(MAX_ROOMS_PER_SESSION=1)
    for body, code in ((b"a", None), (b"b", "bad_request"), (b"a", None)):
        await client.send(Op.JOIN, body)
        assert error_of(await client.answer()) == code


# A session that leaves is out of the room at once; an error would say that it is still in.
@pytest.mark.parametrize(
    ("op", "code"),
    [(Op.JOIN, "unavailable"), (Op.LEAVE, None), (Op.CHANGE_ROOM, "unavailable")],
)
async def test_a_registry_that_is_away_ends_no_session(client, op, code, closed_port, caplog):
    await client.send(Op.JOIN, b"a")
    await client.answer()
    membership = (await get_node()).membership
    away = RedisRegistry(f"redis://127.0.0.1:{closed_port}/0")
    away._node = membership.registry._node
    there, membership.registry = membership.registry, away
    try:
        await client.send(op, b"a" if op == Op.LEAVE else b"b")
        assert error_of(await client.answer()) == code
    finally:
        membership.registry = there
        await away._client.aclose()
    await client.send(Op.HEARTBEAT)
    assert (await client.answer()).op == Op.HEARTBEAT_REPLY
    assert not any(record.exc_info for record in caplog.records)


class Gate:
    """A hook that is waited for: `entered` says that it was called, `opened` lets it return."""

    def __init__(self) -> None:
        self.entered, self.opened = asyncio.Event(), asyncio.Event()

    async def wait(self) -> bool:
        self.entered.set()
        await asyncio.wait_for(self.opened.wait(), PATIENCE)
        return True


async def ask_gate(identity, room) -> bool:
    return await gate.wait()


async def receive_behind_gate(identity, op, body) -> None:
    await gate.wait()


gate = Gate()


@pytest.mark.parametrize(
    "case", [(Op.JOIN, "client"), (Op.CHANGE_ROOM, "server"), (Op.SEND, "server")]
)
async def test_session_that_ends_during_hook_stays_out(client, imgo, monkeypatch, case, caplog):
    """A session that is closed while a handler waits is in no group, and in no room of Redis."""
    op, ends = case
    monkeypatch.setattr(f"{__name__}.gate", Gate())
    imgo(ROOM_AUTHORIZER=f"{__name__}.ask_gate", RECEIVER=f"{__name__}.receive_behind_gate")
    node = await get_node()
    (session,) = node.hub.sessions.values()
    await client.send(op, b"a")
    await asyncio.wait_for(gate.entered.wait(), PATIENCE)
    if ends == "server":
        session.disconnect(CloseCode.KICKED)
    await node.dismiss(session)
    gate.opened.set()
    if ends == "server":
        await client.until_closed()
    await client.leave()
    assert (node.hub.groups, node.hub.sessions, node.entries) == ({}, {}, {})
    assert (session.rooms, await rooms()) == (set(), {})
    assert not any(record.exc_info for record in caplog.records)


# The receiver


async def echo(identity, op, body):
    if body == "bad":
        raise BadRequest("not this")
    if body == "bug":
        raise LookupError("a bug")
    if body == "unwritable":
        return {1, 2}
    return {"from": identity.key, "op": op, "body": body}


async def test_a_message_from_a_client_goes_to_the_receiver(client, imgo, caplog):
    imgo(RECEIVER="tests.push.connect.test_consumers.echo")
    for body, answer in (
        ({"a": [1, None]}, {"from": "u1", "op": 4, "body": {"a": [1, None]}}),
        ("text", {"from": "u1", "op": 4, "body": "text"}),
        ("bad", {"error": {"code": "bad_request", "message": "not this"}}),
    ):
        await client.send(Op.SEND, body, 9)
        reply = await client.answer()
        assert (reply.op, reply.seq, json.loads(reply.body)) == (Op.MESSAGE, 9, answer)
    assert caplog.text == ""
    for body in ("bug", "unwritable"):
        await client.send(Op.SEND, body)
        message = json.loads((await client.answer()).body)["error"]["message"]
        assert message == "internal error"
    assert "LookupError" in caplog.text


# Ending


async def test_nothing_is_left_of_who_has_gone(connect, name):
    client = await connect(name)
    await client.auth(rooms=["a"])
    node = await get_node()
    assert len(node.hub.sessions) == 1
    await client.leave()
    assert (node.hub.sessions, node.entries) == ({}, {})
    assert await rooms() == {}
    assert await in_thread(node.registry.sessions, "u1") == []


async def test_a_stopping_node_says_goodbye(client, redis_client):
    await stop_node()
    assert await client.until_closed() == CloseCode.GOING_AWAY
    await client.leave()
    # The session went after its node had left the registry.
    assert redis_client.keys("imgo:registry:*") == []


async def test_who_goes_in_the_middle_of_its_opening_leaves_nothing(connect, name, imgo):
    imgo(LOADER_WINDOW=0.05)
    client = await connect(name)
    node = await get_node()
    await client.send(Op.AUTH, b"t")
    await asyncio.sleep(0)
    await client.leave()
    assert (node.hub.sessions, node.entries) == ({}, {})
