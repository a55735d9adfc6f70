"""The page of "Beside your Django project" in a browser: an order's notification in all tabs."""

from collections.abc import Callable, Iterator

import pytest
from playwright.async_api import Browser, expect

from tests.clients.django.mysite import running
from tests.e2e.harness import Embedded

from .visitors import Visitor

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture(scope="module")
def site(
    make_embedded: Callable[..., Embedded], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of the page's project."""
    with running(tmp_path_factory.mktemp("mysite"), make_embedded()) as url:
        yield url


@pytest.mark.long
async def test_order_is_shown_in_every_tab_of_its_customer(chromium: Browser, site: str) -> None:
    """The steps are those of the page: sign in, press Order."""
    context = await chromium.new_context(base_url=site)
    visitor = Visitor(context)
    visitor.expect_complaints("favicon.ico", "404")  # the page has no icon
    first = await visitor.open("/")
    await first.fill("[name=username]", "alice")
    await first.fill("[name=password]", "secret")
    await first.click("[type=submit]")
    second = await visitor.open("/")
    for tab in (first, second):
        await tab.wait_for_function("globalThis.imgo?.state === 'open'")
    await first.click("button")
    for tab in (first, second):
        await expect(tab.locator("output")).to_have_text('{"order":1,"status":"placed"}')
    assert visitor.complaints == []
    await context.close()
