"""Pushing to a key, keys, a room and everyone: who gets it, what arrives, and in what order."""

import json
from typing import Any

import pytest

from .api_client import encoded_push
from .clients import TRANSPORTS
from .frames import MESSAGE, Frame
from .world import World, new_key, new_room

# Kept as they are: the spaces, the number, the order of names, the way a character is written.
EXACT_BODIES = [
    b'{"a" : 1.00}',
    b'{"z":1,"a":2,"z":3}',
    b'"\\u00e9\xc3\xa9"',
    b"[ ]",
    b"1e400",
    b"12345678901234567890123",
    b"null",
    b'{"deep":' + b"[" * 100 + b"]" * 100 + b"}",
    b'"' + b"x" * 60_000 + b'"',
]
NOT_JSON = [b"plain text", b'{"a":', "\u00e9\u4e2d\U0001f600".encode(), b"NaN", b"two\nlines \x01"]


async def sessions_everywhere(world: World, key: str, **auth: Any) -> list[Any]:
    """A session of `key` for each transport on each of two nodes."""
    return [await world.session(key, t, node, **auth) for t in TRANSPORTS for node in range(2)]


async def assert_each_receives(clients: list[Any], *bodies: bytes) -> None:
    """Each client gets these messages next, and nothing between them."""
    for client in clients:
        assert await client.receive_bodies(len(bodies)) == list(bodies), client.transport


async def test_a_push_to_a_key_reaches_all_its_sessions(world: World) -> None:
    key = new_key()
    clients = await sessions_everywhere(world, key)
    stranger = await world.session(new_key())
    await world.api.push({"key": key}, b'{"n": 1}')
    await world.api.imgo("/1/push", b'{"n": 2}', uid=key)
    await assert_each_receives(clients, b'{"n": 1}', b'{"n": 2}')
    # What went to somebody else as well would have come by now.
    await world.api.push({"all": True}, b'"the end"')
    await assert_each_receives([*clients, stranger], b'"the end"')
    await world.wait_for_pending(key, 0)


async def test_a_push_to_keys_reaches_each_of_them(world: World) -> None:
    keys = [new_key() for _ in range(3)]
    clients = [
        await world.session(key, transport, node)
        for node, (key, transport) in enumerate(zip(keys, TRANSPORTS, strict=True))
    ]
    others = [await world.session(new_key(), node=node) for node in range(2)]
    await world.api.push({"keys": [*keys, keys[0]]}, b'["to", "keys"]')
    body = b'{"u":[%b],"m":{"to" : "users"}}' % ",".join(keys).encode()
    await world.api.imgo("/1/pushs", body)
    await assert_each_receives(clients, b'["to", "keys"]', b'{"to" : "users"}')
    await world.api.push({"all": True}, b'"the end"')
    await assert_each_receives([*clients, *others], b'"the end"')


async def test_a_push_to_a_room_reaches_who_is_in_it(world: World) -> None:
    room = new_room()
    inside = await sessions_everywhere(world, new_key(), rooms=[room])
    outside = await sessions_everywhere(world, new_key(), rooms=[new_room()])
    await world.api.push({"room": room}, b'{"n": 1}')
    await world.api.imgo("/1/push/room", b'{"n": 2}', rid=room)
    await world.api.imgo("/1/push/room", b'{"n": 3}', rid=room, ensure="true")
    await assert_each_receives(inside, b'{"n": 1}', b'{"n": 2}', b'{"n": 3}')
    # Order is kept within a room; a push to everyone may overtake a room's.
    await world.api.push({"all": True}, b'"the end"')
    await assert_each_receives([*inside, *outside], b'"the end"')


async def test_a_push_to_all_reaches_everyone(world: World) -> None:
    clients = [
        await world.session(new_key(), transport, node)
        for transport in TRANSPORTS
        for node in range(2)
    ]
    await world.api.push({"all": True}, b'"ours"')
    await world.api.imgo("/1/push/all", b'"imgo\'s"')
    await assert_each_receives(clients, b'"ours"', b'"imgo\'s"')


@pytest.mark.parametrize("path", ["/1/push", "/1/push/room", "/1/push/all"])
async def test_what_is_not_json_arrives_as_it_is_or_as_a_json_string(
    world: World, transport: str, path: str
) -> None:
    key, room = new_key(), new_room()
    client = await world.session(key, transport, rooms=[room])
    target = {"/1/push": {"uid": key}, "/1/push/room": {"rid": room}}.get(path, {})
    for body in NOT_JSON:
        await world.api.imgo(path, body, **target)
        (received,) = await client.receive_bodies(1)
        if transport == "text":
            assert json.loads(received) == body.decode()
        else:
            assert received == body


async def test_bytes_that_are_not_utf8_arrive(world: World, transport: str) -> None:
    key = new_key()
    client = await world.session(key, transport)
    await world.api.imgo("/1/push", b"\xff\x00\xfebytes", uid=key)
    (received,) = await client.receive_bodies(1)
    if transport == "text":
        assert json.loads(received) == "\ufffd\x00\ufffdbytes"
    else:
        assert received == b"\xff\x00\xfebytes"


async def test_json_arrives_byte_for_byte(world: World, transport: str) -> None:
    key = new_key()
    client = await world.session(key, transport)
    for body in EXACT_BODIES:
        await world.api.push({"key": key}, body)
        await world.api.imgo("/1/push", body, uid=key)
        assert await client.receive_bodies(2) == [body, body]


async def test_a_message_has_the_op_that_the_push_names(world: World, transport: str) -> None:
    key = new_key()
    client = await world.session(key, transport)
    await world.api.push({"key": key}, b"{}", op=2**31 - 1)
    assert await client.receive() == Frame(1, 2**31 - 1, 0, b"{}")


async def test_two_devices_of_a_key_each_get_everything(world: World) -> None:
    key = new_key()
    devices = [await world.session(key, "tcp", 0), await world.session(key, "text", 1)]
    bodies = [b'{"n":%d}' % n for n in range(40)]
    for body in bodies:
        await world.api.push({"key": key}, body)
    await assert_each_receives(devices, *bodies)


@pytest.mark.long
async def test_500_pushes_to_one_key_arrive_in_order(world: World) -> None:
    key = new_key()
    clients = [await world.session(key, t, node) for node, t in enumerate(TRANSPORTS)]
    bodies = [b'{"place":%d}' % n for n in range(500)]
    single, arrays = bodies[:200], bodies[200:]
    for body in single:
        await world.api.push({"key": key}, body)
    for start in range(0, len(arrays), 50):
        pushes = [encoded_push({"key": key}, body) for body in arrays[start : start + 50]]
        ids = await world.api.push_many(pushes)
        assert ids == sorted(ids)
    await assert_each_receives(clients, *bodies)


async def test_a_busy_room_gets_everything_in_order(world: World) -> None:
    room = new_room()
    clients = await sessions_everywhere(world, new_key(), rooms=[room])
    bodies = [b'{"place" : %d}' % n for n in range(200)]
    await world.api.push({"room": room}, bodies[0])
    await world.api.push_many([encoded_push({"room": room}, body) for body in bodies[1:100]])
    for body in bodies[100:150]:
        await world.api.push({"room": room}, body)
    await world.api.push_many([encoded_push({"room": room}, body) for body in bodies[150:]])
    await assert_each_receives(clients, *bodies)


async def test_a_stream_of_pushes_is_answered_line_by_line(world: World) -> None:
    key = new_key()
    clients = await sessions_everywhere(world, key)
    bodies = [b'{"place" : %d}' % n for n in range(300)]
    lines = [encoded_push({"key": key}, body) for body in bodies]
    lines.insert(100, b"no push")
    answer = await world.api.http.post("/api/v1/pushes/stream", content=b"\n".join(lines))
    answers = [json.loads(line) for line in answer.text.splitlines()]
    assert answers.pop(100)["error"]["status"] == 400
    ids = [int(item["id"]) for item in answers]
    assert len(ids) == 300
    assert ids == sorted(ids)
    await assert_each_receives(clients, *bodies)


async def test_an_array_of_pushes_is_answered_item_by_item(world: World) -> None:
    keys = [new_key(), new_key()]
    clients = [await world.session(key) for key in keys]
    items = [
        encoded_push({"key": keys[0]}, b'"first"'),
        encoded_push({"key": ""}, b'"to nobody"'),
        encoded_push({"key": keys[1]}, b'"third"'),
    ]
    answer = await world.api.http.post("/api/v1/pushes", content=b"[%b]" % b",".join(items))
    assert answer.status_code == 202
    first, second, third = answer.json()
    assert int(third["id"]) > int(first["id"])
    assert second["error"]["status"] == 400
    await assert_each_receives(clients[:1], b'"first"')
    await assert_each_receives(clients[1:], b'"third"')


async def test_the_same_dedupe_id_pushes_once(world: World) -> None:
    key = new_key()
    client = await world.session(key)
    first = await world.api.push({"key": key}, b'"once"', dedupe_id=key)
    assert await world.api.push({"key": key}, b'"twice"', dedupe_id=key) == first
    await world.api.push({"key": key}, b'"the end"')
    await assert_each_receives([client], b'"once"', b'"the end"')


@pytest.mark.parametrize("path", ["/api/v1/pushes", "/1/push", "/1/pushs", "/1/push/all"])
async def test_nothing_is_pushed_without_an_api_key(world: World, path: str) -> None:
    key = new_key()
    client = await world.session(key)
    body = b'{"to":{"key":"%b"},"u":[%b],"m":1,"body":1}' % (key.encode(), key.encode())
    for headers in ({"Authorization": ""}, {"Authorization": "Api-Key wrong"}):
        answer = await world.api.http.post(path, content=body, params={"uid": key}, headers=headers)
        assert answer.status_code == 401
    await world.api.push({"key": key}, b'"the end"')
    await assert_each_receives([client], b'"the end"')


async def test_an_api_key_in_the_query_is_enough_for_imgos_tools(world: World) -> None:
    key = new_key()
    client = await world.session(key)
    answer = await world.api.http.post(
        "/1/push",
        content=b'"from a tool"',
        params={"uid": key, "apikey": world.system.api_key},
        headers={"Authorization": ""},
    )
    assert answer.json() == {"ret": 1}
    await assert_each_receives([client], b'"from a tool"')


async def test_the_nodes_serve_the_api_too(world: World) -> None:
    key = new_key()
    client = await world.session(key, node=1)
    content = encoded_push({"key": key}, b'"through a node"')
    answer = await world.api.http.post(f"{world.node().url}/api/v1/pushes", content=content)
    assert answer.status_code == 202
    assert await client.receive() == Frame(1, MESSAGE, 0, b'"through a node"')
