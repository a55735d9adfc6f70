"""A page that shows who is in a room, over each transport and in tabs that share a connection."""

import json
from collections.abc import Awaitable, Callable, Iterator

import pytest
from playwright.async_api import Page

from tests.e2e.harness import Embedded, System
from tests.e2e.world import World, new_key, new_room

from .conftest import SITE
from .visitors import SERVER_AWAY, Visitor

pytestmark = pytest.mark.asyncio(loop_scope="session")

Visit = Callable[..., Awaitable[Visitor]]
Enter = Callable[[System], Awaitable[World]]

MOST = 3
SETTINGS = {
    "IMGO_ROOMS": json.dumps({"chat-*": {"presence": True}}),
    "IMGO_PRESENCE_GRACE": "0.1",
    "IMGO_PRESENCE_MAX": str(MOST),
}
FOLLOW = """
async ([token, name, options]) => {
  const { Imgo } = await import("/static/push/imgo.js");
  const client = new Imgo("/sub", { token, ...options });
  window.room = client.room(name);
  window.told = [];
  for (const event of ["join", "leave", "change"]) {
    room.presence.on(event, ({ key, info }) => told.push(`${event} ${key} ${info.name}`));
  }
  client.on("error", (error) => told.push(`error ${error.message}`));
  client.connect();
}
"""
LIST = "[...room.presence].map(({ key, info }) => `${key} ${info.name}`).sort().join()"


@pytest.fixture(scope="module")
def small(make_embedded: Callable[..., Embedded]) -> Iterator[Embedded]:
    """A server that lists few members, and forgets them at once."""
    with make_embedded(**SITE, **SETTINGS) as system:
        yield system


async def until(pages: list[Page], condition: str) -> None:
    for page in pages:
        await page.wait_for_function(condition)


async def until_listed(pages: list[Page], *members: str) -> None:
    listed = ",".join(sorted(("watcher undefined", *members)))
    await until(pages, f"{LIST} === {json.dumps(listed)}")


@pytest.mark.parametrize("way", ["websocket", "sse", "shared"])
@pytest.mark.long(but=["websocket"])
async def test_the_list_of_a_page_is_right_over_changes_and_a_kill(
    small: Embedded, visit: Visit, enter: Enter, way: str
) -> None:
    world = await enter(small)
    visitor = await visit(small)
    ann, name = new_key(), f"chat-{new_room()}"
    options = {"share": "watcher"} if way == "shared" else {"transports": [way]}
    pages = [await visitor.open("/inbox") for _ in range(2 if way == "shared" else 1)]
    for page in pages:
        await page.evaluate(FOLLOW, [await world.token("watcher"), name, options])
    await until_listed(pages)

    for info in ({"name": "Ann"}, {"name": "Anna"}):
        token = await world.api.make_token(ann, info=info)
        session = await world.connect("text")
        await session.auth({"token": token, "rooms": [name]})
        await until_listed(pages, f"{ann} {info['name']}")
    others = [await world.session(new_key(), rooms=[name]) for _ in range(MOST - 1)]
    await until(pages, f"room.presence.truncated && room.presence.count === {MOST + 1}")
    for other in others:
        await other.close()
    await until_listed(pages, f"{ann} Anna")

    visitor.expect_complaints(*SERVER_AWAY, "ERR_INCOMPLETE_CHUNKED")
    small.nodes[0].kill()
    await small.nodes[0].start_beside()
    await world.session("eve", rooms=[name])
    await until_listed(pages, "eve undefined")
    for page in pages:
        told = await page.evaluate("told")
        events = [event for event in told if ann in event]
        assert events == [f"join {ann} Ann", f"change {ann} Anna", f"leave {ann} Anna"]
        assert [event for event in told if "watcher" in event or "error" in event] == []
