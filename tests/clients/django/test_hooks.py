"""The hook `receive` of a running node, answered by a function of a running project."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from imgo_client import Client, Refused
from tests.e2e.harness import HOST, Embedded, System, logs
from tests.e2e.world import World, new_key

from .shop import Shop, Site
from .test_webhooks import SECRET


@pytest.fixture
async def site(make_shop: Callable[..., Shop]) -> AsyncIterator[Site]:
    """A project that answers the hook."""
    shop = make_shop(WEBHOOK_SECRETS=[SECRET], RECEIVE="shop.hooks.receive_message")
    await asyncio.to_thread(shop.migrate)
    found = Site(shop, "site")
    await found.start_beside()
    yield found
    found.kill()


@pytest.mark.parametrize("vendor", ["sqlite"], indirect=True)
async def test_function_of_the_project_replies_to_a_client_or_refuses(
    site: Site,
    make_embedded: Callable[..., Embedded],
    own_system: Callable[[System], System],
    enter: Callable[[System], Awaitable[World]],
) -> None:
    url = f"{site.url}/imgo/hook/receive/"
    system = own_system(make_embedded(IMGO_RECEIVE_URL=url, IMGO_HOOK_SECRETS=SECRET))
    world, opened = await enter(system), asyncio.Event()
    token = await world.token(new_key())
    async with Client(f"ws://{HOST}:{system.nodes[0].http_port}/sub", token) as client:
        client.on("open", lambda _: opened.set())
        await opened.wait()
        assert await client.request({"reply": [1, "é"]}) == [1, "é"]
        assert await client.request({}) == {}
        with pytest.raises(Refused) as refused:
            await client.request({"refuse": True})
        assert (refused.value.code, refused.value.message) == ("sold_out", "No seat is left.")
        with pytest.raises(Refused) as failed:
            await client.request({"fail": True})
        assert failed.value.code == "unavailable"
    (complaint,) = logs.complaints()
    assert "ValueError: the shop has a bug" in complaint
