"""examples/bell: notifications that are right in every tab, after a reload, and after a while."""

import asyncio
import re

import pytest

from tests.e2e.world import World

from .guests import Guest, SignIn, news

EXAMPLE = "bell"
# Locks differ between their databases.
INSTALLATIONS = ["embedded", pytest.param("cluster", marks=pytest.mark.long)]


def count(page: str) -> int:
    """The unread notifications that a page shows."""
    (found,) = re.findall(r'<span id="unread" role="status">(\d+)</span>', page)
    return int(found)


async def tell(sender: Guest, to: Guest, *texts: str) -> None:
    page = await sender.page("/home/")
    (number,) = re.findall(rf'<option value="(\d+)">{to.name}</option>', page)
    for answer in await asyncio.gather(
        *(sender.post("/home/", user=number, text=text) for text in texts)
    ):
        assert answer.status_code == 302, answer.text


@pytest.mark.long
async def test_the_count_is_the_same_in_two_tabs_and_after_a_reload(
    world: World, sign_in: SignIn
) -> None:
    (alice, _), (bob, _) = await sign_in("/home/"), await sign_in("/home/")
    tabs = [await alice.connect(world, await alice.page("/home/")) for _ in range(2)]
    for unread, text in enumerate(["first", "second"], start=1):
        await tell(bob, alice, text)
        for tab in tabs:
            (message,) = await news(tab)
            assert (message["unread"], message["news"], message["latest"][0]) == (
                unread,
                text,
                text,
            )
        assert count(await alice.page("/home/")) == unread
        assert (await alice.json("/bell/"))["unread"] == unread
    assert count(await bob.page("/home/")) == 0
    await alice.post("/bell/read")
    for tab in tabs:
        assert [message["unread"] for message in await news(tab)] == [0]
    assert count(await alice.page("/home/")) == 0


async def test_what_happened_while_a_user_was_away_is_told_on_return_in_order(
    world: World, sign_in: SignIn
) -> None:
    (alice, _), (bob, _) = await sign_in("/home/"), await sign_in("/home/")
    for text in ("one", "two", "three"):
        await tell(bob, alice, text)
    page = await alice.page("/home/")
    assert count(page) == 3
    messages = await news(await alice.connect(world, page), 3)
    assert [(one["news"], one["unread"]) for one in messages] == [
        ("one", 1),
        ("two", 2),
        ("three", 3),
    ]


@pytest.mark.long
async def test_notifications_at_the_same_time_are_counted_one_by_one(
    world: World, sign_in: SignIn
) -> None:
    (alice, _), (bob, _) = await sign_in("/home/"), await sign_in("/home/")
    session = await alice.connect(world, await alice.page("/home/"))
    await tell(bob, alice, *(f"number {number}" for number in range(10)))
    assert [one["unread"] for one in await news(session, 10)] == list(range(1, 11))


async def test_what_people_type_is_no_markup_on_the_page(sign_in: SignIn) -> None:
    (alice, _), (bob, _) = await sign_in("/home/"), await sign_in("/home/")
    await tell(bob, alice, "<script>alert(1)</script>")
    page = await alice.page("/home/")
    assert "<li>&lt;script&gt;alert(1)&lt;/script&gt;</li>" in page
    assert "<script>" not in page
