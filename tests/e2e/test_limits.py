"""The subscriber cap on all nodes together, kicks, tokens that change, and session timeouts."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest

from .clients import TRANSPORTS
from .frames import AUTH, HEARTBEAT, JOIN
from .harness import Embedded, System
from .world import World, new_key

HEARTBEAT_TIMED_OUT, HANDSHAKE_TIMED_OUT = 4002, 4003
UNAUTHORIZED, TOO_MANY_SESSIONS = 4401, 4429
REPLACED, KICKED = 4503, 4504
SILENCE = 5  # seconds
HASTE = 2  # seconds; 5 is the default

Enter = Callable[[System], Awaitable[World]]


@pytest.fixture(scope="module")
def impatient(make_embedded: Callable[..., Embedded]) -> Iterator[System]:
    """A node that hears silence soon, though not before a busy machine can say a word."""
    with make_embedded(IMGO_HEARTBEAT_TIMEOUT=str(SILENCE)) as system:
        yield system


@pytest.fixture(scope="module")
def hasty(make_embedded: Callable[..., Embedded]) -> Iterator[System]:
    """A node that does not wait for long until a client authenticates."""
    with make_embedded(IMGO_HANDSHAKE_TIMEOUT=str(HASTE)) as system:
        yield system


@pytest.mark.parametrize(
    ("kind", "policy"),
    [
        ("embedded", "refuse"),
        ("embedded", "close_oldest"),
        ("cluster", "refuse"),
        ("cluster", "close_oldest"),
    ],
)
@pytest.mark.long(but=["embedded-refuse"])
async def test_the_cap_counts_the_sessions_of_all_nodes(
    request: pytest.FixtureRequest,
    own_system: Callable[[System], System],
    enter: Enter,
    policy: str,
    kind: str,
) -> None:
    make = request.getfixturevalue(f"make_{kind}")
    settings = {"IMGO_MAX_SESSIONS_PER_KEY": "2", "IMGO_SESSION_CAP_POLICY": policy}
    world = await enter(own_system(make(**settings)))
    key = new_key()
    first = await world.session(key, "text", node=0)
    second = await world.session(key, "tcp", node=1)
    token = await world.token(key)
    for transport in ("binary", "tcp", "text"):
        third = await world.connect(transport, node=1)
        if policy == "refuse":
            ending = await third.refused(token)
            assert (ending.code, ending.frames) == (TOO_MANY_SESSIONS, [])
        else:
            await third.auth(token)
            ending = await first.ended()
            assert (ending.code, ending.reconnect) == (REPLACED, False)
            first, second = second, third
        assert await world.api.sessions(key) == 2
    await world.session(new_key())  # others are not concerned
    await world.api.push({"key": key}, b'"for two"')
    assert await first.receive_bodies(1) == [b'"for two"']
    assert await second.receive_bodies(1) == [b'"for two"']
    if policy == "refuse":
        await first.close()
        await world.wait_for_sessions(key, 1)
        await world.session(key, "binary", node=1)


async def test_a_kick_closes_every_session_of_the_key(world: World, transport: str) -> None:
    key = new_key()
    clients = [await world.session(key, transport, node) for node in range(2)]
    bystander = await world.session(new_key(), transport)
    answer = await world.api.http.delete(f"/api/v1/keys/{key}/sessions")
    assert (answer.status_code, answer.json()) == (202, {"closed": 2})
    for client in clients:
        ending = await client.ended()
        assert (ending.code, ending.reconnect) == (KICKED, False)
    await world.wait_for_sessions(key, 0)
    await bystander.heartbeat()


async def test_a_new_token_replaces_the_old_one(world: World, transport: str) -> None:
    key = new_key()
    old = await world.api.make_token(key)
    await (await world.connect(transport)).auth(old)
    new = await world.api.make_token(key)
    ending = await (await world.connect(transport)).refused(old)
    assert ending.code == UNAUTHORIZED
    await (await world.connect(transport)).auth(new)


async def test_a_revoked_token_opens_nothing(world: World) -> None:
    key = new_key()
    token = await world.api.make_token(key)
    answer = await world.api.http.delete(f"/api/v1/tokens/{key}")
    assert answer.status_code == 204
    ending = await (await world.connect()).refused(token)
    assert ending.code == UNAUTHORIZED


async def test_a_client_that_does_not_authenticate_is_closed(hasty: System, enter: Enter) -> None:
    world = await enter(hasty)

    async def wait(transport: str) -> None:
        start = time.monotonic()
        client = await world.connect(transport)
        connected = time.monotonic()
        ending = await client.ended()
        assert (ending.code, ending.frames) == (HANDSHAKE_TIMED_OUT, [])
        assert time.monotonic() - start > HASTE - 0.1
        assert time.monotonic() - connected < 2 * HASTE

    await asyncio.gather(*map(wait, TRANSPORTS))


@pytest.mark.parametrize("sent", [b"", b"\0\0\0\x20\0\x10\0\1\0\0\0\7\0\0\0\1half"])
async def test_half_an_auth_frame_is_not_enough(hasty: System, enter: Enter, sent: bytes) -> None:
    world = await enter(hasty)
    client = await world.connect("tcp")
    await client.send_raw(sent)
    assert (await client.ended()).code == HANDSHAKE_TIMED_OUT


async def test_half_an_upgrade_request_is_closed(hasty: System, enter: Enter) -> None:
    world = await enter(hasty)
    reader, writer = await asyncio.open_connection("127.0.0.1", world.node().http_port)
    try:
        writer.write(b"GET /sub HTTP/1.1\r\nHost: localhost\r\nUpgrade: webso")
        async with asyncio.timeout(10):
            await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_silent_session_is_closed_and_one_with_heartbeats_stays(
    impatient: System, enter: Enter
) -> None:
    world = await enter(impatient)

    async def wait(transport: str) -> None:
        start = time.monotonic()
        silent = await world.session(new_key(), transport)
        lively = await world.session(new_key(), transport)
        ending = asyncio.create_task(silent.ended(3 * SILENCE))
        while not ending.done():
            await lively.heartbeat()
            await asyncio.sleep(0.1)  # the pace of its heartbeats
        assert ((await ending).code, (await ending).reconnect) == (HEARTBEAT_TIMED_OUT, True)
        assert SILENCE - 0.1 < time.monotonic() - start < 3 * SILENCE
        await lively.heartbeat()

    await asyncio.gather(*map(wait, TRANSPORTS))


@pytest.mark.long
async def test_any_frame_is_a_sign_of_life_and_a_push_is_none(
    impatient: System, enter: Enter
) -> None:
    world = await enter(impatient)
    key = new_key()
    silent = await world.session(key)
    lively = await world.session(new_key())
    ending = asyncio.create_task(silent.ended(3 * SILENCE))
    while not ending.done():
        await world.api.push({"key": key}, b'"still there?"', store="never")
        assert (await lively.ask(JOIN, "a room")).op == JOIN + 1
        await asyncio.sleep(0.1)  # the pace of its frames
    assert (await ending).code == HEARTBEAT_TIMED_OUT
    assert (await lively.ask(HEARTBEAT)).op == HEARTBEAT + 1


async def test_a_second_auth_is_for_the_same_key_only(world: World, transport: str) -> None:
    key = new_key()
    client = await world.session(key, transport)
    renewed = await client.ask(AUTH, await world.token(key))
    assert (renewed.op, "error" in str(renewed.body)) == (AUTH + 1, False)
    refused = await client.ask(AUTH, await world.token(new_key()))
    assert (refused.op, "error" in str(refused.body)) == (AUTH + 1, True)
    assert (await client.ask(HEARTBEAT)).op == HEARTBEAT + 1
