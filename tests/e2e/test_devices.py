"""Notifications to devices of running servers, received by a push service that decrypts them."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import eventually
from tests.push.devices.push_service import Browser, PushService

from .api_client import Publisher
from .harness import Cluster, Embedded, System, manage
from .world import World, new_key

DEVICES = 8
RESENT_MAX = 90.0  # seconds: the lease of a killed node's claims, and pauses after failures

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


@pytest.mark.timeout(300)
@pytest.mark.long
async def test_notification_of_a_killed_node_is_sent_again_with_its_topic(
    service: PushService, make_cluster: Callable[..., Cluster], enter: Enter
) -> None:
    """Some requests hang when one of two nodes is killed. Each browser is shown its push."""
    system = make_cluster(**service.settings("IMGO_"), IMGO_NOTIFY_TIMEOUT="5")
    try:
        world = await start(system, enter)
        keys = [new_key() for _ in range(DEVICES)]
        browsers = {key: service.subscribe() for key in keys}
        for key, browser in browsers.items():
            await register(world, key, browser)
        service.answers = [None] * DEVICES
        notify = {"notify": {"title": "Hi"}, "notify_after": 0}
        ids = {key: await world.api.push({"key": key}, 1, **notify) for key in keys}
        await asyncio.to_thread(service.wait_for, DEVICES)
        await asyncio.to_thread(system.nodes[0].kill)
        await eventually(lambda: all(one.shown for one in browsers.values()), RESENT_MAX)
        for key, browser in browsers.items():
            assert {shown["id"] for shown in browser.shown} == {str(ids[key])}
            topics = {request.headers["topic"] for request in browser.requests}
            assert topics == {f"imgo-{ids[key]}"}

        async def are_recorded() -> bool:
            api = Publisher(system.nodes[1].url, system.api_key, system.nodes[1].tls)
            try:
                records = [await api.get(f"/api/v1/pushes/{one}") for one in ids.values()]
            finally:
                await api.close()
            return all(len(one["results"][0].get("notified", ())) == 1 for one in records)

        await eventually(are_recorded)
        balance = json.loads(manage(system.environment, "conserve", "--json"))
        assert balance["missing"] == 0
    finally:
        await asyncio.to_thread(system.stop)
