"""The pages of examples/ in a browser: what one user does, the others see, and nothing is lost."""

from collections.abc import Awaitable, Callable, Iterator

import pytest
from playwright.async_api import Page, expect

from tests.e2e.harness import Embedded
from tests.examples.guests import make_guests, started

from .visitors import PHONE, SERVER_AWAY, Visitor, new_text, width

pytestmark = pytest.mark.asyncio(loop_scope="session")

MARKUP = '<img src="x" onerror="document.title = 1"> & <b>bold</b>'

Visit = Callable[..., Awaitable[Visitor]]
SignIn = Callable[..., Awaitable[tuple[Visitor, Page]]]


@pytest.fixture(scope="module", params=["chat", "bell", "orders"])
def example(
    request: pytest.FixtureRequest, make_embedded: Callable[..., Embedded]
) -> Iterator[Embedded]:
    """One that has a page; a test names it as a parameter."""
    with started(make_embedded, request.param) as system:
        yield system


@pytest.fixture(scope="module")
def passwords(example: Embedded) -> dict[str, str]:
    """The passwords of the example's users, by name."""
    found = dict(make_guests(example, "alice", "bob"))
    return {**found, "admin": example.demo()["admin_password"]}


@pytest.fixture
def sign_in(example: Embedded, passwords: dict[str, str], visit: Visit) -> SignIn:
    """Has a user ask for a page, sign in, and come to it connected."""

    async def enter(name: str, path: str, **options: object) -> tuple[Visitor, Page]:
        visitor = await visit(example, **options)
        page = await visitor.open(path)
        await page.get_by_label("Username").fill(name)
        await page.get_by_label("Password").fill(passwords[name])
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.locator("#state")).to_have_text("open")
        return visitor, page

    return enter


async def say(page: Page, text: str) -> None:
    await page.get_by_label("Your line").fill(text)
    await page.get_by_role("button", name="Say it").click()
    await expect(page.locator("#lines li").last).to_contain_text(text)


@pytest.mark.parametrize("example", ["chat"], indirect=True)
@pytest.mark.long
async def test_a_chat_shows_everyone_all_lines_once_and_as_text_over_a_restart(
    example: Embedded, sign_in: SignIn
) -> None:
    dark_phone = {"viewport": PHONE, "color_scheme": "dark"}
    alice, hers = await sign_in("alice", "/chat/")
    bob, his = await sign_in("bob", "/chat/", **dark_phone)
    last = new_text()
    for page in (hers, his):
        await expect(page.locator("#here li")).to_have_text(["alice", "bob"])
    await hers.get_by_label("Your line").press_sequentially("hm")
    await expect(his.locator("#typing")).to_have_text("Typing: alice")
    await expect(hers.locator("#typing")).to_have_text("")
    await say(hers, MARKUP)
    await expect(his.locator("#typing")).to_have_text("")
    await say(his, last)
    for page in (hers, his):
        await expect(page.locator("#lines p")).to_have_text([MARKUP, last])
        await expect(page.locator("#lines strong")).to_have_text(["alice", "bob"])
        await expect(page).to_have_title("Chat")
    assert await width(his) == PHONE["width"]

    for visitor in (alice, bob):
        visitor.expect_complaints(*SERVER_AWAY)
    node = example.nodes[0]
    node.stop()
    await his.get_by_label("Your line").fill("kept")
    await his.get_by_role("button", name="Say it").click()
    await expect(his.get_by_role("alert")).to_contain_text("could not be said")
    await expect(his.get_by_label("Your line")).to_have_value("kept")
    await node.start_beside()
    for page in (hers, his):
        await expect(page.locator("#state")).to_have_text("open")
    await his.get_by_role("button", name="Say it").click()
    for page in (hers, his):
        await expect(page.locator("#lines p")).to_have_text([MARKUP, last, "kept"])
    await hers.reload()
    await expect(hers.locator("#lines p")).to_have_text([MARKUP, last, "kept"])
    await expect(hers.locator("#here li")).to_have_text(["alice", "bob"])
    await his.close()
    await expect(hers.locator("#here li")).to_have_text(["alice"])


async def tell(page: Page, name: str, text: str) -> None:
    form = page.locator("#tell")
    await form.locator("select").select_option(label=name)
    await form.get_by_label("What").fill(text)
    async with page.expect_navigation():
        await form.get_by_role("button", name="Tell").click()


@pytest.mark.parametrize("example", ["bell"], indirect=True)
@pytest.mark.long
async def test_a_bell_is_right_in_every_tab_after_a_reload_and_on_return(
    sign_in: SignIn, example: Embedded
) -> None:
    alice, tab = await sign_in("alice", "/home/", viewport=PHONE)
    other = await alice.open("/home/")
    _, bobs = await sign_in("bob", "/home/")
    await tell(bobs, "alice", MARKUP)
    await tell(bobs, "alice", "again")
    for page in (tab, other):
        await expect(page.locator("#unread")).to_have_text("2")
        await expect(page.locator("#latest li")).to_have_text(["again", MARKUP])
        await expect(page.locator("#news")).to_have_text("again")
    await other.reload()
    await expect(other.locator("#unread")).to_have_text("2")
    await tab.locator("#bell summary").click()
    await expect(tab.locator("#latest")).to_be_in_viewport()
    assert await width(tab) == PHONE["width"]
    await tab.get_by_role("button", name="Mark all as read").click()
    for page in (tab, other):
        await expect(page.locator("#unread")).to_have_text("0")

    await tab.close()
    await other.close()
    await tell(bobs, "alice", "while you were away")
    back = await alice.open("/home/")
    await expect(back.locator("#unread")).to_have_text("1")
    await expect(back.locator("#news")).to_have_text("while you were away")


@pytest.mark.parametrize("example", ["orders"], indirect=True)
@pytest.mark.long
async def test_an_order_moves_before_its_customers_eyes(sign_in: SignIn, example: Embedded) -> None:
    _, hers = await sign_in("alice", "/orders/", viewport=PHONE)
    _, desk = await sign_in("admin", "/orders/")
    await hers.get_by_role("button", name="Order").click()
    for page in (hers, desk):
        await expect(page.locator("#orders li")).to_contain_text(["Teapot"])
    for status in ("Packed", "Shipped", "Delivered"):
        await desk.get_by_role("button", name="Next step").click()
        for page in (hers, desk):
            await expect(page.locator("[data-part=status]")).to_have_text(status)
    await expect(desk.get_by_role("button", name="Next step")).to_have_count(0)
    assert await width(hers) == PHONE["width"]
