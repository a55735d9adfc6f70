"""A chromium for all tests here, an installation with a site of the tests' own, and its visitors.

Playwright's objects belong to the loop that they were made in: fixtures and tests share one.
"""

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright, expect

from tests.e2e.conftest import (  # noqa: F401 - fixtures
    clean_logs,
    homes,
    make_cluster,
    make_embedded,
    own_system,
    postgres_template,
    sqlite_template,
)
from tests.e2e.harness import Embedded, System, logs
from tests.e2e.world import World

from .visitors import NO_JITTER, Visitor

SITE = {"DJANGO_SETTINGS_MODULE": "tests.browser.app.settings"}
PATIENCE = 30_000  # ms until what a page does not show is a failure; a busy machine needs some
LAUNCH = 150_000  # ms until a browser that has not begun is a failure, for all tests here
# It calls nobody but the server under test.
FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
MISSING = (
    "There is no {}. Debian's: apt-get install chromium. Another program: CHROMIUM=/path/to/it. "
    "Without these tests: --ignore=tests/browser"
)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """One browser for all visitors; each has a profile of his own in it."""
    name = os.environ.get("CHROMIUM") or "chromium"
    program = shutil.which(name)
    if not program:
        pytest.fail(MISSING.format(name), pytrace=False)
    expect.set_options(timeout=PATIENCE)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=program,
            args=FLAGS,
            chromium_sandbox=os.geteuid() != 0,  # it refuses to have one as root
            timeout=LAUNCH,
        )
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def visit(chromium: Browser) -> AsyncIterator[Callable[..., Awaitable[Visitor]]]:
    """Sends a visitor to an installation; at the end none of them may have had a complaint."""
    visitors = []
    async with AsyncExitStack() as stack:

        async def send(system: System, **options: object) -> Visitor:
            origin = system.nodes[0].url
            context = await chromium.new_context(base_url=origin, **options)
            stack.push_async_callback(context.close)
            context.set_default_timeout(PATIENCE)
            await context.add_init_script(NO_JITTER)
            visitors.append(Visitor(context))
            return visitors[-1]

        yield send
    assert [visitor.complaints for visitor in visitors] == [[] for _ in visitors]


@pytest_asyncio.fixture(loop_scope="session")
async def enter() -> AsyncIterator[Callable[[System], Awaitable[World]]]:
    """Gives the view of an installation."""
    async with AsyncExitStack() as stack:

        async def enter_world(system: System) -> World:
            return await stack.enter_async_context(World(system))

        yield enter_world


@pytest.fixture(scope="session")
def site(make_embedded: Callable[..., Embedded]) -> Iterator[Embedded]:  # noqa: F811
    """One node with SQLite, whose users have an inbox."""
    with make_embedded(**SITE) as system:
        yield system
    assert logs.complaints() == []
