"""Notifications in a browser, from the click to what the service worker shows.

Chromium gets no subscription without Google's service, so the page's one is made here. All else is
real: the permission, the module, the service worker, the server, and a push service that decrypts.
The browser's tools hand what it has decrypted to the worker.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page

from tests import eventually
from tests.e2e.harness import Embedded, System
from tests.e2e.world import World
from tests.push.devices.push_service import Browser, PushService

from .conftest import SITE
from .visitors import Inbox, Visitor, new_text

pytestmark = pytest.mark.asyncio(loop_scope="session")

ENABLE = """async () => {
    const { enableNotifications } = await import("/static/push/imgo-notifications.js");
    try {
        return await enableNotifications("/sub", { name: "laptop" });
    } catch ({ name, code, message }) {
        return { error: code ?? `${name}: ${message}` };
    }
}"""
SUBSCRIBE = """(subscription) => {
    PushManager.prototype.subscribe = async function (options) {
        window.asked = [options.userVisibleOnly, options.applicationServerKey.length];
        return { toJSON: () => subscription };
    };
}"""
# A page that takes what is pending.
READ = """async () => {
    const { Imgo } = await import("/static/push/imgo.js");
    const { closeNotifications } = await import("/static/push/imgo-notifications.js");
    const client = new Imgo("/sub", { storage: null });
    client.on("message", () => {});
    closeNotifications(client);
    client.connect();
}"""
# What the browser does when it replaces a subscription. Untrusted events have no `waitUntil`.
REPLACE = """async (subscription) => {
    const event = new Event("pushsubscriptionchange");
    event.newSubscription = { toJSON: () => subscription };
    let done;
    event.waitUntil = (promise) => { done = promise; };
    self.dispatchEvent(event);
    await done;
}"""
SHOWN = """async () => {
    const registration = await navigator.serviceWorker.getRegistration("/static/push/");
    const all = await registration?.getNotifications() ?? [];
    return all.map(({ title, body, tag, data }) => ({ title, body, tag, data }));
}"""


@asynccontextmanager
async def running(system: System) -> AsyncIterator[None]:
    await asyncio.to_thread(system.start)
    try:
        yield
    finally:
        await asyncio.to_thread(system.stop)


async def deliver(page: Page, message: dict[str, Any]) -> None:
    """Hand a decrypted message to the page's service worker, as the browser's push client does."""
    tools = await page.context.new_cdp_session(page)
    found: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def updated(event: dict[str, Any]) -> None:
        for one in event["registrations"]:
            if not found.done() and one["scopeURL"].endswith("/static/push/"):
                found.set_result(one["registrationId"])

    tools.on("ServiceWorker.workerRegistrationUpdated", updated)
    await tools.send("ServiceWorker.enable")
    origin = await page.evaluate("location.origin")
    data = {"origin": origin, "registrationId": await found, "data": json.dumps(message)}
    await tools.send("ServiceWorker.deliverPushMessage", data)


async def test_user_who_is_away_is_shown_the_push(
    visit: Callable[..., Awaitable[Visitor]],
    enter: Callable[[System], Awaitable[World]],
    make_embedded: Callable[..., Embedded],
    tmp_path: Path,
) -> None:
    with PushService(tmp_path).running() as service:
        assert isinstance(service, PushService)
        system = make_embedded(**SITE, **service.settings("IMGO_"))
        async with running(system):
            world = await enter(system)
            visitor = await visit(system)
            inbox = await Inbox.enter(visitor, new_text())
            page, key = inbox.page, inbox.key
            assert await page.evaluate(ENABLE) == {"error": "denied"}
            await visitor.context.grant_permissions(["notifications"])
            browser: Browser = service.subscribe()
            await page.evaluate(SUBSCRIBE, browser.subscription)
            enabled = await page.evaluate(ENABLE)
            assert enabled["id"]
            assert await page.evaluate("window.asked") == [True, 65]
            assert (await world.api.get(f"/api/v1/keys/{key}/devices"))["count"] == 1
            await page.goto("about:blank")  # away
            notify = {"title": "Order 7", "body": "sent", "url": "/inbox", "data": {"n": 1}}
            push_id = await world.api.push({"key": key}, 1, notify=notify, notify_after=0)
            await eventually(lambda: browser.shown)
            await page.goto("/static/push/imgo.js")
            await deliver(page, browser.shown[0])
            await deliver(page, browser.shown[0])
            data = {"imgo": {"id": str(push_id), "url": "/inbox", "data": {"n": 1}}}
            wanted = [{"title": "Order 7", "body": "sent", "tag": f"imgo-{push_id}", "data": data}]

            async def is_shown(wanted: list[dict[str, Any]]) -> bool:
                return await page.evaluate(SHOWN) == wanted

            await eventually(lambda: is_shown(wanted))
            await page.evaluate(READ)
            await eventually(lambda: is_shown([]))
            replacement: Browser = service.subscribe()
            (worker,) = page.context.service_workers
            await worker.evaluate(REPLACE, replacement.subscription)
            assert (await world.api.get(f"/api/v1/keys/{key}/devices"))["count"] == 1
            await page.goto("about:blank")
            await world.api.push({"key": key}, 2, notify=notify, notify_after=0)
            await eventually(lambda: replacement.shown)
            assert len(browser.shown) == 1
