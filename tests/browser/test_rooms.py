"""A page that keeps its place in a room with history, in a browser's own storage."""

from collections.abc import Awaitable, Callable, Iterator

import pytest
from playwright.async_api import Page

from tests.e2e.harness import Embedded, System
from tests.e2e.rooms import SETTINGS, new_kept_room, push_to
from tests.e2e.world import World, new_key

from .conftest import SITE
from .visitors import Visitor

pytestmark = pytest.mark.asyncio(loop_scope="session")

Visit = Callable[..., Awaitable[Visitor]]
Enter = Callable[[System], Awaitable[World]]

FOLLOW = """
async ([token, name]) => {
  const { Imgo } = await import("/static/push/imgo.js");
  window.shown = [];
  const client = new Imgo("/sub", { token });
  const room = client.room(name, { persist: true, rewind: 1 });
  room.on("message", ({ body }) => shown.push(body));
  room.on("recovered", ({ recovered }) => shown.push(`recovered: ${recovered}`));
  client.connect();
}
"""


@pytest.fixture(scope="module")
def keeping(make_embedded: Callable[..., Embedded]) -> Iterator[Embedded]:
    """A server whose rooms keep messages."""
    with make_embedded(**SITE, **SETTINGS) as system:
        yield system


async def wait_until_shown(page: Page, *lines: str) -> None:
    """Wait until the page has shown just these."""
    await page.wait_for_function(
        "lines => JSON.stringify(shown) === JSON.stringify(lines)", arg=list(lines)
    )


async def test_a_reloaded_tab_goes_on_and_a_new_one_begins_anew(
    keeping: Embedded, visit: Visit, enter: Enter
) -> None:
    world = await enter(keeping)
    room = new_kept_room()
    words = [await world.token(new_key()), room]
    visitor = await visit(keeping)
    page = await visitor.open("/inbox")
    await push_to(world, room, "before")
    await page.evaluate(FOLLOW, words)
    await wait_until_shown(page, "before")
    await push_to(world, room, "there")
    await wait_until_shown(page, "before", "there")
    await page.reload()
    await push_to(world, room, "away", "away again")
    await page.evaluate(FOLLOW, words)
    await wait_until_shown(page, "recovered: true", "away", "away again")
    other = await visitor.open("/inbox")
    await other.evaluate(FOLLOW, words)
    await wait_until_shown(other, "away again")
