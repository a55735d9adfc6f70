"""The Python client against real servers: each transport, restarts, and what both sides keep."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from imgo_client import Client, Closed, FileSeen, Message, NotOpen, Refused
from tests import eventually

from .harness import HOST, Embedded, Node, System
from .world import World, new_key, new_room

ONE_NODE_PROVES = True  # to a client, nodes of a cluster are no different

Log = list[tuple[str, Any]]


def url_of(node: Node, scheme: str) -> str:
    return {
        "ws": f"ws://{HOST}:{node.http_port}/sub",
        "tcp": f"tcp://{HOST}:{node.tcp_port}",
        "http": f"http://{HOST}:{node.http_port}/sub/events",
    }[scheme]


@pytest.fixture(params=["embedded", "cluster"])
def system(request: pytest.FixtureRequest) -> System:
    """To a client, sessions that stay in Daphne are no different."""
    system: System = request.getfixturevalue(request.param)
    return system


@pytest.fixture(params=["ws", "tcp", pytest.param("http", marks=pytest.mark.long)])
def scheme(request: pytest.FixtureRequest) -> str:
    """Each transport of the client."""
    return str(request.param)


def make(world: World, scheme: str, token: Any, **options: Any) -> tuple[Client, Log]:
    """A client, and the log of what it tells."""
    client = Client(url_of(world.node(), scheme), token, **{"backoff": (0.05, 0.5), **options})
    log: Log = []
    for event in ("state", "open", "close", "error"):
        client.on(event, lambda value, event=event: log.append((event, value)))
    return client, log


async def take(client: Client, count: int) -> list[Message]:
    """The next messages; each is acknowledged."""
    messages = []
    async for message in client:
        messages.append(message)
        message.ack()
        if len(messages) == count:
            break
    return messages


@asynccontextmanager
async def opened(client: Client) -> AsyncIterator[Client]:
    """With an open session."""
    async with client:
        await eventually(lambda: client.state == "open")
        yield client


async def test_messages_come_in_order_and_are_acknowledged(world: World, scheme: str) -> None:
    key = new_key()
    await world.api.push({"key": key}, {"waited": True})
    client, log = make(world, scheme, await world.token(key), platform="python")
    async with opened(client):
        session = (await world.api.key(key))["sessions"][0]
        assert session["platform"] == "python"
        ids = [await world.api.push({"key": key}, body) for body in (b'{"a":1.5}', b'"x"', b"[]")]
        messages = await take(client, 4)
        assert [message.body for message in messages] == [{"waited": True}, {"a": 1.5}, "x", []]
        assert [message.id for message in messages][1:] == ids
        await world.wait_for_pending(key, 0)
    await world.wait_for_sessions(key, 0)
    assert [value for event, value in log if event == "state"] == ["connecting", "open", "closed"]
    assert [event for event, _ in log if event == "error"] == []


async def test_a_body_that_is_no_json_is_text(world: World, scheme: str) -> None:
    key = new_key()
    client, _ = make(world, scheme, await world.token(key))
    async with opened(client):
        await world.api.imgo("/1/push", b"hello \xc5\xbc", uid=key)
        assert [message.body for message in await take(client, 1)] == ["hello ż"]


async def test_what_was_not_acknowledged_comes_again(world: World, scheme: str) -> None:
    key = new_key()
    for n in range(3):
        await world.api.push({"key": key}, n)
    failed: list[Any] = []

    def handler(message: Message) -> None:
        if message.body == 1 and not failed:
            failed.append(message.id)
            raise RuntimeError("not now")

    client, log = make(world, scheme, await world.token(key))
    running = asyncio.ensure_future(client.run(handler))
    await world.wait_for_pending(key, 1)
    await client.close()
    await running
    assert [str(value) for event, value in log if event == "error"] == ["not now"]

    async with client:
        (again,) = await take(client, 1)
        assert (again.body, [again.id]) == (1, failed)
        await world.wait_for_pending(key, 0)


async def test_the_last_acknowledgement_leaves_before_the_close(world: World, scheme: str) -> None:
    key = new_key()
    await world.api.push({"key": key}, 1)
    client, _ = make(world, scheme, await world.token(key))
    async with client:
        await take(client, 1)
    await world.wait_for_pending(key, 0)


async def test_rooms_and_requests(world: World, scheme: str) -> None:
    key, first, second = new_key(), new_room(), new_room()
    client, _ = make(world, scheme, await world.token(key), rooms=[first])
    with pytest.raises(NotOpen):
        await client.request(1)
    assert await client.join(second) is False
    async with opened(client):
        assert await client.request({"any": "thing"}) == {}
        for room in (first, second):
            await world.api.push({"room": room}, room.encode())
            assert [message.body for message in await take(client, 1)] == [int(room)]
        assert await client.leave(first) is True
        assert await client.change_room(first) is True
        assert await client.change_room() is True
        assert client.rooms == [second]
        with pytest.raises(Refused, match="control characters"):
            await client.join("a\nb")
        with pytest.raises(ValueError, match="bytes"):
            await client.request("x" * 1_100)
        await eventually(lambda: _is_in(world, first, second))


async def _is_in(world: World, left: str, stayed: str) -> bool:
    rooms = await world.api.rooms()
    return left not in rooms and rooms.get(stayed) == 1


async def test_a_wrong_token_is_told_and_the_client_goes_on_trying(
    world: World, scheme: str
) -> None:
    key = new_key()
    right = await world.token(key)
    tokens = iter(["wrong"])
    client, log = make(world, scheme, lambda: next(tokens, right))
    async with opened(client):
        codes = [value.code for event, value in log if event == "close"]
        assert codes == [4401]


async def test_an_administrators_close_ends_it(world: World, scheme: str) -> None:
    key = new_key()
    client, log = make(world, scheme, await world.token(key))
    async with opened(client):
        answer = await world.api.http.delete(f"/api/v1/keys/{key}/sessions")
        assert answer.status_code == 202
        with pytest.raises(Closed) as caught:
            await take(client, 1)
        assert (caught.value.code, client.state) == (4504, "closed")
    assert [value.will_reconnect for event, value in log if event == "close"] == [False]


async def test_a_device_that_keeps_its_last_id_gets_what_others_have_had(
    world: World, scheme: str, tmp_path: Path
) -> None:
    key = new_key()
    token = await world.token(key)
    first = await world.api.push({"key": key}, 1)
    async with make(world, scheme, token)[0] as phone:
        await take(phone, 1)
        await world.wait_for_pending(key, 0)
        rest = [await world.api.push({"key": key}, n) for n in (2, 3)]
        await take(phone, 2)
        await world.wait_for_pending(key, 0)
    tablet, _ = make(world, scheme, token, since=first, seen=FileSeen(tmp_path / "seen"))
    async with tablet:
        assert [message.id for message in await take(tablet, 2)] == rest
    tablet, _ = make(world, scheme, token, since=first, seen=FileSeen(tmp_path / "seen"))
    async with tablet:
        last = await world.api.push({"key": key}, 4)
        assert [message.id for message in await take(tablet, 1)] == [last]


@pytest.mark.long
async def test_a_restart_loses_nothing_and_doubles_nothing(
    make_embedded: Callable[..., Embedded],
    own_system: Callable[[System], System],
    enter: Any,
    scheme: str,
    tmp_path: Path,
) -> None:
    system = own_system(make_embedded())
    world = await enter(system)
    key, node = new_key(), system.nodes[0]
    token = await world.token(key)
    handled: list[Any] = []

    async def handler(message: Message) -> None:
        await asyncio.sleep(0)
        handled.append(message.body)

    client, log = make(world, scheme, token, seen=FileSeen(tmp_path / "seen"))
    running = asyncio.ensure_future(client.run(handler))
    for n in range(40):
        await world.api.push({"key": key}, n)
    await eventually(lambda: len(handled) > 5)
    node.kill()
    await eventually(lambda: client.state != "open")
    await node.start_beside()
    for n in range(40, 80):
        await world.api.push({"key": key}, n)
    await eventually(lambda: len(handled) >= 80, timeout=30)
    node.stop()  # in order this time
    await eventually(lambda: client.state != "open")
    await node.start_beside()
    await world.api.push({"key": key}, 80)
    await eventually(lambda: len(handled) >= 81, timeout=30)
    await world.wait_for_pending(key, 0)
    await client.close()
    await running
    assert handled == list(range(81))
    *closes, last = [value for event, value in log if event == "close"]
    assert all(ending.will_reconnect for ending in closes)
    assert (last.code, last.will_reconnect) == (1000, False)
    assert 4000 in [ending.code for ending in closes]


async def test_what_was_handled_before_a_crash_is_not_handled_again(
    world: World, scheme: str, tmp_path: Path
) -> None:
    key = new_key()
    token = await world.token(key)
    ids = [await world.api.push({"key": key}, n) for n in range(3)]
    # The process ended between the file and the acknowledgement of the first two.
    (tmp_path / "seen").write_text(f"{ids[0]}\n{ids[1]}\n")
    client, _ = make(world, scheme, token, seen=FileSeen(tmp_path / "seen"))
    async with client:
        assert [message.id for message in await take(client, 1)] == ids[2:]
        await world.wait_for_pending(key, 0)
    assert (tmp_path / "seen").read_text().split() == [str(one) for one in ids]


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])
async def test_a_handler_may_be_either(world: World, *, is_async: bool) -> None:
    key = new_key()
    got: list[Any] = []
    client, _ = make(world, "ws", await world.token(key))

    async def later(message: Message) -> None:
        got.append(message.body)
        await client.request("an answer while a message is in hand")

    running = asyncio.ensure_future(client.run(later if is_async else lambda m: got.append(m.body)))
    await eventually(lambda: client.state == "open")
    await world.api.push({"key": key}, 1)
    await world.api.push({"key": key}, 2)
    await world.wait_for_pending(key, 0)
    assert got == [1, 2]
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert client.state == "closed"
