"""What a key missed: kept, replayed in order and once, then gone; and the limits of that."""

from collections.abc import Awaitable, Callable

import pytest

from .frames import Frame
from .harness import System
from .world import World, new_key


async def test_missed_messages_are_replayed_in_order_and_once(world: World, transport: str) -> None:
    key = new_key()
    bodies = [b'{"n": %d}' % n for n in range(6)]
    await world.api.push({"key": key}, bodies[0])
    await world.api.imgo("/1/push", bodies[1], uid=key)
    await world.api.push({"keys": [new_key(), key]}, bodies[2])
    await world.api.imgo("/1/pushs", b'{"m":%b,"u":[%b]}' % (bodies[3], key.encode()))
    await world.api.push({"key": key}, bodies[4])
    assert await world.api.pending(key) == 5

    client = await world.session(key, transport)
    await world.api.push({"key": key}, bodies[5])
    assert await client.receive_bodies(6) == bodies
    await world.wait_for_pending(key, 0)

    await world.settle()
    again = await world.session(key, transport, node=1)
    await world.api.push({"key": key}, b'"the end"')
    assert await again.receive_bodies(1) == [b'"the end"']


@pytest.mark.long(but=["embedded-tcp", "cluster-tcp"])
async def test_a_replay_of_many_pages_is_complete(world: World, transport: str) -> None:
    key = new_key()
    await world.token(key)
    bodies = [b"%d" % n for n in range(450)]  # a page has 200
    for start in range(0, 450, 150):
        pushes = [
            b'{"to":{"key":"%b"},"body":%b}' % (key.encode(), body)
            for body in bodies[start : start + 150]
        ]
        await world.api.push_many(pushes)
    client = await world.session(key, transport)
    assert await client.receive_bodies(450) == bodies
    await world.wait_for_pending(key, 0)


async def test_rooms_and_broadcasts_are_not_kept(world: World) -> None:
    key = new_key()
    witness = await world.session(new_key(), rooms=["a room"])
    await world.api.push({"room": "a room"}, b'"for the room"')
    assert await witness.receive_bodies(1) == [b'"for the room"']
    await world.api.push({"all": True}, b'"for all"')
    assert await witness.receive_bodies(1) == [b'"for all"']
    late = await world.session(key, rooms=["a room"])
    await world.api.push({"key": key}, b'"the end"')
    assert await late.receive_bodies(1) == [b'"the end"']


async def test_store_never_keeps_nothing(world: World) -> None:
    key, other = new_key(), new_key()
    witness = await world.session(other)
    await world.api.push({"keys": [key, other]}, b'"for who is there"', store="never")
    assert await witness.receive_bodies(1) == [b'"for who is there"']
    assert await world.api.pending(key) == 0
    client = await world.session(key)
    await world.api.push({"key": key}, b'"the end"')
    assert await client.receive_bodies(1) == [b'"the end"']


@pytest.mark.long(but=["embedded"])
async def test_a_message_expires_after_its_ttl(world: World) -> None:
    key = new_key()
    await world.api.push({"key": key}, b'"short-lived"', ttl=4)
    await world.api.push({"key": key}, b'"long-lived"', ttl=1000)
    assert await world.api.pending(key) == 2
    await world.wait_for_pending(key, 1)
    client = await world.session(key)
    assert await client.receive_bodies(1) == [b'"long-lived"']


@pytest.mark.parametrize("kind", ["embedded", "cluster"])
@pytest.mark.long(but=["embedded"])
async def test_a_key_keeps_its_newest_messages_up_to_the_limit(
    kind: str,
    request: pytest.FixtureRequest,
    own_system: Callable[[System], System],
    enter: Callable[[System], Awaitable[World]],
) -> None:
    make = request.getfixturevalue(f"make_{kind}")
    world = await enter(own_system(make(IMGO_OFFLINE_MAX="5")))
    key, other = new_key(), new_key()
    bodies = [b"%d" % n for n in range(8)]
    await world.api.push({"key": other}, b'"of another key"')
    for body in bodies:
        await world.api.push({"key": key}, body)
    await world.wait_for_pending(key, 5)
    assert await world.api.pending(other) == 1
    client = await world.session(key)
    assert await client.receive_bodies(5) == bodies[3:]
    await world.wait_for_pending(key, 0)


async def test_imgos_msg_get_shows_what_is_pending_and_removes_nothing(world: World) -> None:
    key = new_key()
    token = await world.token(key)
    await world.api.push({"key": key}, b'{"a" : 1}')
    await world.api.imgo("/1/push", b"not json", uid=key)

    async def get(**query: str) -> dict[str, object]:
        answer = await world.api.http.get(
            "/1/msg/get", params={"uid": key, **query}, headers={"Authorization": ""}
        )
        return dict(answer.json())

    answer = await get(token=token, mid="0")
    assert answer["ret"] == 0
    first, second = answer["data"]["msgs"]  # type: ignore[index]
    assert (first["msg"], first["gid"], second["msg"]) == ({"a": 1}, 0, "not json")
    assert 0 < first["mid"] < second["mid"]
    later = await get(token=token, mid=str(first["mid"]))
    assert later == {"ret": 0, "data": {"msgs": [second]}}
    assert await get(token="wrong", mid="0") == {"ret": 65533}
    assert await get(token=await world.token(new_key()), mid="0") == {"ret": 65533}
    assert await get(token=token, mid="x") == {"ret": 65534}

    client = await world.session(key)
    assert await client.receive_bodies(2) == [b'{"a" : 1}', b"not json"]
    await world.wait_for_pending(key, 0)
    assert await get(token=token, mid="0") == {"ret": 0, "data": {"msgs": []}}


async def test_imgos_msg_get_answers_jsonp_to_a_plain_callback_only(world: World) -> None:
    key = new_key()
    query = {"uid": key, "token": await world.token(key), "mid": "0"}
    answer = await world.api.http.get("/1/msg/get", params={**query, "cb": "show_1"})
    assert answer.text == 'show_1({"ret": 0, "data": {"msgs": []}})'
    assert "javascript" in answer.headers["Content-Type"]
    answer = await world.api.http.get("/1/msg/get", params={**query, "cb": "alert(1);a"})
    assert answer.json() == {"ret": 65534}


async def test_pending_messages_keep_their_op(world: World, transport: str) -> None:
    key = new_key()
    await world.api.push({"key": key}, b'{"op": 1000}', op=1000)
    client = await world.session(key, transport)
    assert await client.receive() == Frame(1, 1000, 0, b'{"op": 1000}')
