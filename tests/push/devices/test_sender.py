"""The sender of a node: from due notices to outcomes, with limits, pauses and deadlines."""

import asyncio
import contextlib
import time

import pytest

from offline.models import Event
from push import push_to_key, push_to_keys
from push.devices import queue
from push.devices.jobs import Outcome, Result
from push.devices.sender import Lane, NotificationSender
from push.devices.tables import Device, Notification
from tests import eventually, in_thread

from .conftest import CONTENT, address_text, job
from .http2_server import Response

pytestmark = pytest.mark.django_db(transaction=True)


class Gate:
    """A provider that answers when it is told to."""

    name = "webpush"

    def __init__(self, result: Result) -> None:
        self.result = result
        self.open = asyncio.Event()

    async def send(self, _: object) -> Result:
        await self.open.wait()
        return self.result

    async def close(self) -> None:
        pass


@pytest.fixture
async def sender(service):
    found = NotificationSender()
    task = asyncio.create_task(found.run())
    yield found
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await found.stop()


def kinds() -> list[str]:
    return list(Event.objects.order_by("pk").values_list("kind", flat=True))


async def test_push_reaches_the_browser_and_the_ledger(service, register_browser, sender):
    device = await in_thread(register_browser, "u1")
    await in_thread(lambda: push_to_key("u1", 1, notify=CONTENT, notify_after=0))
    await eventually(lambda: in_thread(lambda: kinds() == ["notified"]))
    assert [shown["title"] for shown in device.browser.shown] == ["Order 7"]
    assert not await in_thread(Notification.objects.exists)


async def test_many_notifications_are_sent_once_each_and_recorded(
    service, register_browser, imgo, sender
):
    """More than are under way at a time, so that outcomes come while others are claimed."""
    imgo(**{**service.settings(), "NOTIFY_CONCURRENCY": 4})
    browser = service.subscribe()
    text = address_text(browser)
    keys = [f"u{n}" for n in range(20)]
    rows = [Device(key=key, provider="webpush", address=text, digest=key) for key in keys]
    await in_thread(lambda: Device.objects.bulk_create(rows))
    await in_thread(lambda: push_to_keys(keys, 1, notify=CONTENT, notify_after=0))
    await eventually(lambda: in_thread(lambda: kinds() == ["notified"] * len(keys)))
    assert len(browser.requests) == len(keys)
    assert not await in_thread(Notification.objects.exists)


async def test_gone_device_is_forgotten(service, register_browser, sender):
    device = await in_thread(register_browser, "u1")
    service.answers = [Response(410)]
    await in_thread(lambda: push_to_key("u1", 1, notify=CONTENT, notify_after=0))
    await eventually(lambda: in_thread(lambda: not Device.objects.exists()))
    assert (len(device.browser.requests), await in_thread(kinds)) == (1, ["notify_failed"])


async def test_hanging_service_is_left_at_the_deadline_and_asked_again(
    service, register_browser, imgo
):
    imgo(**{**service.settings(), "NOTIFY_TIMEOUT": 0.2})
    service.answers = [None]
    device = await in_thread(register_browser, "u1")
    await in_thread(lambda: push_to_key("u1", 1, notify=CONTENT, notify_after=0))
    found = NotificationSender()
    task = asyncio.create_task(found.run())
    await eventually(lambda: device.browser.shown)
    first, second = device.browser.requests
    assert first.headers["topic"] == second.headers["topic"]
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await found.stop()
    assert await in_thread(kinds) == ["notified"]


async def test_lane_is_limited_in_number_and_rate(imgo):
    imgo(NOTIFY_CONCURRENCY=3, NOTIFY_RATE=5)
    lane = Lane(Gate(Result(Outcome.SENT)))
    assert lane.free == 3
    lane.use(3)
    assert lane.free == 2
    lane.tasks.update(asyncio.create_task(lane.send(job(""))) for _ in range(3))
    assert lane.free == 0
    lane.provider.open.set()
    await asyncio.gather(*lane.tasks)


async def test_provider_that_asks_for_a_pause_gets_it(imgo):
    pausing = Result(Outcome.RETRY, "QUOTA_EXCEEDED", retry_after=0.2, pauses=True)
    lane = Lane(Gate(pausing))
    lane.provider.open.set()
    began = time.monotonic()
    assert await lane.send(job("secret-address")) == pausing
    assert lane.free == 0
    await eventually(lambda: lane.free > 0)
    assert time.monotonic() - began >= 0.2


async def test_pause_of_a_provider_is_bounded(imgo, monkeypatch):
    monkeypatch.setattr(queue, "RETRY_AFTER_MAX", 0.2)
    lane = Lane(Gate(Result(Outcome.RETRY, "quota", retry_after=float("inf"), pauses=True)))
    lane.provider.open.set()
    await lane.send(job(""))
    assert lane.free == 0
    await eventually(lambda: lane.free > 0)


async def test_shorter_pause_does_not_end_a_longer_one(imgo):
    lane = Lane(Gate(Result(Outcome.RETRY, "quota", retry_after=3_600, pauses=True)))
    lane.provider.open.set()
    await lane.send(job(""))
    lane.provider.result = Result(Outcome.RETRY, "busy", retry_after=0, pauses=True)
    await lane.send(job(""))
    assert lane.free == 0


async def test_log_of_a_failure_has_no_address(caplog):
    lane = Lane(Gate(Result(Outcome.REJECTED, "status_403")))
    lane.provider.open.set()
    await lane.send(job("secret-address"))
    assert "to device 17: status_403 (rejected)" in caplog.text
    assert "secret-address" not in caplog.text
