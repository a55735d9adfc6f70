"""What goes wrong in a page is noticed: otherwise no other test here would prove much."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, Route, expect

from .visitors import Visitor

pytestmark = pytest.mark.asyncio(loop_scope="session")

ORIGIN = "http://site.test"


@pytest_asyncio.fixture(loop_scope="session")
async def visitor(chromium: Browser) -> AsyncIterator[Visitor]:
    """On a site that has one page alone; another address is refused, or is not there."""

    async def answer(route: Route) -> None:
        path = route.request.url.removeprefix(ORIGIN)
        if path == "/refused":
            await route.abort("connectionrefused")
        else:
            await route.fulfill(status=200 if path == "/" else 404, body="a page")

    context = await chromium.new_context(base_url=ORIGIN)
    await context.route("**", answer)
    yield Visitor(context)
    await context.close()


COMPLAINTS = {
    "console.error('an error')": "error: an error",
    "console.warn('a warning')": "warning: a warning",
    "setTimeout(() => { throw new Error('nobody catches it') })": "nobody catches it",
    "void Promise.reject(new Error('nor this'))": "nor this",
    "void fetch('/refused').catch(() => {})": f"GET {ORIGIN}/refused: net::ERR_CONNECTION",
    "void fetch('/nothing')": f"404 {ORIGIN}/nothing",
}


async def test_complaints_of_a_page_are_noted_unless_expected(visitor: Visitor) -> None:
    page = await visitor.open("/")
    assert visitor.complaints == []
    for script, complaint in COMPLAINTS.items():
        await says_done(page)
        before = visitor.complaints
        await page.evaluate(script)
        await says_done(page)
        new = visitor.complaints[len(before) :]
        assert any(complaint in found for found in new), script
    visitor.expect_complaints(".*")
    assert visitor.complaints == []


async def says_done(page: Page) -> None:
    """What the page had to tell before is here, too."""
    async with page.expect_console_message(lambda message: message.text == "done"):
        await page.evaluate("fetch('/').then(() => setTimeout(() => console.log('done')))")
    await expect(page.locator("body")).to_have_text("a page")
