"""A bare EventSource on a page: who it is by its cookie, what it gets, and how it comes back."""

import json
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from playwright.async_api import Page

from tests.e2e.harness import Embedded, System
from tests.e2e.world import World, new_key

from .conftest import SITE
from .visitors import SERVER_AWAY, Inbox, Visitor

pytestmark = pytest.mark.asyncio(loop_scope="session")

Visit = Callable[..., Awaitable[Visitor]]
Enter = Callable[[System], Awaitable[World]]

ROOMS = json.dumps({"chat-*": {"history": 100}})
OPEN = """
(url) => {
  window.seen = [];
  window.opened = [];
  window.source = new EventSource(url);
  source.onmessage = (event) => seen.push(JSON.parse(event.data).body);
  source.addEventListener("open", (event) => {
    if (event.data) opened.push(JSON.parse(event.data));
  });
}
"""


async def listen(page: Page, query: str) -> None:
    """Open a stream on the page, and wait until it has begun."""
    await page.evaluate(OPEN, f"/sub/events?{query}")
    await page.wait_for_function("opened.length === 1")


async def seen(page: Page, count: int) -> list[Any]:
    """What the page has been sent, when there is so much of it."""
    await page.wait_for_function(f"seen.length >= {count}")
    found: list[Any] = await page.evaluate("seen")
    return found


async def test_an_event_source_is_its_user_by_the_cookie(
    site: Embedded, visit: Visit, enter: Enter
) -> None:
    world = await enter(site)
    # Nothing is pending for a name that no other test has.
    inbox = await Inbox.enter(await visit(site), f"ann-{new_key()}")
    await listen(inbox.page, "rooms=lobby")
    await world.api.push({"key": inbox.key}, "for ann")
    await world.api.push({"room": "lobby"}, "for the lobby")
    assert await seen(inbox.page, 2) == ["for ann", "for the lobby"]


async def test_an_event_source_of_a_stranger_is_refused(site: Embedded, visit: Visit) -> None:
    visitor = await visit(site)
    visitor.expect_complaints("401", "closed")
    page = await visitor.open("/inbox")
    await page.evaluate(OPEN, "/sub/events")
    await page.wait_for_function("source.readyState === EventSource.CLOSED")
    assert await page.evaluate("opened") == []


async def test_an_event_source_comes_back_to_all_that_it_missed(
    make_embedded: Callable[..., Embedded],
    own_system: Callable[[System], System],
    visit: Visit,
    enter: Enter,
) -> None:
    system = own_system(make_embedded(**SITE, IMGO_ROOMS=ROOMS))
    world = await enter(system)
    visitor = await visit(system)
    visitor.expect_complaints(*SERVER_AWAY, "ERR_INCOMPLETE_CHUNKED_ENCODING")
    inbox = await Inbox.enter(visitor, "ann")
    room = f"chat-{new_key()}"
    await listen(inbox.page, f"rooms={room}")
    await world.api.push({"room": room}, 1)
    assert await seen(inbox.page, 1) == [1]
    (node,) = system.nodes
    node.signal(signal.SIGKILL)
    node.wait()
    await node.start_beside()
    for number in (2, 3):  # some before it is back, or none
        await world.api.push({"room": room}, number)
    assert await seen(inbox.page, 3) == [1, 2, 3]
    (first, second) = await inbox.page.evaluate("opened")
    assert second["rooms"][room]["recovered"] is True
    assert first["session"] != second["session"]


@pytest.mark.long
async def test_an_event_source_of_another_origin_needs_cors_origins(
    make_embedded: Callable[..., Embedded],
    own_system: Callable[[System], System],
    site: Embedded,
    visit: Visit,
    enter: Enter,
) -> None:
    page_origin = site.nodes[0].url
    open_for_it = own_system(make_embedded(IMGO_CORS_ORIGINS=page_origin))
    closed = own_system(make_embedded())
    visitor = await visit(site)
    visitor.expect_complaints("CORS", "403", "ERR_FAILED", "closed")
    page = await visitor.open("/inbox")
    world = await enter(open_for_it)
    key = new_key()
    token = await world.token(key)
    await page.evaluate(OPEN, f"{open_for_it.nodes[0].url}/sub/events?token={token}")
    await page.wait_for_function("opened.length === 1")
    await world.api.push({"key": key}, "hello")
    assert await seen(page, 1) == ["hello"]
    other = await (await enter(closed)).token(key)
    await page.evaluate(OPEN, f"{closed.nodes[0].url}/sub/events?token={other}")
    await page.wait_for_function("source.readyState === EventSource.CLOSED")
    assert await page.evaluate("opened") == []
