"""Notifications to devices of running servers, received by a push service that decrypts them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import eventually
from tests.push.devices.push_service import Browser, PushService

from .harness import Embedded, System, manage
from .world import World, new_key

Enter = Callable[[System], Awaitable[World]]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[PushService]:
    with PushService(tmp_path).running() as found:
        assert isinstance(found, PushService)
        yield found


async def start(system: System, enter: Enter) -> World:
    await asyncio.to_thread(system.start)
    return await enter(system)


async def register(world: World, key: str, browser: Browser) -> dict[str, Any]:
    """Register a browser as its page does, with the client's token."""
    answer = await world.api.http.post(
        "/sub/devices",
        headers={"Authorization": f"Bearer {await world.token(key)}"},
        json={"provider": "webpush", "subscription": browser.subscription, "name": "laptop"},
    )
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_absent_key_is_notified_present_one_is_not(
    service: PushService, make_embedded: Callable[..., Embedded], enter: Enter
) -> None:
    """One push to two keys: the one without a session is shown it, the other acknowledges it."""
    system = make_embedded(**service.settings("IMGO_"))
    try:
        world = await start(system, enter)
        absent, present = new_key(), new_key()
        browsers = [service.subscribe(), service.subscribe()]
        device = await register(world, absent, browsers[0])
        await register(world, present, browsers[1])
        client = await world.session(present, ack=True)
        notify = {"title": "Order 7", "body": "sent — ✓", "url": "/orders/7", "data": {"n": 1}}
        options = {"notify": notify, "notify_after": 1}
        push_id = await world.api.push({"keys": [absent, present]}, b"1", **options)
        await client.ack(await client.receive())
        await eventually(lambda: browsers[0].shown)
        assert browsers[0].shown == [{"id": str(push_id), **notify}]
        record = {}

        async def is_recorded() -> bool:
            rows = (await world.api.get(f"/api/v1/pushes/{push_id}"))["results"]
            record.update({row["key"]: row for row in rows})
            return "notified" in record[absent]

        await eventually(is_recorded)
        (notified,) = record[absent]["notified"]
        assert notified["device"] == device["id"]
        assert notified["provider_id"] == f"{service.url}/m/1"
        assert record[present]["state"] == "acknowledged"
        assert not browsers[1].requests
        explained = manage(system.environment, "explain", absent, str(push_id))
        assert f"Its notification was taken by the provider of device {device['id']}" in explained
        assert browsers[0].endpoint not in system.nodes[0].log.read_text()
    finally:
        await asyncio.to_thread(system.stop)
