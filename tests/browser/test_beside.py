"""A page of a project beside imgo, on another origin, with a content security policy."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page

from tests import eventually
from tests.clients.django.conftest import sqlite
from tests.clients.django.shop import Shop
from tests.e2e.harness import HOST, Embedded, HttpProcess, free_ports, logs

from .visitors import NO_JITTER, Visitor

pytestmark = pytest.mark.asyncio(loop_scope="session")

SECRET = "a secret that both sides know, of enough bytes"
LIFETIME = 4  # seconds of a token: the test sees one expire
COLLECT = (
    "window.seen = []; document.addEventListener('imgo:message', (e) => seen.push(e.detail.body))"
)


class Website(HttpProcess):
    """Django's development server with the project and its static files."""

    def is_ready(self) -> bool:
        return "Quit the server" in self.out.read_text()


@pytest.fixture(scope="module")
def node(make_embedded: Callable[..., Embedded]) -> Iterator[Embedded]:
    """A node that knows the project's secret."""
    with make_embedded(IMGO_JWT_SECRET=SECRET, IMGO_JWT_LEEWAY="0") as system:
        yield system
    assert logs.complaints() == []


# How often the page has asked for a token.
TOKENS = (
    "performance.getEntriesByType('resource').filter(({ name }) => name.includes('/token/')).length"
)


@pytest.fixture(scope="module")
def shop(node: Embedded, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """The project, with one customer."""
    home = tmp_path_factory.mktemp("beside")
    databases = {name: sqlite(home / f"{name}.db") for name in ("default", "other")}
    imgo = {"URL": node.api_url, "API_KEY": node.api_key, "EXIT_WAIT": 60.0}
    made = Shop(
        home,
        databases,
        home / "template.db",
        **imgo,
        TOKEN_SECRET=SECRET,
        TOKEN_TTL=LIFETIME,
        TOKEN_KEY="shop.hooks.code_of",
        TOKEN_ROOMS="shop.hooks.rooms_of",
    )
    made.migrate()
    made.run("from shop.models import Customer; Customer.objects.create(code='alice')")
    return made


@pytest.fixture(scope="module")
def website(shop: Shop) -> Iterator[str]:
    """The address of the project's pages."""
    (port,) = free_ports(1)
    words = [
        "-W",
        "error",
        "-m",
        "django",
        "runserver",
        "--noreload",
        "--insecure",
        f"{HOST}:{port}",
    ]
    process = Website(Path(shop.home), "website", words, shop.environment, port)
    process.start()
    yield process.url
    process.kill()


async def until(page: Page, condition: str, visitor: Visitor) -> None:
    """Wait until a condition holds on the page, whose policy forbids Playwright's own wait."""

    async def holds() -> bool:
        assert visitor.complaints == []
        return bool(await page.evaluate(condition))

    await eventually(holds)


@pytest.mark.long
async def test_page_of_a_project_is_connected_as_long_as_its_user_is_signed_in(
    chromium: Browser, shop: Shop, website: str
) -> None:
    """Its token comes from the project, is renewed when it expires, and ends with the login."""
    context = await chromium.new_context(base_url=website)
    await context.add_init_script(NO_JITTER)
    visitor = Visitor(context)
    page = await visitor.open("/")
    assert await page.locator("script").count() == 0  # nobody is signed in
    await page.goto("/enter/alice")
    await page.goto("/")
    await until(page, "globalThis.imgo?.state === 'open'", visitor)
    await page.evaluate(COLLECT)
    await asyncio.to_thread(shop.run, "push_to_key('customer-alice', 1); push_to_room('lobby', 2)")
    await until(page, "seen.length === 2", visitor)
    # The second renewal: the first token has expired, and the session goes on.
    await until(page, f"{TOKENS} >= 3 && imgo.state === 'open'", visitor)
    await asyncio.to_thread(shop.run, "push_to_key('customer-alice', 3)")
    await until(page, "seen.length === 3", visitor)
    assert sorted(await page.evaluate("seen")) == [1, 2, 3]
    visitor.expect_complaints("401")
    await context.clear_cookies()
    await until(page, "imgo.state === 'closed'", visitor)
    assert visitor.complaints == []
    await context.close()
