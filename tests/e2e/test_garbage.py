"""What hostile and broken clients send: they are closed at once, and nobody else notices."""

import asyncio
import json
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from tests import eventually

from .clients import Client, Closed
from .frames import AUTH, HEARTBEAT, HEARTBEAT_REPLY, pack
from .harness import System
from .world import World, new_key, new_room

ONE_NODE_PROVES = True
AT_ONCE = 1.0  # seconds
TRIES = 5  # one of which has to be at once: a machine may be busy, a server that waits always does
FLOOD = 10_000  # frames
ALLOWED = 100  # frames of one client in a second, the setting
READ = 4096 // 16  # heartbeats in what the server reads at once
BAD_FRAME, TOO_LARGE, NOT_AUTHENTICATED = 4500, 4502, 4505
NOT_UTF8, MESSAGE_TOO_BIG = 1007, 1009  # RFC 6455
BODY_MAX = 1024  # bytes; the default
FIRST_MAX = 8192  # bytes, of the first frame; the default
INT32_MAX = 2**31 - 1


def header(length: int, header_length: int = 16, op: int = HEARTBEAT) -> bytes:
    return struct.pack(">ihhii", length, header_length, 1, op, 1)


RUBBISH_BEHIND = "a good frame, then rubbish"
BAD_BINARY = {
    "short": (header(15), BAD_FRAME),
    "zero": (header(0), BAD_FRAME),
    "negative": (header(-1), BAD_FRAME),
    "most negative": (header(-(2**31)), BAD_FRAME),
    "largest": (header(INT32_MAX), TOO_LARGE),
    "one byte too large": (header(16 + BODY_MAX + 1) + b"x" * (BODY_MAX + 1), TOO_LARGE),
    "header of nothing": (header(16, 0), BAD_FRAME),
    "header of 15": (header(16, 15), BAD_FRAME),
    "header of 17": (header(17, 17) + b"x", BAD_FRAME),
    "negative header": (header(16, -1), BAD_FRAME),
    "header longer than package": (header(20, 24) + b"xxxx", BAD_FRAME),
    RUBBISH_BEHIND: (header(16) + b"\xff" * 16, BAD_FRAME),
    "http": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", TOO_LARGE),
}
DEEP = '{"ver":1,"op":4,"seq":1,"body":%s}'
BAD_TEXT = {
    "not json": ("hello", BAD_FRAME),
    "nothing": ("", BAD_FRAME),
    "half": ('{"ver":1,"op":2,', BAD_FRAME),
    "an array": ('[{"ver":1,"op":2,"seq":1,"body":{}}]', BAD_FRAME),
    "a number": ("2", BAD_FRAME),
    "no op": ('{"ver":1,"seq":1}', BAD_FRAME),
    "an op of text": ('{"ver":1,"op":"2","seq":1}', BAD_FRAME),
    "an op of 33 bits": ('{"ver":1,"op":4294967298,"seq":1}', BAD_FRAME),
    "a seq that is true": ('{"ver":1,"op":2,"seq":true}', BAD_FRAME),
    "infinity": ('{"ver":1,"op":4,"seq":1,"body":Infinity}', BAD_FRAME),
    "an infinite number": ('{"ver":1,"op":4,"seq":1,"body":1e999}', BAD_FRAME),
    "a number of 5000 digits": (DEEP % ("1" * 5000), BAD_FRAME),
    "deep arrays": (DEEP % ("[" * 4000 + "]" * 4000), BAD_FRAME),
    "deep arrays, open": ("[" * 9000, BAD_FRAME),
    "deep objects": (DEEP % ('{"a":' * 1500 + "1" + "}" * 1500), BAD_FRAME),
    "a large body": (DEEP % json.dumps("x" * BODY_MAX), TOO_LARGE),
    "a large message": (DEEP % json.dumps("x" * 10_000), TOO_LARGE),
}
# A session's first frame may be longer.
BAD_FIRST_BINARY = BAD_BINARY | {
    "one byte too large": (header(16 + FIRST_MAX + 1) + b"x" * (FIRST_MAX + 1), TOO_LARGE)
}
BAD_FIRST_TEXT = BAD_TEXT | {"a large body": (DEEP % json.dumps("x" * FIRST_MAX), TOO_LARGE)}


Enter = Callable[[System], Awaitable[World]]


class Witness:
    """Another session of the node, which must notice nothing."""

    def __init__(self, world: World, client: Client, key: str) -> None:
        self._world = world
        self._client = client
        self._key = key

    async def still_receives(self) -> None:
        for _ in range(TRIES):
            start = time.monotonic()
            await self._world.api.push({"key": self._key}, b'"for the witness"')
            assert await self._client.receive_bodies(1) == [b'"for the witness"']
            await self._client.heartbeat()
            if time.monotonic() - start < AT_ONCE:
                return
        pytest.fail("the witness has to wait")


@pytest.fixture
async def witness(world: World) -> Witness:
    """A session on node 0."""
    key = new_key()
    return Witness(world, await world.session(key, "text"), key)


Provoke = Callable[[], AbstractAsyncContextManager[Client]]


async def assert_closed_at_once(code: int, provoke: Provoke, case: str = "") -> None:
    """Whoever does it is closed with this code and a reason."""
    for _ in range(TRIES):
        async with provoke() as client:
            start = time.monotonic()
            ending = await client.ended()
            assert (ending.code, bool(ending.reason)) == (code, True), case
            if time.monotonic() - start < AT_ONCE:
                return
    pytest.fail(f"the client has to wait: {case}")


async def begin(world: World, door: str, key: str | None) -> Any:
    """A session of the key; without one, a connection that has not authenticated."""
    return await (world.connect(door) if key is None else world.session(key, door))


def saying(world: World, door: str, data: str | bytes, key: str | None = None) -> Provoke:
    """Begin, and say this."""

    @asynccontextmanager
    async def provoke() -> AsyncIterator[Client]:
        client = await begin(world, door, key)
        await client.send_raw(data)
        yield client

    return provoke


def sending(
    world: World, door: str, message: Callable[[], Any], key: str | None = None, **options: Any
) -> Provoke:
    """Begin, and send a WebSocket message meanwhile, as far as the server takes it."""

    @asynccontextmanager
    async def provoke() -> AsyncIterator[Client]:
        client = await begin(world, door, key)
        task = asyncio.create_task(client.connection.send(message(), **options))
        try:
            yield client
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    return provoke


@pytest.mark.parametrize("transport", ["tcp", "binary"])
async def test_a_bad_binary_frame_closes_its_session(
    world: World, witness: Witness, transport: str
) -> None:
    key = new_key()
    for case, (data, code) in BAD_BINARY.items():
        await assert_closed_at_once(code, saying(world, transport, data, key), case)
        await witness.still_receives()
    await world.wait_for_sessions(key, 0)


@pytest.mark.parametrize("transport", ["tcp", "binary"])
async def test_a_bad_binary_frame_before_auth_closes(
    world: World, witness: Witness, transport: str
) -> None:
    for case, (data, code) in BAD_FIRST_BINARY.items():
        if case != RUBBISH_BEHIND:
            await assert_closed_at_once(code, saying(world, transport, data), case)
            await witness.still_receives()


@pytest.mark.parametrize("is_session", [True, False])
async def test_a_bad_text_message_closes(world: World, witness: Witness, is_session: bool) -> None:
    key = new_key() if is_session else None
    for case, (text, code) in (BAD_TEXT if is_session else BAD_FIRST_TEXT).items():
        await assert_closed_at_once(code, saying(world, "text", text, key), case)
        await witness.still_receives()


@pytest.mark.parametrize("is_session", [True, False])
async def test_text_that_is_not_utf8_closes(
    world: World, witness: Witness, is_session: bool
) -> None:
    key = new_key() if is_session else None
    text = b'{"ver":1,"op":2,"seq":1,"body":"\xff\xfe"}'
    await assert_closed_at_once(NOT_UTF8, sending(world, "text", lambda: text, key, text=True))
    await witness.still_receives()


@pytest.mark.parametrize("transport", ["text", "binary"])
@pytest.mark.parametrize("is_session", [True, False])
@pytest.mark.parametrize("size", [100_000, 10_000_000])
async def test_an_oversized_message_closes(
    world: World, witness: Witness, transport: str, is_session: bool, size: int
) -> None:
    key = new_key() if is_session else None
    message = "x" * size if transport == "text" else b"x" * size
    await assert_closed_at_once(MESSAGE_TOO_BIG, sending(world, transport, lambda: message, key))
    await witness.still_receives()


async def test_an_oversized_message_in_fragments_closes(world: World, witness: Witness) -> None:
    async def fragments() -> Any:
        for _ in range(1000):
            yield "x" * 1000

    await assert_closed_at_once(MESSAGE_TOO_BIG, sending(world, "text", fragments, new_key()))
    await witness.still_receives()


@pytest.mark.parametrize("transport", ["text", "binary"])
async def test_fragments_are_put_together(world: World, transport: str) -> None:
    client = await world.session(new_key(), transport)
    text = '{"ver":1,"op":2,"seq":9,"body":"\u00e9"}'
    whole = text.encode() if transport == "text" else pack(HEARTBEAT, 9, b"ignored")

    async def fragments() -> Any:
        for place in range(len(whole)):
            yield whole[place : place + 1]

    await client.connection.send(fragments(), text=transport == "text")
    reply = await client.receive()
    assert (reply.op, reply.seq) == (HEARTBEAT_REPLY, 9)


async def test_half_a_frame_in_a_binary_message_closes(world: World, witness: Witness) -> None:
    for message in (pack(HEARTBEAT, 1, b"body")[:-1], b"\0", b""):
        await assert_closed_at_once(BAD_FRAME, saying(world, "binary", message, new_key()))
    await witness.still_receives()


@pytest.mark.parametrize(("first", "second"), [("text", "binary"), ("binary", "text")])
async def test_a_session_answers_in_the_kind_of_its_first_message(
    world: World, first: str, second: str
) -> None:
    client = await world.session(new_key(), first)
    beats = {"text": '{"ver":1,"op":2,"seq":5,"body":{}}', "binary": pack(HEARTBEAT, 5)}
    await client.send_raw(beats[second])
    reply = await client.receive()
    assert (reply.op, reply.seq) == (HEARTBEAT_REPLY, 5)


async def test_frames_that_come_byte_by_byte_are_frames(world: World) -> None:
    client = await world.connect("tcp")
    client.nagle(on=False)
    token = (await world.token(new_key())).encode()
    for byte in pack(AUTH, 1, token) + pack(HEARTBEAT, 2) + pack(HEARTBEAT, 3, b"with a body"):
        await client.send_raw(bytes([byte]))
    assert [(await client.receive()).op for _ in range(3)] == [8, 3, 3]


async def test_rubbish_that_comes_byte_by_byte_closes(world: World, witness: Witness) -> None:
    def saying_bytes(data: bytes) -> Provoke:
        @asynccontextmanager
        async def provoke() -> AsyncIterator[Client]:
            client = await world.session(new_key(), "tcp")
            client.nagle(on=False)
            for byte in data:
                try:
                    await client.send_raw(bytes([byte]))
                except Closed:
                    break
            yield client

        return provoke

    for case, (data, code) in BAD_BINARY.items():
        await assert_closed_at_once(code, saying_bytes(data), case)
        await witness.still_receives()


async def test_a_reset_at_any_point_of_the_handshake_hurts_nobody(
    world: World, witness: Witness
) -> None:
    key = new_key()
    token = (await world.token(key)).encode()
    auth = pack(AUTH, 1, token)
    for sent in (b"", auth[:2], auth[:20], auth, auth + pack(HEARTBEAT, 2)[:5]):
        for _ in range(5):
            client = await world.connect("tcp")
            if sent:
                await client.send_raw(sent)
            client.abort()
    for _ in range(5):
        (await world.connect("text")).abort()
        client = await world.connect("binary")
        await client.send_raw(auth)
        client.abort()
    await witness.still_receives()
    await world.wait_for_sessions(key, 0)


UPGRADE = (
    b"GET /sub HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


async def test_a_reset_during_the_upgrade_hurts_nobody(world: World, witness: Witness) -> None:
    for sent in (
        b"",
        UPGRADE[:10],
        UPGRADE[:-2],
        UPGRADE,
        UPGRADE + b"\x81",
        UPGRADE + b"\xff" * 9,
    ):
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", world.node().http_port)) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.sendall(sent)
    await witness.still_receives()


LONG = b"x" * 200_000


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /?" + LONG, b"414 "),
        (
            b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + LONG,
            b"431 ",
        ),
    ],
    ids=["first line", "header"],
)
async def test_a_line_of_http_that_is_too_long_is_answered(
    world: World, sent: bytes, status: bytes
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", world.node().http_port)
    try:
        writer.write(sent)
        async with asyncio.timeout(10):
            answer = await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b"at most 65536 bytes" in answer


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("masking", lambda frame: bytes([frame[0], frame[1] & 0x7F]) + frame[6:]),
        ("reserved bits", lambda frame: bytes([frame[0] | 0x40]) + frame[1:]),
        ("reserved opcode", lambda frame: bytes([0x83]) + frame[1:]),
    ],
)
async def test_what_is_no_websocket_frame_closes(
    world: World, witness: Witness, name: str, change: Callable[[bytes], bytes]
) -> None:
    @asynccontextmanager
    async def provoke() -> AsyncIterator[Client]:
        client = await world.session(new_key(), "text")
        frame = b"\x81\x82\0\0\0\0{}"
        client.connection.transport.write(change(frame))
        yield client

    await assert_closed_at_once(1002, provoke)
    await witness.still_receives()


@pytest.mark.parametrize("odd", ["';DROP TABLE offline_message;--", "{{7*7}}", "../..", "*", "\\"])
async def test_names_cross_nothing(world: World, odd: str) -> None:
    transport = "binary"  # the names are the same with each
    key, other, room = new_key() + odd, new_key(), new_room() + odd
    client = await world.session(key, transport, rooms=[room])
    neighbour = await world.session(other, transport, rooms=[room + room])
    await world.api.push({"room": room}, b'"for the room"')
    await world.api.push({"key": key}, b'"for the key"')
    await world.api.push({"key": other}, b'"for the other"')
    # Of two partitions: in either order.
    assert sorted(await client.receive_bodies(2)) == [b'"for the key"', b'"for the room"']
    assert await neighbour.receive_bodies(1) == [b'"for the other"']
    assert (await world.api.rooms())[room] == 1


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/1/push", {"uid": "-1"}),
        ("/1/push", {"uid": "x"}),
        ("/1/push", {}),
        ("/1/push/room", {"rid": str(2**32 + 1)}),
        ("/1/push/room", {"rid": "-1"}),
        ("/1/push/room", {"rid": "lobby"}),
    ],
)
async def test_imgos_numbers_are_checked(world: World, path: str, query: dict[str, str]) -> None:
    answer = await world.api.http.post(path, params=query, content=b'"for nobody"')
    assert (answer.status_code, answer.json()) == (400, {"ret": 65534})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b'{"to":{"key":"a"}}',
        b'{"to":{"key":"a"},"body":NaN}',
        b'{"to":{"key":"a","room":"b"},"body":1}',
        b'{"to":{"key":"a\\u0000"},"body":1}',
        b'{"to":{"key":"\\ud800"},"body":1}',
        b'{"to":{"key":"a"},"body":1,"op":7}',
        b'{"to":{"key":"a"},"body":1,"ttl":0}',
    ],
)
async def test_bad_pushes_are_refused_with_a_reason(world: World, content: bytes) -> None:
    answer = await world.api.http.post("/api/v1/pushes", content=content)
    assert 400 <= answer.status_code < 500
    assert answer.json()["detail"]


async def test_a_flood_of_bad_connections_leaves_no_session(world: World) -> None:
    async def attack(number: int) -> None:
        client = await world.connect(("tcp", "binary")[number % 2])
        await client.send_raw(list(BAD_BINARY.values())[number % len(BAD_BINARY)][0])
        assert (await client.ended()).code in {BAD_FRAME, TOO_LARGE, NOT_AUTHENTICATED}

    await asyncio.gather(*(attack(number) for number in range(100)))

    async def nobody_is_left() -> bool:
        return (await world.api.get("/api/v1/stats"))["sessions"] == 0

    await eventually(nobody_is_left)


@asynccontextmanager
async def flood(client: Client) -> AsyncIterator[list[int]]:
    """The client sends far more frames than it may, and takes the answers: their seqs so far."""
    answered: list[int] = []

    async def take() -> None:
        while True:
            answered.append((await client.receive(60)).seq)

    frames = b"".join(pack(HEARTBEAT, seq, b"") for seq in range(FLOOD))
    tasks = [asyncio.create_task(client.send_raw(frames)), asyncio.create_task(take())]
    try:
        yield answered
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_flood_of_frames_disturbs_nobody(world: World, witness: Witness) -> None:
    async with flood(await world.session(new_key(), "tcp")) as answered:
        await eventually(lambda: answered)
        for _ in range(20):
            await witness.still_receives()
    assert answered == list(range(len(answered)))


async def test_a_flood_of_frames_is_read_at_the_pace_that_is_allowed(
    embedded: System, enter: Enter
) -> None:
    world = await enter(embedded)
    client = await world.session(new_key(), "tcp")
    await client.heartbeat()  # its frames are counted from when its socket is its own
    start = time.monotonic()
    async with flood(client) as answered:
        await eventually(lambda: len(answered) > 3 * ALLOWED, timeout=30)
        seconds = time.monotonic() - start
        # What one read brings over the limit is answered too.
        assert len(answered) < (seconds + 2) * (ALLOWED + READ)
