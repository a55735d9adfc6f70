"""The demo page, as somebody sees it who tries imgo for the first time."""

import re
from collections.abc import Awaitable, Callable

import pytest
from playwright.async_api import Locator, Page, expect

from tests.e2e.harness import Embedded

from .visitors import PHONE, Visitor, new_text, width

pytestmark = pytest.mark.asyncio(loop_scope="session")

Visit = Callable[..., Awaitable[Visitor]]


class Demo:
    """The page in one tab."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.result = page.locator("#push-result")

    @classmethod
    async def open(cls, visitor: Visitor) -> "Demo":
        """It is there, and both of its clients are connected."""
        demo = cls(await visitor.open("/"))
        for key in ("alice", "bob"):
            await expect(demo.state(key)).to_have_text("open")
        return demo

    def client(self, key: str) -> Locator:
        """A client's panel."""
        return self.page.get_by_role("region", name=key, exact=True)

    def state(self, key: str) -> Locator:
        """Its state, in a word."""
        return self.client(key).get_by_role("status")

    def message(self, key: str, text: str) -> Locator:
        """The messages of a client that have a text in them."""
        return self.client(key).get_by_role("listitem").filter(has_text=text)

    async def push(self, to: str, body: str) -> None:
        """Fill the form in and send it."""
        await self.page.get_by_role("radio", name=to).check()
        await self.page.get_by_label("Message", exact=True).fill(body)
        await self.page.get_by_role("button", name="Send").click()


@pytest.mark.parametrize(
    ("to", "who"),
    [
        ("key alice", {"alice"}),
        ("key bob", {"bob"}),
        ("room lobby", {"alice", "bob"}),
        ("everyone", {"alice", "bob"}),
    ],
)
@pytest.mark.long  # one tab shows in the other tests which client has a message
async def test_a_push_arrives_in_both_browsers_and_only_where_it_should(
    site: Embedded, visit: Visit, to: str, who: set[str]
) -> None:
    one, other = [await Demo.open(await visit(site)) for _ in range(2)]
    text = new_text()
    await one.push(to, f'{{"text": "{text}"}}')
    await expect(one.result).to_have_text(re.compile(r"^Accepted as \d+\. \w+ had it after"))
    for demo in (one, other):
        for key in who:
            await expect(demo.message(key, text)).to_have_count(1)
    last = new_text()  # what comes after it in order proves that nothing else has come
    await one.push("everyone", last)
    for demo in (one, other):
        for key in ("alice", "bob"):
            await expect(demo.message(key, last)).to_have_count(1)
            await expect(demo.message(key, text)).to_have_count(1 if key in who else 0)


async def test_what_is_pushed_to_a_client_that_is_away_waits_for_it(
    site: Embedded, visit: Visit
) -> None:
    demo = await Demo.open(await visit(site))
    alice = demo.client("alice")
    await alice.get_by_role("button", name="Disconnect").click()
    await expect(demo.state("alice")).to_have_text("closed")
    texts = [new_text() for _ in range(3)]
    for text in texts:
        await demo.push("key alice", text)
        await expect(demo.result).to_contain_text("It waits while alice is offline.")
    await alice.get_by_role("button", name="Connect", exact=True).click()
    newest_first = [re.compile(f"waited.*{text}", re.DOTALL) for text in reversed(texts)]
    ours = alice.get_by_role("listitem").filter(has_text=re.compile("|".join(texts)))
    await expect(ours).to_have_text(newest_first)


async def test_who_leaves_the_room_gets_nothing_from_it(site: Embedded, visit: Visit) -> None:
    demo = await Demo.open(await visit(site))
    await demo.client("bob").get_by_role("button", name="Leave lobby").click()
    await expect(demo.client("bob")).to_contain_text("Rooms: none")
    text, last = new_text(), new_text()
    await demo.push("room lobby", text)
    await expect(demo.message("alice", text)).to_have_count(1)
    await demo.push("everyone", last)
    await expect(demo.message("bob", last)).to_have_count(1)
    await expect(demo.message("bob", text)).to_have_count(0)


@pytest.mark.long
async def test_the_form_says_what_text_that_is_no_json_becomes(
    site: Embedded, visit: Visit
) -> None:
    demo = await Demo.open(await visit(site))
    field = demo.page.get_by_label("Message", exact=True)
    await field.fill("{1: 2}")
    await expect(field).to_have_accessible_description(re.compile("Not JSON: sent as a string"))
    await field.fill('{"1": 2}')
    await expect(field).to_have_accessible_description(re.compile("Sent as JSON"))


@pytest.mark.long
async def test_the_form_says_that_a_message_is_too_long(site: Embedded, visit: Visit) -> None:
    visitor = await visit(site)
    visitor.expect_complaints("413")
    demo = await Demo.open(visitor)
    await demo.push("key alice", "x" * 70_000)
    await expect(demo.result).to_contain_text("at most 65536 bytes")
    await expect(demo.message("alice", "xxx")).to_have_count(0)


async def test_the_form_says_that_the_server_is_away(site: Embedded, visit: Visit) -> None:
    visitor = await visit(site)
    visitor.expect_complaints("ERR_INTERNET_DISCONNECTED")
    demo = await Demo.open(visitor)
    await visitor.context.set_offline(True)
    await demo.push("key alice", "hello")
    await expect(demo.result).to_have_text("The server could not be reached.")


async def test_the_page_is_not_wider_than_a_phone(site: Embedded, visit: Visit) -> None:
    demo = await Demo.open(await visit(site, viewport=PHONE))
    await demo.push("everyone", "x" * 1000)  # without a place to break it
    await expect(demo.message("alice", "xxx")).to_have_count(1)
    assert await width(demo.page) == PHONE["width"]
