"""The sender of a node: from due notices to outcomes, with limits, pauses and deadlines."""

import asyncio
import contextlib
import threading
import time
from typing import Any

import pytest
from django.db import OperationalError
from django.db.models.functions import Now

from offline.models import Event
from push import push_to_key, push_to_keys
from push.devices import queue
from push.devices import sender as module
from push.devices.jobs import Job, NoAnswer, Outcome, Result
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


class Failing(Gate):
    """A provider that raises an error as soon as it is to send."""

    def __init__(self, error: Exception) -> None:
        super().__init__(Result(Outcome.SENT))
        self.error = error

    async def send(self, _: object) -> Result:
        raise self.error


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


async def test_request_without_an_answer_is_sent_again_with_its_reason(caplog):
    lane = Lane(Failing(NoAnswer("connection_lost")))
    assert await lane.send(job("")) == Result(Outcome.RETRY, "connection_lost")
    assert "to device 17: connection_lost (retry)" in caplog.text


def waiting() -> list[tuple[int, float]]:
    """The attempts of each notification that is stored, and the seconds until the next one."""
    rows = Notification.objects.annotate(now=Now()).order_by("pk")
    return [(row.attempts, (row.next_at - row.now).total_seconds()) for row in rows]


def check_leased() -> None:
    """There is one notification, which is sent again when its lease has ended."""
    ((attempts, seconds),) = waiting()
    assert attempts == 1
    assert seconds > queue.LEASE_MARGIN


async def begin_with(monkeypatch, provider: Gate) -> tuple[NotificationSender, asyncio.Task[None]]:
    """A sender with this provider at work, and its task."""
    monkeypatch.setattr(module, "make", lambda _: provider)
    monkeypatch.setattr(module, "TICK", 0.01)
    found = NotificationSender()
    return found, asyncio.create_task(found.run())


async def end(found: NotificationSender, task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await found.stop()


async def test_fault_of_a_provider_costs_an_attempt_and_is_logged(
    service, register_browser, monkeypatch, caplog
):
    await in_thread(register_browser, "u1")
    found, task = await begin_with(monkeypatch, Failing(ZeroDivisionError("a bug")))
    message_id = await in_thread(lambda: push_to_key("u1", 1, notify=CONTENT, notify_after=0))
    text = f"the notification of message {message_id} was not sent"
    await eventually(lambda: text in caplog.messages)
    await end(found, task)
    ((attempts, seconds),) = await in_thread(waiting)
    assert (attempts, caplog.messages.count(text)) == (1, 1)
    assert 0 < seconds < queue.LEASE_MARGIN
    assert "ZeroDivisionError: a bug" in caplog.text


async def test_stop_stores_answers_that_come_in_time_and_cancels_the_others(
    service, register_browser, monkeypatch
):
    monkeypatch.setattr(module, "LAST_ANSWERS", 0.05)
    for key in ("u1", "u2"):
        await in_thread(register_browser, key)
    provider = Gate(Result(Outcome.SENT))
    found, task = await begin_with(monkeypatch, provider)
    send, begun, cancelled = provider.send, [], []

    async def send_one(given: Job) -> Result:
        begun.append(given.key)
        if given.key == "u1":
            return await send(given)
        try:
            return await asyncio.Future()
        except asyncio.CancelledError:
            cancelled.append(given.key)
            raise

    provider.send = send_one
    keys = ["u1", "u2"]
    await in_thread(lambda: push_to_keys(keys, 1, notify=CONTENT, notify_after=0))
    await eventually(lambda: sorted(begun) == keys)
    task.cancel()
    provider.open.set()
    await end(found, task)
    assert cancelled == ["u2"]
    assert await in_thread(kinds) == ["notified"]
    await in_thread(check_leased)


async def test_outcomes_are_stored_after_the_database_has_failed(
    service, register_browser, monkeypatch, caplog
):
    monkeypatch.setattr(module, "OUTAGE_PAUSE", 0.01)
    device, work, failures = await in_thread(register_browser, "u1"), module.step, 0

    def fail_twice(results: list, *rest: Any) -> list[Job]:
        nonlocal failures
        if results and failures < 4:  # the thread repeats a failed call once
            failures += 1
            raise OperationalError("it is away")
        return work(results, *rest)

    monkeypatch.setattr(module, "step", fail_twice)
    monkeypatch.setattr(module, "TICK", 0.01)
    found = NotificationSender()
    task = asyncio.create_task(found.run())
    await in_thread(lambda: push_to_key("u1", 1, notify=CONTENT, notify_after=0))
    await eventually(lambda: in_thread(lambda: kinds() == ["notified"]))
    await end(found, task)
    assert len(device.browser.requests) == 1
    assert caplog.messages.count("notifications wait, the database failed: it is away") == 2


async def test_outcome_is_stored_at_the_stop_after_a_fault_of_a_turn(
    service, register_browser, monkeypatch
):
    work = module.step

    def fail(results: list, *rest: Any) -> list[Job]:
        if results:
            raise ZeroDivisionError("a bug")
        return work(results, *rest)

    await in_thread(register_browser, "u1")
    monkeypatch.setattr(module, "step", fail)
    provider = Gate(Result(Outcome.SENT))
    provider.open.set()
    found, task = await begin_with(monkeypatch, provider)
    await in_thread(lambda: push_to_key("u1", 1, notify=CONTENT, notify_after=0))
    with pytest.raises(ZeroDivisionError):
        await task
    assert await in_thread(kinds) == []
    await found.stop()
    assert await in_thread(kinds) == ["notified"]


async def test_stop_while_the_database_fails_leaves_outcomes_to_the_lease(
    service, register_browser, monkeypatch, caplog
):
    def fail(_: object) -> None:
        raise OperationalError("it is away")

    await in_thread(register_browser, "u1")
    provider = Gate(Result(Outcome.SENT))
    found, task = await begin_with(monkeypatch, provider)
    await in_thread(lambda: push_to_key("u1", 1, notify=CONTENT, notify_after=0))
    await eventually(lambda: any(lane.tasks for lane in found._lanes.values()))
    monkeypatch.setattr(queue, "settle", fail)
    task.cancel()
    provider.open.set()
    await end(found, task)
    assert "notifications without an outcome are sent again: it is away" in caplog.messages
    await in_thread(check_leased)
    assert "imgo-devices-database" not in {thread.name for thread in threading.enumerate()}
