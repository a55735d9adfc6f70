"""goim v2's clients and callers: its auth object, its ops, its paths."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests import eventually

from .frames import CHANGE_ROOM, CHANGE_ROOM_REPLY, HEARTBEAT, Frame
from .harness import Embedded, System, logs
from .world import World, new_key, new_room

SUB, SUB_REPLY, UNSUB, UNSUB_REPLY = 14, 15, 16, 17


async def goim(world: World, path: str, content: bytes = b"", **query: Any) -> None:
    """Push over one of goim's paths, which must succeed."""
    logs.forbid(content)
    answer = await world.api.http.post(f"/goim/push/{path}", params=query, content=content)
    assert (answer.status_code, answer.json()) == (200, {"code": 0, "message": ""}), answer.text


async def online(world: World, path: str, **query: Any) -> Any:
    """The data of one of goim's answers."""
    answer = await world.api.get(f"/goim/{path}", **query)
    assert answer["code"] == 0
    return answer["data"]


async def next_message(client: Any) -> tuple[int, bytes]:
    frame: Frame = await client.receive()
    return frame.op, frame.body


async def test_mids_are_users_and_accepts_are_what_they_get(world: World, transport: str) -> None:
    mid = new_key()
    body = {"mid": 1, "key": "k", "room_id": "live://1", "token": await world.token(mid)}
    client = await world.connect(transport)
    await client.auth({**body, "platform": "web", "accepts": [1000, 1001]})
    for op in (1002, 1000, 1003, 1001):
        await goim(world, "mids", b'"op %d"' % op, operation=op, mids=mid)
    assert await next_message(client) == (1000, b'"op 1000"')
    assert await next_message(client) == (1001, b'"op 1001"')
    await world.settle()
    await client.heartbeat()  # and nothing before its answer


async def test_a_thousand_keys_fit_a_query(world: World) -> None:
    key = new_key()
    client = await world.session(key, "text")
    others = [f"{key}-{number:0>30}" for number in range(999)]
    await goim(world, "keys", b'"to many"', operation=1000, keys=[*others, key])
    assert await next_message(client) == (1000, b'"to many"')


async def test_what_a_session_does_not_accept_waits_for_one_that_does(
    world: World, transport: str
) -> None:
    mid = new_key()
    client = await world.session(mid, transport, accepts=[1000])
    await goim(world, "mids", b'"later"', operation=1001, mids=mid)
    await world.settle()
    await client.heartbeat()
    again = await world.session(mid, transport, accepts=[1000])
    await again.heartbeat()
    other = await world.session(mid, transport, accepts=[1001])
    assert await next_message(other) == (1001, b'"later"')
    await world.wait_for_pending(mid, 0)


async def test_a_session_changes_what_it_accepts(world: World, transport: str) -> None:
    room = new_room()
    client = await world.session(new_key(), transport, room_id=f"live://{room}", accepts=[1000])
    witness = await world.session(new_key(), transport, rooms=[f"live://{room}"])
    reply = await client.ask(SUB, "1001,1002")
    assert (reply.op, reply.body.strip(b'"')) == (SUB_REPLY, b"1001,1002")
    reply = await client.ask(UNSUB, "1000")
    assert reply.op == UNSUB_REPLY
    for op in (1000, 1001, 1002, 5):
        query = {"operation": op, "type": "live", "room": room}
        await goim(world, "room", b'"op %d"' % op, **query)
        assert await next_message(witness) == (op, b'"op %d"' % op)
    got = [await next_message(client) for _ in range(3)]
    assert got == [(op, b'"op %d"' % op) for op in (1001, 1002, 5)]


@pytest.mark.parametrize("body", ["x", "1.5", "1000,", "4294967296", "-1"])
async def test_ops_that_are_none_are_refused_and_the_session_goes_on(
    world: World, transport: str, body: str
) -> None:
    client = await world.session(new_key(), transport)
    reply = await client.ask(SUB, body)
    is_fine = body == "1000,"  # goim's clients may end the list like that
    assert (reply.op, "error" in str(reply.body)) == (SUB_REPLY, not is_fine)
    await client.heartbeat()


async def test_a_session_that_has_named_no_ops_takes_all_until_it_does(
    world: World, transport: str
) -> None:
    mid = new_key()
    client = await world.session(mid, transport)
    assert (await client.ask(UNSUB, "1000")).op == UNSUB_REPLY
    await goim(world, "mids", b"1", operation=1000, mids=mid)
    assert await next_message(client) == (1000, b"1")
    assert (await client.ask(SUB, "1001")).op == SUB_REPLY
    await goim(world, "mids", b"2", operation=1000, mids=mid)
    await goim(world, "mids", b"3", operation=1001, mids=mid)
    assert await next_message(client) == (1001, b"3")


async def test_goims_rooms_are_counted_by_type(world: World, transport: str) -> None:
    kind, room = f"live{new_room()}", new_room()
    client = await world.session(new_key(), transport, room_id=f"{kind}://{room}")
    assert await online(world, "online/top", type=kind, limit=5) == [{"room_id": room, "count": 1}]
    assert await online(world, "online/room", type=kind, rooms=[room, "0"]) == {room: 1, "0": 0}
    await client.ask(CHANGE_ROOM, f"{kind}://0")
    assert await online(world, "online/room", type=kind, rooms=[room, "0"]) == {room: 0, "0": 1}


async def test_a_heartbeat_is_answered_by_the_size_of_the_room_on_all_nodes(
    world: World, transport: str
) -> None:
    room, other = f"live://{new_room()}", f"live://{new_room()}"
    clients = [await world.session(new_key(), transport, n, room_id=room) for n in (0, 1, 1)]
    ours = await world.session(new_key(), transport, rooms=[room])
    has_sizes = transport != "text"

    async def is_told(client: Any, *sizes: int) -> bool:
        body = (await client.ask(HEARTBEAT, b"", 7)).body
        return body in [size.to_bytes(4) for size in sizes] if has_sizes else body == b"{}"

    assert await is_told(clients[0], 2, 4)  # at once those of its own node
    await eventually(lambda: is_told(clients[0], 4))
    await eventually(lambda: is_told(clients[1], 4))
    await ours.heartbeat()
    reply = await clients[0].ask(CHANGE_ROOM, other)
    assert (reply.op, reply.body) == (CHANGE_ROOM_REPLY, other.encode() if has_sizes else b"{}")
    assert await is_told(clients[0], 1)
    await clients[0].ask(CHANGE_ROOM, "")
    assert await is_told(clients[0], 0)


async def test_goims_callers_are_told_of_nodes_and_totals(world: World) -> None:
    await world.session(new_key())
    nodes = await online(world, "nodes/instances")
    assert len(nodes) == len(world.system.nodes)
    weighted = await online(world, "nodes/weighted", platform="web")
    assert weighted["nodes"] == [weighted["domain"]] == ["127.0.0.1"]
    assert (await online(world, "online/total"))["conn_count"] >= 1


async def test_a_broadcast_may_take_its_time(world: World, transport: str) -> None:
    clients = [await world.session(new_key(), transport, node) for node in (0, 1, 0, 1)]

    async def nobody_else_is_there() -> bool:
        return bool((await online(world, "online/total"))["conn_count"] == len(clients))

    await eventually(nobody_else_is_there)
    begin = asyncio.get_running_loop().time()
    await goim(world, "all", b'"slowly"', operation=5, speed=len(clients))  # a second for all
    arrived = []
    for client in clients:
        assert await next_message(client) == (5, b'"slowly"')
        arrived.append(asyncio.get_running_loop().time() - begin)
    assert max(arrived) > 0.2


# With GOIM_TRUSTED


@pytest.fixture(scope="module")
def trusting(make_embedded: Callable[..., Embedded]) -> Any:
    """An installation that believes goim's clients."""
    with make_embedded(IMGO_GOIM_TRUSTED="1") as system:
        yield system


@pytest.fixture
async def closed_network(trusting: System, enter: Callable[[System], Awaitable[World]]) -> World:
    """A world that uses the trusting installation."""
    return await enter(trusting)


async def test_a_client_that_is_believed_needs_no_token(
    closed_network: World, transport: str
) -> None:
    world, mid, name = closed_network, new_key(), f"conn-{new_key()}"
    body = {"mid": int(mid), "key": name, "room_id": "live://1", "accepts": [1000]}
    client = await (await world.connect(transport)).auth(body)
    await goim(world, "mids", b'"to the user"', operation=1000, mids=mid)
    assert await next_message(client) == (1000, b'"to the user"')
    await goim(world, "keys", b'"to the connection"', operation=1000, keys=name)
    assert await next_message(client) == (1000, b'"to the connection"')
    await client.close()
    await world.wait_for_sessions(mid, 0)
    await goim(world, "keys", b'"to nobody"', operation=1000, keys=name)
    await goim(world, "mids", b'"kept"', operation=1000, mids=mid)
    client = await (await world.connect(transport)).auth(body)
    assert await next_message(client) == (1000, b'"kept"')


async def test_a_client_without_a_name_is_in_its_room(
    closed_network: World, transport: str
) -> None:
    world, room = closed_network, new_room()
    body = {"mid": 0, "key": "", "room_id": f"live://{room}", "accepts": [1000]}
    client = await (await world.connect(transport)).auth(body)
    await goim(world, "room", b"1", operation=1000, type="live", room=room)
    assert await next_message(client) == (1000, b"1")
    await client.ask(HEARTBEAT)


async def test_a_wrong_token_is_not_made_good_by_a_name(
    closed_network: World, transport: str
) -> None:
    client = await closed_network.connect(transport)
    body = {"mid": 1, "key": "k", "token": "wrong", "accepts": [1000]}
    assert (await client.refused(body)).code == 4401
