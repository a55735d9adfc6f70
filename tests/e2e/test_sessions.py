"""Opening a session, what it may ask, and how it is refused, on every transport and port."""

import struct
from collections.abc import Awaitable, Callable

import pytest
import websockets

from tests import eventually

from .clients import DOORS, TRANSPORTS, Ending
from .frames import (
    AUTH,
    AUTH_REPLY,
    CHANGE_ROOM,
    CHANGE_ROOM_REPLY,
    HANDSHAKE,
    HANDSHAKE_REPLY,
    HEARTBEAT,
    HEARTBEAT_REPLY,
    JOIN,
    JOIN_REPLY,
    LEAVE,
    LEAVE_REPLY,
    MESSAGE,
    SEND,
    TEST,
    TEST_REPLY,
)
from .harness import Embedded, System
from .world import World, new_key, new_room

ONE_NODE_PROVES = True
UNAUTHORIZED, BAD_FRAME, NOT_AUTHENTICATED, UNKNOWN_OP = 4401, 4500, 4505, 4501


@pytest.mark.parametrize("door", DOORS)
async def test_a_token_opens_a_session(world: World, door: str) -> None:
    key = new_key()
    client = await world.session(key, door)
    assert await world.api.sessions(key) == 1
    await world.api.push({"key": key}, {"through": door})
    message = await client.receive()
    assert (message.op, message.seq, message.value) == (MESSAGE, 0, {"through": door})


async def test_an_auth_object_opens_a_session(world: World, transport: str) -> None:
    key, room = new_key(), new_room()
    await world.session(key, transport, rooms=[room], platform="web", device="test")
    (session,) = (await world.api.key(key))["sessions"]
    assert session["platform"] == "web"
    assert session["transport"] == ("tcp" if transport == "tcp" else "websocket")
    assert session["address"] == "127.0.0.1"
    assert (await world.api.rooms())[room] == 1


async def test_the_auth_reply_has_the_seq_of_the_request(world: World, transport: str) -> None:
    client = await world.connect(transport)
    reply = await client.ask(AUTH, await world.token(new_key()), seq=-5)
    assert (reply.ver, reply.op, reply.value) == (1, AUTH_REPLY, {})


async def test_wrong_and_expired_tokens_are_refused_alike(world: World, transport: str) -> None:
    expired = await world.api.make_token(new_key(), expires_in=1)

    async def refusal(token: str) -> Ending | None:
        client = await world.connect(transport)
        return await client.refused(token)

    first = await eventually(lambda: refusal(expired))
    assert (first.code, first.frames) == (UNAUTHORIZED, [])
    assert first.reason
    # A text WebSocket has the close code alone.
    assert first.reconnect is (None if transport == "text" else True)
    assert await refusal("no such token") == first
    # In a text message a body of text is a token, whatever it looks like.
    mistake = UNAUTHORIZED if transport == "text" else BAD_FRAME
    for body, code in (("", UNAUTHORIZED), ("{}", UNAUTHORIZED), ('{"token":7}', mistake)):
        ending = await refusal(body)
        assert ending is not None
        assert (ending.code, ending.frames) == (code, [])


@pytest.mark.parametrize("op", [HEARTBEAT, SEND, MESSAGE, JOIN, TEST, 99])
async def test_anything_before_auth_closes(world: World, transport: str, op: int) -> None:
    client = await world.connect(transport)
    await client.send(op)
    ending = await client.ended()
    assert (ending.code, ending.frames) == (NOT_AUTHENTICATED, [])


async def test_a_handshake_frame_before_auth_is_answered(world: World, transport: str) -> None:
    client = await world.connect(transport)
    assert (await client.ask(HANDSHAKE)).op == HANDSHAKE_REPLY
    await client.auth(await world.token(new_key()))


@pytest.mark.parametrize(
    ("ops", "body", "expected"),
    [
        ((HANDSHAKE, HANDSHAKE_REPLY), b"", {}),
        ((HEARTBEAT, HEARTBEAT_REPLY), b"", {}),
        ((HEARTBEAT, HEARTBEAT_REPLY), "the token once more", {}),
        ((SEND, MESSAGE), {"upstream": [1, 2]}, {}),
        ((CHANGE_ROOM, CHANGE_ROOM_REPLY), "a room", {}),
        ((CHANGE_ROOM, CHANGE_ROOM_REPLY), b"", {}),
        ((JOIN, JOIN_REPLY), "a room", {}),
        ((LEAVE, LEAVE_REPLY), "a room it is not in", {}),
        ((TEST, TEST_REPLY), b"", {"test": "come on"}),
    ],
)
async def test_an_op_is_answered_with_the_same_seq(
    world: World, transport: str, ops: tuple[int, int], body: object, expected: object
) -> None:
    op, reply_op = ops
    client = await world.session(new_key(), transport)
    for seq in (0, 1, 2**31 - 1, -(2**31)):
        reply = await client.ask(op, body, seq)
        assert (reply.op, reply.seq, reply.value) == (reply_op, seq, expected)


async def test_an_unknown_op_closes(world: World, transport: str) -> None:
    client = await world.session(new_key(), transport)
    await client.send(77)
    ending = await client.ended()
    assert (ending.code, ending.reconnect) == (UNKNOWN_OP, False)
    assert "77" in ending.reason


async def test_frames_behind_auth_in_one_segment_are_handled(world: World) -> None:
    client = await world.connect("tcp")
    token = (await world.token(new_key())).encode()
    auth = struct.pack(">ihhii", 16 + len(token), 16, 1, AUTH, 1) + token
    beats = [struct.pack(">ihhii", 16, 16, 1, HEARTBEAT, seq) for seq in (2, 3)]
    await client.send_raw(auth + b"".join(beats))
    replies = [await client.receive() for _ in range(3)]
    assert [(frame.op, frame.seq) for frame in replies] == [(8, 1), (3, 2), (3, 3)]


async def test_several_frames_in_one_binary_message_are_handled(world: World) -> None:
    client = await world.session(new_key(), "binary")
    beats = [struct.pack(">ihhii", 16, 16, 1, HEARTBEAT, seq) for seq in (2, 3)]
    await client.send_raw(b"".join(beats))
    assert [(await client.receive()).seq for _ in range(2)] == [2, 3]


async def test_a_session_that_is_closed_is_not_online(world: World, transport: str) -> None:
    key = new_key()
    client = await world.session(key, transport)
    assert await world.api.sessions(key) == 1
    await client.close()
    await world.wait_for_sessions(key, 0)


async def test_another_path_has_no_websocket(world: World) -> None:
    url = f"ws://127.0.0.1:{world.node().http_port}/elsewhere"
    with pytest.raises(websockets.InvalidStatus) as caught:
        await websockets.connect(url, proxy=None)
    assert caught.value.response.status_code == 403


async def test_each_connection_that_has_gone_makes_room_for_another(
    make_embedded: Callable[..., Embedded],
    own_system: Callable[[System], System],
    enter: Callable[[System], Awaitable[World]],
) -> None:
    world = await enter(own_system(make_embedded(IMGO_MAX_UNAUTHENTICATED="20")))
    key = new_key()
    for _ in range(30):
        for door in TRANSPORTS:
            (await world.session(key, door)).abort()
    await world.wait_for_sessions(key, 0)
