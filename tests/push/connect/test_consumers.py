"""The consumers under an ASGI server's events: WebSocket in text and binary, and raw TCP.

This file has the opening, frames and the end of a session; messages are in test_key_messages.py,
rooms in test_room_ops.py. What real sockets, clients and servers make of it is in tests/e2e.
"""

import asyncio
import contextlib
import json

import pytest
from django.db import OperationalError

from accounts.models import Token
from imgo_site.asgi import application
from push.registry.redis_registry import RedisRegistry
from push.routing import WebSocketRouter
from push.session.outgoing import Kind
from push.session.socket_link import Gone
from push.wire import CloseCode, Frame, Op, encode_binary
from tests import in_thread
from tests.push.conftest import get_node, stop_node
from tests.push.connect.clients import (
    NAMES,
    rooms,
)


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
