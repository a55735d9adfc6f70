"""The client where WebSockets are blocked, where events are held back, and in many tabs."""

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from playwright.async_api import Error as PlaywrightError
from playwright.async_api import Page, expect

from tests import eventually
from tests.e2e.harness import Embedded, System
from tests.e2e.rooms import SETTINGS, new_kept_room, push_to
from tests.e2e.world import World, new_key

from .conftest import SITE
from .nginx import BUFFERING, Nginx
from .proxy import Proxy, proxy_before
from .visitors import SERVER_AWAY, Inbox, Visitor, numbers

pytestmark = pytest.mark.asyncio(loop_scope="session")

Visit = Callable[..., Awaitable[Visitor]]
Enter = Callable[[System], Awaitable[World]]

# What a browser complains of where WebSockets are blocked, and when the test cuts connections.
BLOCKED = ("WebSocket connection to .* failed", "403", *SERVER_AWAY, "ERR_INCOMPLETE_CHUNKED")
START = """
async ([token, name, options]) => {
  const { Imgo } = await import("/static/push/imgo.js");
  window.shown = [];
  window.events = [];
  window.client = new Imgo("/sub", { token, ...options });
  for (const event of ["state", "close", "error"]) {
    client.on(event, (data) => events.push([event, data.code ?? data]));
  }
  client.on("message", ({ body }) => void shown.push(body));
  if (name) {
    window.room = client.room(name, { rewind: 1 });
    room.on("message", ({ body }) => shown.push(body));
    room.on("recovered", ({ recovered }) => shown.push(`recovered: ${recovered}`));
  }
  client.connect();
}
"""
BUSY = """
() => {
  const end = performance.now() + 30_000;
  while (performance.now() < end);
}
"""
SHARED = {"share": "the user", "backoff": {"min": 50, "max": 400}}


@pytest.fixture(scope="module")
def keeping(make_embedded: Callable[..., Embedded]) -> Iterator[Embedded]:
    """A server whose rooms keep messages."""
    with make_embedded(**SITE, **SETTINGS) as system:
        yield system


async def open_inbox(visitor: Visitor, proxy: Proxy, name: str) -> Inbox:
    """Sign in behind a proxy; when this returns the client has a session."""
    page = await visitor.open(f"{proxy.url}/enter/{name}")
    inbox = Inbox(page, await page.locator("#key").inner_text())
    await expect(inbox.state).to_have_text("open")
    return inbox


async def transport(page: Page, client: str = "imgo") -> str:
    """How the page's client reaches the server."""
    found: str = await page.evaluate(f"{client}.transport")
    return found


async def start(page: Page, token: str, room: str = "", **options: Any) -> None:
    """Start a client on a page, and wait until it has a session."""
    await page.evaluate(START, [token, room, options])
    await page.wait_for_function("client.state === 'open'")


async def wait_until_shown(page: Page, *bodies: Any) -> None:
    """Wait until the page has shown just these."""
    try:
        await page.wait_for_function(
            "wanted => JSON.stringify(shown) === wanted",
            arg=json.dumps(bodies, separators=(",", ":")),
        )
    except PlaywrightError:
        pytest.fail(f"shown {await page.evaluate('[shown, events]')} instead of {bodies}")


async def test_client_falls_back_where_websockets_are_blocked(
    site: Embedded, visit: Visit, enter: Enter
) -> None:
    world, visitor = await enter(site), await visit(site)
    visitor.expect_complaints(*BLOCKED)
    async with proxy_before(site.nodes[0].http_port) as proxy:
        inbox = await open_inbox(visitor, proxy, "ann")
        assert (await transport(inbox.page), proxy.refused >= 2) == ("sse", True)
        assert await inbox.page.evaluate("imgo.join('den')") is True
        await world.api.push({"key": inbox.key}, 1)
        await world.api.push({"room": "den"}, 2)
        await expect(inbox.messages).to_have_text(numbers(1, 2))
        assert await inbox.page.evaluate("imgo.request({})") == {}
        await world.wait_for_pending(inbox.key, 0)
        # A WebSocket was tried once more, and then the choice is remembered.
        await inbox.page.wait_for_function("Object.keys(localStorage).length === 1")
        refused = proxy.refused
        await inbox.page.reload()
        await expect(inbox.state).to_have_text("open")
        await world.api.push({"key": inbox.key}, 3)
        await expect(inbox.messages).to_have_text(numbers(1, 3))
        assert (await transport(inbox.page), proxy.refused) == ("sse", refused)


@pytest.mark.long
async def test_client_goes_back_to_websockets_when_they_are_asked_for(
    site: Embedded, visit: Visit, enter: Enter
) -> None:
    world, visitor = await enter(site), await visit(site)
    visitor.expect_complaints(*BLOCKED)
    async with proxy_before(site.nodes[0].http_port) as proxy:
        inbox = await open_inbox(visitor, proxy, "bea")
        await inbox.page.wait_for_function("Object.keys(localStorage).length === 1")
        proxy.blocks = False
        await inbox.page.evaluate("void imgo.connect('websocket')")
        await inbox.page.wait_for_function(
            "imgo.state === 'open' && imgo.transport === 'websocket'"
        )
        await world.api.push({"key": inbox.key}, 1)
        await expect(inbox.messages).to_have_text(numbers(1, 1))


@pytest.mark.long
async def test_client_whose_server_was_away_ends_with_a_websocket(
    site: Embedded, visit: Visit, enter: Enter
) -> None:
    """SSE was the next when the server came back: that blocks no WebSocket."""
    world, visitor = await enter(site), await visit(site)
    visitor.expect_complaints(*BLOCKED)
    async with proxy_before(site.nodes[0].http_port) as proxy:
        page = await visitor.open(f"{proxy.url}/inbox")
        token = await world.token(new_key())
        await page.evaluate(START, [token, "", {}])
        await page.wait_for_function("events.filter(([name]) => name === 'close').length === 2")
        proxy.blocks = False
        await page.wait_for_function("client.state === 'open' && client.transport === 'websocket'")
        assert proxy.streams == 1, await page.evaluate("events")
        assert await page.evaluate("Object.values(localStorage).filter(Number)") == []


@pytest.mark.long
async def test_stream_of_a_killed_server_is_resumed(
    make_embedded: Callable[..., Embedded],
    own_system: Callable[[System], System],
    visit: Visit,
    enter: Enter,
) -> None:
    system = own_system(make_embedded(**SITE, **SETTINGS))
    world, visitor = await enter(system), await visit(system)
    visitor.expect_complaints(*BLOCKED)
    node, room, key = system.nodes[0], new_kept_room(), new_key()
    async with proxy_before(node.http_port) as proxy:
        page = await visitor.open(f"{proxy.url}/inbox")
        await push_to(world, room, "old", "before")
        await start(page, await world.token(key), room, transports=["sse"])
        await wait_until_shown(page, "before")
        await world.api.push({"key": key}, "to the key")
        await wait_until_shown(page, "before", "to the key")
        for word in ("first", "second"):
            node.signal(signal.SIGKILL)
            node.wait()
            await page.wait_for_function("client.state !== 'open'")
            await node.start_beside()
            await push_to(world, room, word)  # it is back, or it is not
            await page.wait_for_function("client.state === 'open'")
            await world.api.push({"key": key}, f"{word} to the key")
            await page.wait_for_function("word => shown.includes(word)", arg=f"{word} to the key")
        shown = await page.evaluate("shown")
        assert sorted(shown) == sorted(
            ["before", "to the key"]
            + ["recovered: true"] * 2
            + ["first", "first to the key", "second", "second to the key"]
        )
        await world.wait_for_pending(key, 0)


async def test_proxy_that_holds_events_back_is_reported(
    site: Embedded, visit: Visit, enter: Enter
) -> None:
    world, visitor = await enter(site), await visit(site)
    visitor.expect_complaints("405", "ERR_ABORTED")
    async with proxy_before(site.nodes[0].http_port, holds=True) as proxy:
        page = await visitor.open(f"{proxy.url}/inbox")
        token = await world.token(new_key())
        await page.evaluate(START, [token, "", {"transports": ["sse"], "timeout": 2_000}])
        await page.wait_for_function("events.some(([, code]) => code === 'buffered')")
        proxy.holds = False
        await page.wait_for_function("client.state === 'open'")


@pytest.mark.long(but=["websocket"])
@pytest.mark.parametrize("way", ["websocket", "sse"])
async def test_tabs_share_a_connection_and_hand_it_over(
    keeping: Embedded, visit: Visit, enter: Enter, way: str
) -> None:
    world, visitor = await enter(keeping), await visit(keeping)
    visitor.expect_complaints(*BLOCKED)
    key, rooms = new_key(), [new_kept_room() for _ in range(3)]
    token = await world.token(key)
    async with proxy_before(keeping.nodes[0].http_port, blocks=False) as proxy:
        tabs = [await visitor.open(f"{proxy.url}/inbox") for _ in range(3)]
        for tab, room in zip(tabs, rooms, strict=True):
            await push_to(world, room, f"old of {room}")
            await start(tab, token, room, transports=[way], **SHARED)
        await world.wait_for_sessions(key, 1)
        for tab, room in zip(tabs, rooms, strict=True):
            await wait_until_shown(tab, f"old of {room}")
        await world.api.push({"key": key}, "to the key")
        await push_to(world, rooms[2], "to the third")
        await wait_until_shown(tabs[0], f"old of {rooms[0]}", "to the key")
        await wait_until_shown(tabs[2], f"old of {rooms[2]}", "to the key", "to the third")
        await world.wait_for_pending(key, 0)
        assert await tabs[1].evaluate("client.request({})") == {}
        # A tab comes to a room in which another one is.
        await tabs[1].evaluate(
            """(name) => {
              const third = client.room(name, { rewind: 5 });
              third.on("message", ({ body }) => shown.push(body));
            }""",
            rooms[2],
        )
        await push_to(world, rooms[2], "to two")
        both = [f"old of {rooms[2]}", "to the third", "to two"]
        await wait_until_shown(tabs[1], f"old of {rooms[1]}", "to the key", *both)
        # The leader goes: the others go on, with all that came meanwhile.
        await tabs[0].close()
        await push_to(world, rooms[1], "meanwhile")
        await world.api.push({"key": key}, "after it")
        for tab in tabs[1:]:
            await tab.wait_for_function("shown.includes('after it') && client.state === 'open'")
        await tabs[1].wait_for_function("shown.includes('meanwhile')")
        await world.wait_for_sessions(key, 1)
        await world.wait_for_pending(key, 0)
        shown = await tabs[1].evaluate("shown.filter((one) => !/^recovered/.test(one))")
        assert len(shown) == len(set(shown)) == 7
        # One tab alone: the other's room is left.
        await tabs[1].evaluate("client.close()")
        await push_to(world, rooms[2], "the last")
        await tabs[2].wait_for_function("shown.includes('the last')")
        assert "the last" not in await tabs[1].evaluate("shown")


@pytest.mark.long
async def test_tab_with_the_connection_that_does_not_answer_is_replaced(
    site: Embedded, visit: Visit, enter: Enter
) -> None:
    world, visitor = await enter(site), await visit(site)
    key = new_key()
    token = await world.token(key)
    leader, other = [await visitor.open("/inbox") for _ in range(2)]
    for tab in (leader, other):
        await start(tab, token, **SHARED)
    await world.wait_for_sessions(key, 1)
    busy = asyncio.create_task(leader.evaluate(BUSY))
    await other.wait_for_function("events.some(([name]) => name === 'close')")
    await other.wait_for_function("client.state === 'open'")
    await world.api.push({"key": key}, "hello")
    await wait_until_shown(other, "hello")
    await busy
    await world.wait_for_sessions(key, 1)
    await leader.wait_for_function("client.state === 'open'")
    await world.api.push({"key": key}, "again")
    await leader.wait_for_function("shown.includes('again')")
    await world.wait_for_pending(key, 0)


@pytest.mark.long
@pytest.mark.skipif("TESTS_WITHOUT_NGINX" in os.environ, reason="`make test-long` says so")
@pytest.mark.parametrize("buffering", BUFFERING)
async def test_nginx_passes_events_on_unless_it_is_forced_to_buffer(
    site: Embedded, visit: Visit, enter: Enter, buffering: str
) -> None:
    """With `proxy_buffering` on or off: the server sends X-Accel-Buffering."""
    world, visitor = await enter(site), await visit(site)
    visitor.expect_complaints(*BLOCKED, "404", "405", "ERR_ABORTED")
    nginx = Nginx(site.nodes[0].http_port, buffering)
    await nginx.start_beside()
    try:
        key = new_key()
        token = await world.token(key)
        page = await visitor.open(f"{nginx.url}/inbox")
        await page.evaluate(START, [token, "", {"timeout": 6_000}])
        if buffering == "forced":
            await page.wait_for_function("events.some(([, code]) => code === 'buffered')")
        else:
            await page.wait_for_function("client.state === 'open' && client.transport === 'sse'")
            await world.api.push({"key": key}, "hello")
            await wait_until_shown(page, "hello")
            await world.wait_for_pending(key, 0)
    finally:
        await page.context.close()
        nginx.remove()


@pytest.mark.long
async def test_no_more_connections_than_a_browser_has_are_needed_by_ten_tabs(
    site: Embedded, visit: Visit, enter: Enter
) -> None:
    """Over HTTP/1.1 a browser opens six connections to a server: ten streams would block it."""
    world, visitor = await enter(site), await visit(site)
    key = new_key()
    token = await world.token(key)
    tabs = await asyncio.gather(*(visitor.open("/inbox") for _ in range(10)))
    await asyncio.gather(*(start(tab, token, transports=["sse"], **SHARED) for tab in tabs))
    await world.wait_for_sessions(key, 1)
    await world.api.push({"key": key}, "to all")
    for tab in tabs:
        await wait_until_shown(tab, "to all")

    async def is_acknowledged() -> bool:
        return await world.api.pending(key) == 0

    await eventually(is_acknowledged)
