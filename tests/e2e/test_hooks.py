"""Hooks of a running node: the user's backend decides who comes in, where, and what is replied."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from tests.push.hooks.fake_backend import Backend, Request, backend, response

from .frames import AUTH, JOIN
from .harness import Embedded, System, manage
from .world import World, new_key

UNAUTHORIZED, ROOM_FORBIDDEN, UNAVAILABLE, EXPIRED = 4401, 4506, 4013, 4402
SECRET = "whsec_" + base64.b64encode(b"of the tests, with enough bytes!").decode()
SEND = 4

Enter = Callable[[System], Awaitable[World]]


def decide(request: Request) -> bytes:
    """The backend of the tests: the token names the key, and what may happen to it."""
    body: dict[str, Any] = request.body
    if request.path == "/authenticate":
        key, _, what = body["token"].partition(" ")
        answers = {
            "nobody": response(403),
            "broken": response(500),
            "short": response(200, {"key": key, "expires_in": 1}),
        }
        return answers.get(what, response(200, {"key": key, "rooms": ["a"], "join": ["lobby"]}))
    if request.path == "/authorize":
        return response(200, {"allowed": body["room"].startswith("open-")})
    return response(200, {"from": body["key"], "echo": body["body"]})


@pytest.fixture
async def hooked(make_embedded: Callable[..., Embedded]) -> AsyncIterator[tuple[System, Backend]]:
    """A node whose hooks lead to a backend."""
    async with backend(decide) as stub:
        system = make_embedded(
            IMGO_AUTHENTICATE_URL=f"{stub.url}/authenticate",
            IMGO_AUTHORIZE_ROOM_URL=f"{stub.url}/authorize",
            IMGO_RECEIVE_URL=f"{stub.url}/receive",
            IMGO_HOOK_SECRETS=SECRET,
            IMGO_HOOK_TIMEOUT="1",
        )
        await asyncio.to_thread(system.start)
        try:
            yield system, stub
        finally:
            await asyncio.to_thread(system.stop)


async def test_hooks_decide_about_sessions_rooms_and_upstream_messages(
    hooked: tuple[System, Backend], enter: Enter
) -> None:
    system, stub = hooked
    world = await enter(system)
    for transport in ("tcp", "binary", "text"):
        key = new_key()
        client = await world.connect(transport)
        await client.auth({"token": key, "rooms": ["open-1"]})
        assert (await client.ask(JOIN, "shut-1")).value["error"]["code"] == "room_forbidden"
        assert not (await client.ask(JOIN, "open-2")).value
        assert (await client.ask(SEND, {"n": 1})).value == {"from": key, "echo": {"n": 1}}
        for target in ({"key": key}, {"room": "lobby"}, {"room": "open-1"}, {"room": "open-2"}):
            await world.api.push(target, b"1")
        assert await client.receive_bodies(4) == [b"1"] * 4
        await client.close()
    paths = [request.path for request in stub.requests]
    assert paths.count("/authenticate") == 3  # the room of `join` is not asked for
    assert paths.count("/authorize") == 9
    assert stub.connections <= 16


@pytest.mark.parametrize(
    ("what", "rooms", "code"),
    [
        ("nobody", [], UNAUTHORIZED),
        ("broken", [], UNAVAILABLE),
        ("fine", ["shut"], ROOM_FORBIDDEN),
        ("short", [], EXPIRED),
    ],
)
async def test_refusal_of_the_backend_closes_with_its_code(
    hooked: tuple[System, Backend], enter: Enter, what: str, rooms: list[str], code: int
) -> None:
    world = await enter(hooked[0])
    client = await world.connect("tcp")
    await client.send(AUTH, {"token": f"{new_key()} {what}", "rooms": rooms})
    assert (await client.ended(20)).code == code


async def test_client_beyond_the_queue_is_refused_with_the_word_overloaded(
    make_embedded: Callable[..., Embedded], enter: Enter
) -> None:
    """Ten calls may wait for the only connection, and nobody waits for `HOOK_TIMEOUT`."""
    async with backend(decide) as stub:
        stub.gate = asyncio.Event()
        system = make_embedded(
            IMGO_AUTHENTICATE_URL=f"{stub.url}/authenticate",
            IMGO_HOOK_SECRETS=SECRET,
            IMGO_HOOK_CONNECTIONS="1",
            IMGO_HOOK_TIMEOUT="1",
        )
        await asyncio.to_thread(system.start)
        try:
            world = await enter(system)
            clients = [await world.connect(kind) for kind in ("tcp", "text", "binary") * 8]
            for client in clients:
                await client.send(AUTH, {"token": new_key()})
            ends = await asyncio.gather(*(client.ended(20) for client in clients))
        finally:
            await asyncio.to_thread(system.stop)
    assert {end.code for end in ends} == {UNAVAILABLE}
    reasons = [end.reason for end in ends]
    assert sum(reason.startswith("overloaded") for reason in reasons) >= 13, reasons


@pytest.mark.long
async def test_open_circuit_is_shown_by_hooks_and_explain(
    hooked: tuple[System, Backend], enter: Enter
) -> None:
    system, _ = hooked
    world, key, environment = await enter(system), new_key(), system.nodes[0].environment
    for number in range(6):
        client = await world.connect("tcp")
        await client.send(AUTH, {"token": f"{key} broken", "rooms": []})
        end = await client.ended(20)
        assert (number, end.code) == (number, UNAVAILABLE)
        assert end.reason == "The backend gave no usable answer to the hook authenticate."

    async def shown() -> dict[str, Any]:
        text = await asyncio.to_thread(manage, environment, "hooks", "--json")
        return json.loads(text)[0]

    row = await shown()
    while row["calls"] < 6:  # figures are up to five seconds old
        row = await shown()
    (name,) = row["open_on"]
    assert row["failures"] == {"bad_answer": 5, "circuit_open": 1}
    assert (row["hook"], row["calls"], row["mean_ms"]) == ("authenticate", 6, None)
    table = await asyncio.to_thread(manage, environment, "hooks")
    assert f"circuit open on {name}" in table
    assert "5 bad_answer, 1 circuit_open" in table
    text = await asyncio.to_thread(manage, environment, "explain", key)
    assert f"The hook authenticate kept failing, and is called only now and then by {name}" in text


async def test_ping_shows_each_hooks_answer(
    hooked: tuple[System, Backend],
) -> None:
    system, _ = hooked
    done = await asyncio.to_thread(manage, system.environment, "hooks", "ping")
    assert "authenticate" in done
    assert "the key 'imgo-ping'" in done
    assert "forbidden" in done
