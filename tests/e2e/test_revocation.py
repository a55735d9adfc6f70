"""Whose token is revoked, whose login ends or whose time is up: its open sessions are closed."""

import time
from collections.abc import Awaitable, Callable, Iterator

import httpx
import jwt
import pytest

from tests import NO_TLS

from .clients import TRANSPORTS, Client
from .harness import Cluster, Embedded, System, logs, manage
from .test_identity import SECRET, admin_cookies, cookie_header
from .world import World, new_key

EXPIRED, REVOKED = 4402, 4403
SOON = {"IMGO_REVALIDATE_INTERVAL": "1", "IMGO_JWT_LEEWAY": "0"}

Enter = Callable[[System], Awaitable[World]]


@pytest.fixture(scope="module")
def one(make_embedded: Callable[..., Embedded]) -> Iterator[System]:
    """A node that looks at its sessions every second, and accepts JWTs."""
    with make_embedded(**SOON, IMGO_JWT_SECRET=SECRET) as system:
        yield system


@pytest.fixture(scope="module")
def two(make_cluster: Callable[..., Cluster]) -> Iterator[System]:
    """Two nodes that check their sessions every second, and accept JWTs."""
    with make_cluster(**SOON, IMGO_JWT_SECRET=SECRET) as system:
        yield system


@pytest.fixture(params=["one", pytest.param("two", marks=pytest.mark.long)])
async def revoking(request: pytest.FixtureRequest, enter: Enter) -> World:
    """The view of each."""
    return await enter(request.getfixturevalue(request.param))


async def sessions_of(world: World, key: str) -> list[Client]:
    """One of each transport, over all nodes."""
    return [await world.session(key, name, node) for node, name in enumerate(TRANSPORTS)]


async def codes(clients: list[Client]) -> set[int]:
    """The codes that they were closed with, which all say that they may try again."""
    endings = [await client.ended(20) for client in clients]
    assert all(ending.reconnect in (True, None) for ending in endings)
    return {ending.code for ending in endings}


async def test_a_revoked_token_closes_what_it_opened(revoking: World) -> None:
    key, other = new_key(), await revoking.session(new_key())
    clients = await sessions_of(revoking, key)
    answer = await revoking.api.http.delete(f"/api/v1/tokens/{key}")
    assert answer.status_code == 204
    assert await codes(clients) == {REVOKED}
    await other.heartbeat()


async def test_a_replaced_token_closes_what_it_opened(revoking: World) -> None:
    key = new_key()
    clients = await sessions_of(revoking, key)
    token = await revoking.api.make_token(key)
    newer = await revoking.connect("text")
    await newer.auth(token)
    assert await codes(clients) == {REVOKED}
    await newer.heartbeat()


async def test_what_is_pending_stays_for_who_comes_back(revoking: World) -> None:
    key = new_key()
    client = await revoking.session(key, "binary", ack=True)
    number = await revoking.api.push({"key": key}, b'"not acknowledged"')
    assert (await client.receive()).id == number
    token = await revoking.api.make_token(key)
    assert (await client.ended(20)).code == REVOKED
    back = await (await revoking.connect("binary")).auth({"token": token, "ack": True})
    assert (await back.receive()).id == number


async def test_sessions_end_with_their_jwt(revoking: World) -> None:
    token = jwt.encode({"sub": new_key(), "exp": time.time() + 3}, SECRET, "HS256")
    logs.forbid(token)
    await assert_end_in_time(revoking, token)


async def test_sessions_end_with_their_token(revoking: World) -> None:
    await assert_end_in_time(revoking, await revoking.api.make_token(new_key(), expires_in=3))


async def assert_end_in_time(world: World, token: str) -> None:
    """Open a session of each transport, over all nodes: each ends when the token expires."""
    connections = [await world.connect(name, node) for node, name in enumerate(TRANSPORTS)]
    for client in [await connection.auth(token) for connection in connections]:
        ending = await client.ended(20)
        assert (ending.code, ending.frames) == (EXPIRED, [])
        assert ending.reconnect in (True, None)


async def login_session(world: World) -> tuple[Client, dict[str, str]]:
    """A session of the demo's admin, who has signed in, and the cookies."""
    cookies = await admin_cookies(world)
    headers = {"Origin": world.system.api_url, "Cookie": cookie_header(cookies)}
    return await (await world.connect("text", **headers)).auth({}), cookies


async def test_a_logout_closes_what_the_login_opened(one: System, enter: Enter) -> None:
    world = await enter(one)
    staying, _ = await login_session(world)
    leaving, cookies = await login_session(world)
    async with httpx.AsyncClient(
        base_url=one.api_url, cookies=cookies, trust_env=False, verify=NO_TLS
    ) as browser:
        form = {"csrfmiddlewaretoken": cookies["csrftoken"]}
        assert (await browser.post("/admin/logout/", data=form)).status_code == 200
    assert await codes([leaving]) == {REVOKED}
    await staying.heartbeat()


@pytest.mark.long
async def test_a_disabled_user_is_shown_out(
    make_embedded: Callable[..., Embedded],
    own_system: Callable[[System], System],
    enter: Enter,
) -> None:
    world = await enter(own_system(make_embedded(**SOON)))
    client, _ = await login_session(world)
    disable = "from django.contrib.auth.models import User; User.objects.update(is_active=False)"
    manage(world.system.environment, "shell", "--no-imports", "-c", disable)
    assert await codes([client]) == {REVOKED}
