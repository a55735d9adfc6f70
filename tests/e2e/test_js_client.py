"""The JavaScript client in Node against real servers: restarts, reloads, and what closes it."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests import eventually

from .harness import System
from .js_page import LIKE_NODE_20, Page
from .world import World, new_key, new_room

PUSHES = 300
JWT_SECRET = "s" * 32
KICKED, UNAUTHORIZED, EXPIRED = 4504, 4401, 4402

Enter = Callable[[System], Awaitable[World]]


@pytest.fixture(params=["Node's WebSocket", "Node 20"])
def flags(request: pytest.FixtureRequest) -> list[str]:
    """With and without a WebSocket of its own."""
    return LIKE_NODE_20 if request.param == "Node 20" else []


OpenPage = Callable[..., Awaitable[Page]]


@pytest.fixture
async def open_page(tmp_path: Path, flags: list[str]) -> AsyncIterator[OpenPage]:
    """Opens a page of a key, in a tab of its own unless one is named."""
    async with AsyncExitStack() as stack:

        async def open_one(world: World, key: str, tab: str = "tab", **options: Any) -> Page:
            url = f"ws://127.0.0.1:{world.node().http_port}/sub"
            options = {"token": await world.token(key), **options}
            page = Page(url, tmp_path / tab, flags, **options)
            return await stack.enter_async_context(page)

        yield open_one


async def push_slowly(world: World, key: str) -> None:
    """All pushes, a few at a time, over a second or more."""
    for number in range(PUSHES):
        await world.api.push({"key": key}, number)
        await asyncio.sleep(0.003)  # a pace


@pytest.mark.long
async def test_over_restarts_and_reloads_nothing_is_lost_and_nothing_shown_twice(
    make_cluster: Callable[..., System],
    own_system: Callable[[System], System],
    enter: Enter,
    open_page: OpenPage,
) -> None:
    world = await enter(own_system(make_cluster(nodes=1)))
    key = new_key()
    page = await open_page(world, key)
    pushing = asyncio.create_task(push_slowly(world, key))
    await eventually(lambda: len(page.shown) > 20)
    count = len(page.shown)
    world.node().kill()
    await world.node().start_beside()
    await eventually(lambda: len(page.shown) > count)
    await page.reload()
    world.node().signal(signal.SIGTERM)
    await asyncio.to_thread(world.node().wait_until_ended)
    await page.reload()
    await world.node().start_beside()
    await pushing
    await eventually(lambda: len(page.shown) >= PUSHES)
    await world.wait_for_pending(key, 0)
    await page.reload()
    await page.wait_for("open")
    await world.api.push({"key": key}, "the end")
    await eventually(lambda: page.shown[-1] == "the end")
    assert page.shown == [*range(PUSHES), "the end"]
    assert [event for event in page.told if event[0] == "error"] == []


@pytest.mark.long(but=["Node 20"])
async def test_what_is_shown_but_not_acknowledged_is_not_shown_again(
    embedded: System, enter: Enter, open_page: OpenPage
) -> None:
    world = await enter(embedded)
    key = new_key()
    page = await open_page(world, key)
    await page.wait_for("open")
    for number in range(10):
        await world.api.push({"key": key}, number)
        await eventually(lambda number=number: number in page.shown)
        await page.reload()  # most often before the acknowledgement
    await world.wait_for_pending(key, 0)
    assert page.shown == [*range(10)]


async def test_two_tabs_of_a_user_each_show_a_message(
    embedded: System, enter: Enter, open_page: OpenPage
) -> None:
    world = await enter(embedded)
    key = new_key()
    tabs = [await open_page(world, key, tab) for tab in ("first", "second")]
    for tab in tabs:
        await tab.wait_for("open")
    await world.api.push({"key": key}, "for both")
    await eventually(lambda: [tab.shown for tab in tabs] == [["for both"], ["for both"]])
    await world.wait_for_pending(key, 0)


async def test_rooms_and_requests(embedded: System, enter: Enter, open_page: OpenPage) -> None:
    world = await enter(embedded)
    room = new_room()
    page = await open_page(world, new_key())
    assert await page.ask("join", room) in (["answer", False], ["answer", True])
    await page.wait_for("open")
    assert await page.ask("request", {"what": "upstream"}) == ["answer", {}]
    await world.api.push({"room": room}, "for the room")
    await eventually(lambda: page.shown == ["for the room"])
    assert await page.ask("leave", room) == ["answer", True]
    refused = await page.ask("join", "x" * 1000)
    assert refused[:3] == ["refused", "ImgoError", "bad_request"]
    assert "characters" in refused[3]
    assert await page.ask("close") == ["answer", None]
    why = "no session is open"
    assert await page.ask("request", 1) == ["refused", "ImgoError", "closed", why]


async def test_a_client_that_was_closed_by_an_administrator_stays_away(
    embedded: System, enter: Enter, open_page: OpenPage
) -> None:
    world = await enter(embedded)
    key = new_key()
    page = await open_page(world, key)
    await page.wait_for("open")
    await world.api.http.delete(f"/api/v1/keys/{key}/sessions")
    await eventually(page.closes)  # told after the state
    assert page.closes() == [[KICKED, False]]
    assert page.state == "closed"


async def test_a_client_with_a_wrong_token_says_so_and_tries_again(
    embedded: System, enter: Enter, open_page: OpenPage
) -> None:
    world = await enter(embedded)
    page = await open_page(world, new_key(), token="wrong")
    await eventually(lambda: len(page.closes()) > 1)
    assert page.closes()[:2] == [[UNAUTHORIZED, True]] * 2


@pytest.mark.long
async def test_a_token_function_keeps_the_session_over_each_transport(
    make_embedded: Callable[..., System],
    own_system: Callable[[System], System],
    enter: Enter,
    open_page: OpenPage,
) -> None:
    world = await enter(own_system(make_embedded(IMGO_JWT_SECRET=JWT_SECRET)))
    key, now = new_key(), time.time()
    short, long = [
        jwt.encode({"sub": key, "exp": now + seconds}, JWT_SECRET, "HS256") for seconds in (10, 300)
    ]
    tokens = [short, long]
    witness = await open_page(world, key, token=short)
    pages = [
        await open_page(world, key, way, transports=[way], tokens=tokens)
        for way in ("websocket", "sse")
    ]
    await eventually(witness.closes)
    assert witness.closes()[0] == [EXPIRED, True]
    await world.api.push({"key": key}, "after the first token")
    await eventually(lambda: all(page.shown for page in pages))
    assert [page.closes() for page in pages] == [[], []]
    assert [event for page in pages for event in page.told if event[0] == "error"] == []
