"""examples/orders: who is told of an order, when, and that a rollback tells nobody."""

import asyncio
import re
from typing import Any

import pytest

from tests.e2e.clients import TextClient
from tests.e2e.frames import JOIN
from tests.e2e.world import World

from .guests import Guest, SignIn, news

EXAMPLE = "orders"
# Locks differ between their databases.
INSTALLATIONS = ["embedded", pytest.param("cluster", marks=pytest.mark.long)]


async def order(customer: Guest, article: str) -> str:
    """The page that the customer sees after it."""
    page = await customer.page("/orders/")
    (number,) = re.findall(rf'<option value="(\d+)">{article} \(', page)
    assert (await customer.post("/orders/", article=number)).status_code == 302
    return await customer.page("/orders/")


async def status(session: TextClient) -> tuple[int, str]:
    (message,) = await news(session)
    assert message["type"] == "order"
    return message["id"], message["status"]


async def listed(guest: Guest) -> dict[int, dict[str, Any]]:
    return {one["id"]: one for one in (await guest.json("/orders/list"))["orders"]}


async def test_customer_and_desk_see_each_step_of_an_order(world: World, sign_in: SignIn) -> None:
    (alice, page), (desk, desks) = (
        await sign_in("/orders/"),
        await sign_in("/orders/", as_admin=True),
    )
    sessions = [await alice.connect(world, page), await desk.connect(world, desks)]
    await order(alice, "Teapot")
    ((number, _),) = {await status(session) for session in sessions}
    for step, name in enumerate(["Packed", "Shipped", "Delivered"], start=1):
        assert (await desk.post("/orders/next", order=number, step=step)).status_code == 302
        assert {await status(session) for session in sessions} == {(number, name)}
        assert (await listed(alice))[number]["status"] == name


async def test_an_order_that_is_rolled_back_was_never_told(world: World, sign_in: SignIn) -> None:
    (bob, page), (desk, desks) = (
        await sign_in("/orders/"),
        await sign_in("/orders/", as_admin=True),
    )
    sessions = [await bob.connect(world, page), await desk.connect(world, desks)]
    assert "Sold out" not in await order(bob, "Cup")  # the last one
    ((cup, _),) = {await status(session) for session in sessions}
    before = await listed(desk)

    assert "Sold out. Nothing was ordered." in await order(bob, "Cup")
    assert await listed(desk) == before
    await order(bob, "Teapot")
    for session in sessions:  # what comes next is the order after the one that was undone
        (message,) = await news(session)
        assert message["article"] == "Teapot"
        assert message["id"] > cup


@pytest.mark.long
async def test_two_clicks_at_once_are_one_step(world: World, sign_in: SignIn) -> None:
    desk, page = await sign_in("/orders/", as_admin=True)
    session = await desk.connect(world, page)
    bob, _ = await sign_in("/orders/")
    await order(bob, "Teapot")
    number, _ = await status(session)
    await asyncio.gather(*(desk.post("/orders/next", order=number, step=1) for _ in range(5)))
    assert await status(session) == (number, "Packed")
    await desk.post("/orders/next", order=number, step=2)
    assert await status(session) == (number, "Shipped")


@pytest.mark.long
async def test_a_customer_who_is_away_is_told_on_return(world: World, sign_in: SignIn) -> None:
    (bob, page), (desk, _) = (
        await sign_in("/orders/"),
        await sign_in("/orders/", as_admin=True),
    )
    session = await bob.connect(world, page)
    await order(bob, "Teapot")
    number, _ = await status(session)
    await session.close()
    for step in (1, 2):
        await desk.post("/orders/next", order=number, step=step)
    back = await bob.connect(world, page)
    assert [await status(back), await status(back)] == [(number, "Packed"), (number, "Shipped")]


@pytest.mark.long
async def test_customers_see_their_own_orders_alone(world: World, sign_in: SignIn) -> None:
    (alice, page), (bob, _) = (
        await sign_in("/orders/"),
        await sign_in("/orders/"),
    )
    await order(bob, "Teapot")
    bobs = max(await listed(bob))
    assert bobs not in await listed(alice)
    session = await alice.connect(world, page)
    assert (await session.ask(JOIN, "orders-desk")).value["error"]["code"] == "room_forbidden"
    refused = await alice.post("/orders/next", order=bobs, step=1)
    assert refused.headers["Location"].startswith("/signin/")
    assert (await listed(bob))[bobs]["status"] == "Placed"


async def test_a_token_with_the_key_of_staff_does_not_open_the_desk(
    world: World, sign_in: SignIn
) -> None:
    _, page = await sign_in("/orders/", as_admin=True)
    (key,) = re.findall(r'data-imgo-name="(\d+)"', page)
    session = await world.session(key)
    assert (await session.ask(JOIN, "orders-desk")).value["error"]["code"] == "room_forbidden"
