"""Who a session is for: JSON web tokens, and the session cookie of a signed-in Django user."""

import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx
import jwt
import pytest

from tests import NO_TLS

from .frames import AUTH, JOIN
from .harness import Embedded, System, logs
from .world import World, new_key

UNAUTHORIZED, EXPIRED, TOO_LARGE = 4401, 4402, 4502
SECRET = "a secret for tests that has enough bytes"

Enter = Callable[[System], Awaitable[World]]


@pytest.fixture(scope="module")
def jwt_system(make_embedded: Callable[..., Embedded]) -> Iterator[System]:
    """A node that accepts our JWTs."""
    with make_embedded(IMGO_JWT_SECRET=SECRET) as system:
        yield system


def signed(claims: dict[str, Any], secret: str = SECRET, algorithm: str = "HS256") -> str:
    token = jwt.encode(claims, secret, algorithm)
    logs.forbid(token)
    return token


async def test_a_jwt_opens_a_session_of_its_subject(
    jwt_system: System, enter: Enter, transport: str
) -> None:
    world = await enter(jwt_system)
    key = new_key()
    token = signed({"sub": key, "exp": time.time() + 60, "rooms": ["team-*"]})
    client = await world.connect(transport)
    await client.auth({"token": token, "rooms": ["team-1"]})
    assert (await client.ask(JOIN, "other")).value["error"]["code"] == "room_forbidden"
    await world.api.push({"key": key}, b'"for the subject"')
    assert await client.receive_bodies(1) == [b'"for the subject"']


async def test_a_jwt_as_long_as_an_auth_body_opens_and_renews_a_session(
    jwt_system: System, enter: Enter, transport: str
) -> None:
    world = await enter(jwt_system)
    claims = {"sub": new_key(), "exp": time.time() + 60}
    token = signed({**claims, "pad": "x" * 6_000})
    assert 8_100 < len(token) < 8_180  # of 8,192, with quotes or as an object
    client = await (await world.connect(transport)).auth(token)
    for body in (token, {"token": token}):
        assert (await client.ask(AUTH, body)).value["expires_in"] > 0
    await client.send(AUTH, signed({**claims, "pad": "x" * 6_100}))
    assert (await client.ended()).code == TOO_LARGE
    client = await world.connect(transport)
    ending = await client.refused(signed({**claims, "pad": "x" * 6_100}))
    assert ending is not None
    assert ending.code == TOO_LARGE


async def test_jwt_within_the_leeway_opens_a_session_that_ends_with_it(
    jwt_system: System, enter: Enter
) -> None:
    world = await enter(jwt_system)
    token = signed({"sub": new_key(), "exp": time.time() - 2})  # the leeway is 5 s
    client = await (await world.connect("tcp")).auth(token)
    assert (await client.ended(20)).code == EXPIRED


@pytest.mark.parametrize(
    "case",
    ["another secret", "expired", "no expiry", "no subject", "unsigned", "rooms", "audience"],
)
async def test_a_bad_jwt_is_refused(
    jwt_system: System, enter: Enter, transport: str, case: str
) -> None:
    world = await enter(jwt_system)
    claims = {"sub": new_key(), "exp": time.time() + 60}
    token = {
        "another secret": lambda: signed(claims, "x" * 40),
        "expired": lambda: signed({**claims, "exp": time.time() - 60}),
        "no expiry": lambda: signed({"sub": claims["sub"]}),
        "audience": lambda: signed({**claims, "aud": "another.example"}),
        "no subject": lambda: signed({"exp": time.time() + 60}),
        "unsigned": lambda: signed(claims, "", "none"),
        "rooms": lambda: signed({**claims, "rooms": 7}),
    }[case]()
    client = await world.connect(transport)
    ending = await client.refused(token)
    assert (ending.code, ending.frames) == (UNAUTHORIZED, [])


async def test_stored_tokens_work_beside_jwts(jwt_system: System, enter: Enter) -> None:
    world = await enter(jwt_system)
    await world.session(new_key())


async def admin_cookies(world: World) -> dict[str, str]:
    """The cookies of a browser in which the demo's admin has signed in."""
    system = world.system
    assert isinstance(system, Embedded)
    password = system.demo()["admin_password"]
    logs.forbid(password)
    async with httpx.AsyncClient(
        base_url=system.api_url, trust_env=False, verify=NO_TLS
    ) as browser:
        await browser.get("/admin/login/")
        form = {"username": "admin", "password": password, "next": "/admin/"}
        answer = await browser.post(
            "/admin/login/",
            data={**form, "csrfmiddlewaretoken": browser.cookies["csrftoken"]},
        )
        assert (answer.status_code, answer.headers.get("Location")) == (302, "/admin/")
        logs.forbid(browser.cookies["sessionid"])
        return dict(browser.cookies)


def cookie_header(cookies: dict[str, str]) -> str:
    return "; ".join(f"{name}={value}" for name, value in cookies.items())


@pytest.mark.parametrize("transport", ["text", "binary"])
async def test_a_signed_in_user_needs_no_token_on_our_own_pages(
    embedded: System, enter: Enter, transport: str
) -> None:
    world = await enter(embedded)
    cookie = cookie_header(await admin_cookies(world))
    client = await world.connect(transport, Origin=embedded.api_url, Cookie=cookie)
    await client.auth({"rooms": ["lobby"]})
    await world.api.push({"key": "1"}, b'"for the admin"')  # the first user's primary key
    assert await client.receive_bodies(1) == [b'"for the admin"']


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "http://127.0.0.1", "http://127.0.0.1.evil.example", "null"]
)
async def test_the_cookie_is_refused_from_another_origin(
    embedded: System, enter: Enter, origin: str
) -> None:
    world = await enter(embedded)
    cookie = cookie_header(await admin_cookies(world))
    await world.wait_for_sessions("1", 0)  # those before have gone
    client = await world.connect("text", Origin=origin, Cookie=cookie)
    assert (await client.refused({})).code == UNAUTHORIZED
    assert await world.api.sessions("1") == 0


async def test_the_cookie_is_refused_without_an_origin(embedded: System, enter: Enter) -> None:
    world = await enter(embedded)
    cookie = cookie_header(await admin_cookies(world))
    client = await world.connect("text", Cookie=cookie)
    assert (await client.refused({})).code == UNAUTHORIZED


@pytest.mark.parametrize("cookie", ["", "sessionid=wrong", "sessionid=", '=;=;,"'])
async def test_a_wrong_cookie_is_refused(embedded: System, enter: Enter, cookie: str) -> None:
    world = await enter(embedded)
    client = await world.connect("text", Origin=embedded.api_url, Cookie=cookie)
    assert (await client.refused({})).code == UNAUTHORIZED


async def test_a_signed_out_users_cookie_is_refused(embedded: System, enter: Enter) -> None:
    world = await enter(embedded)
    cookies = await admin_cookies(world)
    async with httpx.AsyncClient(
        base_url=embedded.api_url, cookies=cookies, trust_env=False, verify=NO_TLS
    ) as browser:
        form = {"csrfmiddlewaretoken": cookies["csrftoken"]}
        assert (await browser.post("/admin/logout/", data=form)).status_code == 200
    header = cookie_header(cookies)
    client = await world.connect("text", Origin=embedded.api_url, Cookie=header)
    assert (await client.refused({})).code == UNAUTHORIZED


async def test_a_token_works_from_any_origin(embedded: System, enter: Enter) -> None:
    world = await enter(embedded)
    client = await world.connect("text", Origin="http://elsewhere.example")
    await client.auth(await world.token(new_key()))
