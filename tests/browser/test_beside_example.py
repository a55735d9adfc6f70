"""The page of examples/beside: the customer sees what the desk does, and read ones stay read."""

from collections.abc import Awaitable, Callable, Iterator

import pytest
from playwright.async_api import Browser, Page, expect

from tests import eventually
from tests.examples.shops import Beside, running

from .visitors import NO_JITTER, Visitor

pytestmark = pytest.mark.asyncio(loop_scope="session")

SignIn = Callable[[str], Awaitable[tuple[Visitor, Page]]]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beside]:
    with running(tmp_path_factory.mktemp("beside")) as found:
        yield found


@pytest.fixture
def sign_in(chromium: Browser, shop: Beside) -> SignIn:
    """Signs a user in, each in a browser profile of their own."""

    async def enter(name: str) -> tuple[Visitor, Page]:
        context = await chromium.new_context(base_url=shop.url)
        await context.add_init_script(NO_JITTER)
        visitor = Visitor(context)
        page = await visitor.open("/")
        await page.get_by_label("Username").fill(name)
        await page.get_by_label("Password").fill(shop.passwords()[name])
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.locator("#state")).to_have_text("open")
        return visitor, page

    return enter


@pytest.mark.long
async def test_order_moves_and_a_read_notification_stays_read(sign_in: SignIn) -> None:
    alice, hers = await sign_in("alice")
    bob, his = await sign_in("bob")
    other = await alice.open("/")
    await hers.get_by_role("button", name="Order").click()
    for page in (hers, his, other):
        await expect(page.locator("#orders li")).to_contain_text(["Teapot for alice, Packed"])
    await his.get_by_role("button", name="Next step").click()
    await expect(his.locator("#orders li")).to_contain_text(["Shipped"])
    for page in (hers, other):
        await expect(page.locator("#orders li")).to_contain_text(["Shipped"])
        await expect(page.locator("#notifications li")).to_contain_text(["shipped", "packed"])
    await hers.get_by_role("button", name="Mark as read").first.click()
    await expect(hers.locator("#notifications .unread")).to_contain_text(["packed"])

    async def shows_one_unread() -> bool:
        await other.reload()
        await expect(other.locator("#state")).to_have_text("open")
        await expect(other.locator("#notifications li")).to_have_count(2)
        return await other.locator("#notifications .unread").count() == 1

    await eventually(shows_one_unread)  # the webhook comes after about a second
    await expect(other.locator("#notifications .unread")).to_contain_text(["packed"])
    assert [visitor.complaints for visitor in (alice, bob)] == [[], []]
    for visitor in (alice, bob):
        await visitor.context.close()
