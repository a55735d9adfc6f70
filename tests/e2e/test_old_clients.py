"""imgo's own clients, frame by frame: the very texts and bytes that they send and expect."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from .clients import BinaryClient, TcpClient, TextClient
from .frames import CHANGE_ROOM, CHANGE_ROOM_REPLY
from .harness import logs
from .world import World, new_key, new_room

TOKEN = "abcdefg1234567"  # the one in imgo's JavaScript client

AUTH_TEXT = '{"ver":1,"op":7,"seq":1,"body":"abcdefg1234567"}'
HEARTBEAT_TEXT = '{"ver":1,"op":2,"seq":2,"body":{}}'


@pytest.fixture
async def key(world: World) -> AsyncIterator[str]:
    """A user with that token, made as imgo's administrators make it."""
    logs.forbid(TOKEN)
    uid = new_key()
    await world.api.imgo("/1/admin/token/new", _form(uid))
    return uid


def _form(uid: str) -> bytes:
    return f"uid={uid}&token={TOKEN}&expire=3600".encode()


async def text_client(world: World, **options: Any) -> TextClient:
    client: TextClient = await world.connect("text-on-own-port", **options)
    return client


async def test_the_javascript_client(world: World, key: str) -> None:
    client = await text_client(world, Origin="http://a.page.of.another.host")
    await client.send_raw(AUTH_TEXT)
    assert await client.receive_raw() == '[{"ver":1,"op":8,"seq":1,"body":{}}]'
    await client.send_raw(HEARTBEAT_TEXT)
    assert await client.receive_raw() == '[{"ver":1,"op":3,"seq":2,"body":{}}]'
    await world.api.imgo("/1/push", b'{"test":1}', uid=key)
    assert await client.receive_raw() == '[{"ver":1,"op":5,"seq":0,"body":{"test":1}}]'
    await client.send_raw(HEARTBEAT_TEXT)
    assert await client.receive_raw() == '[{"ver":1,"op":3,"seq":2,"body":{}}]'


async def test_the_javascript_client_gets_what_it_missed(world: World, key: str) -> None:
    await world.api.imgo("/1/push", b'{"missed" : 1}', uid=key)
    client = await text_client(world)
    await client.send_raw(AUTH_TEXT)
    assert await client.receive_raw() == '[{"ver":1,"op":8,"seq":1,"body":{}}]'
    assert await client.receive_raw() == '[{"ver":1,"op":5,"seq":0,"body":{"missed" : 1}}]'


async def test_the_tcp_client(world: World, key: str) -> None:
    client: TcpClient = await world.connect("tcp")
    auth = bytes.fromhex("0000001e 0010 0001 00000007 00000001") + TOKEN.encode()
    await client.send_raw(auth)
    assert await client.receive_bytes(16) == bytes.fromhex("00000010 0010 0001 00000008 00000001")
    # The Java client sends its token again with each heartbeat.
    await client.send_raw(bytes.fromhex("0000001e 0010 0001 00000002 00000002") + TOKEN.encode())
    assert await client.receive_bytes(16) == bytes.fromhex("00000010 0010 0001 00000003 00000002")
    await world.api.imgo("/1/push", b'{"test":1}', uid=key)
    expected = bytes.fromhex("0000001a 0010 0001 00000005 00000000") + b'{"test":1}'
    assert await client.receive_bytes(26) == expected
    await client.send_raw(bytes.fromhex("00000010 0010 0001 000000fe 00000003"))
    expected = bytes.fromhex("00000022 0010 0001 000000ff 00000003") + b'{"test":"come on"}'
    assert await client.receive_bytes(34) == expected


async def test_the_vector_of_the_protocols_description(world: World) -> None:
    await world.api.imgo("/1/admin/token/new", f"uid={new_key()}&token=abc&expire=9".encode())
    client: TcpClient = await world.connect("tcp")
    await client.send_raw(bytes.fromhex("00000013 0010 0001 00000007 00000001 616263"))
    assert await client.receive_bytes(16) == bytes.fromhex("00000010 0010 0001 00000008 00000001")


@pytest.mark.parametrize("door", ["tcp", "text-on-own-port", "binary"])
async def test_bare_token_client_is_in_the_room_that_the_server_chose(
    world: World, door: str
) -> None:
    """No client of imgo or goim v1 can name a room: the server puts a connection into one."""
    uid, room, token = new_key(), new_room(), f"token-of-{new_key()}"
    logs.forbid(token)
    form = f"uid={uid}&token={token}&expire=3600&rid={room}".encode()
    await world.api.imgo("/1/admin/token/new", form)
    client = await (await world.connect(door)).auth(token)
    await world.api.imgo("/1/push/room", b'{"test":1}', rid=room)
    assert await client.receive_bodies(1) == [b'{"test":1}']
    counted = (await world.api.http.get("/1/count?type=room")).json()
    assert {"RoomId": int(room), "Count": 1} in counted["data"]
    # Op 12 leaves the room of the server's choice, as goim has it.
    other = new_room()
    assert (await client.ask(CHANGE_ROOM, other)).op == CHANGE_ROOM_REPLY
    await world.api.imgo("/1/push/room", b'{"test":2}', rid=other)
    assert await client.receive_bodies(1) == [b'{"test":2}']
    counted = (await world.api.http.get("/1/count?type=room")).json()
    assert room not in {str(row["RoomId"]) for row in counted["data"]}


async def test_goims_binary_client_with_a_token(world: World, key: str) -> None:
    """goim's client sends an object; what it says of itself is not believed, its token is."""
    room = new_room()
    client: BinaryClient = await world.connect("binary")
    body = (
        b'{"mid":123, "room_id":"live://%b", "platform":"web", "accepts":[1000,1001], "token":"%b"}'
        % (room.encode(), TOKEN.encode())
    )
    header = (16 + len(body)).to_bytes(4, "big") + bytes.fromhex("0010 0001 00000007 00000001")
    await client.send_raw(header + body)
    assert await client.receive_raw() == bytes.fromhex("00000010 0010 0001 00000008 00000001")
    await world.api.push({"room": f"live://{room}"}, b'"in the room"', op=1000)
    message = bytes.fromhex("0000001d 0010 0001 000003e8 00000000") + b'"in the room"'
    in_op_9 = bytes.fromhex("0000002d 0010 0001 00000009 00000000") + message
    assert await client.receive_raw() == in_op_9
    assert await world.api.sessions(key) == 1


async def test_goims_client_without_a_token_is_refused(world: World, transport: str) -> None:
    client = await world.connect(transport)
    body = {"mid": 123, "key": "1", "room_id": "live://1", "platform": "web", "accepts": [1000]}
    assert (await client.refused(body)).code == 4401


@pytest.mark.parametrize("form", ["form", "query", "json"])
async def test_imgos_administrators_make_tokens(world: World, transport: str, form: str) -> None:
    uid, token = new_key(), f"token-of-{new_key()}"
    logs.forbid(token)
    if form == "json":
        content = b'{"uid":%b,"token":"%b","expire":60}' % (uid.encode(), token.encode())
        await world.api.imgo("/1/admin/token/new", content)
    elif form == "form":
        content = f"uid={uid}&token={token}&expire=60".encode()
        await world.api.imgo("/1/admin/token/new", content)
    else:
        await world.api.imgo("/1/admin/token/new", uid=uid, token=token, expire="60")
    await (await world.connect(transport)).auth(token)
    assert await world.api.sessions(uid) == 1
