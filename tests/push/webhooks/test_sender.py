"""The sender: one at a time works, results are stored, and nothing is lost when it stops."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import pytest
from django.db import OperationalError
from django.db.models.functions import Now

from offline import event_feed
from push.webhooks import outbox
from push.webhooks import sender as module
from push.webhooks.sender import Sender
from push.webhooks.tables import WebhookBatch, WebhookCursor, WebhookEvent
from tests import eventually, in_thread
from tests.push.hooks.fake_backend import Backend, Request, backend, response

from .conftest import entry, settle

pytestmark = pytest.mark.django_db(transaction=True)

HOUR = Now() + timedelta(hours=1)


@pytest.fixture(autouse=True)
def _quick(monkeypatch) -> None:
    monkeypatch.setattr(module, "STANDBY", 0.05)


@asynccontextmanager
async def running() -> AsyncIterator[Sender]:
    """A sender at work."""
    found = Sender()
    task = asyncio.create_task(found.run())
    try:
        yield found
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await found.stop()


def ids(requests: list[Request]) -> list[str]:
    return [event["data"]["id"] for one in requests for event in json.loads(one.raw)["events"]]


@pytest.fixture
def use(imgo) -> Callable[..., None]:
    async def configure(found: Backend, **settings: object) -> None:
        imgo(WEBHOOKS=[entry(found.url)], **settings)
        await in_thread(WebhookCursor.objects.begin)

    return configure


async def test_events_are_sent_and_nothing_is_left(use):
    async with backend(lambda _: response(200)) as found:
        await use(found)
        async with running():
            for number in range(1, 6):
                await in_thread(settle, "u", number)
            await eventually(lambda: len(ids(found.requests)) == 5)
        assert ids(found.requests) == list("12345")
    assert not await in_thread(WebhookEvent.objects.exists)
    assert not await in_thread(WebhookBatch.objects.exists)
    row = await in_thread(WebhookCursor.objects.get)
    assert row.owner == ""


async def test_second_sender_waits_until_the_first_one_ends(use):
    async with backend(lambda _: response(200)) as found:
        await use(found)
        async with running() as first:
            await eventually(lambda: first._work._is_owner)
            async with running() as second:
                await in_thread(settle, "u", 1)
                await eventually(lambda: ids(found.requests) == ["1"])
                assert not second._work._is_owner
                await in_thread(WebhookCursor.objects.update, owner="", until=Now())
                # The first one notices at its next renewal, and does not interfere until then.
                await in_thread(settle, "u", 2)
                await eventually(lambda: "2" in ids(found.requests))
                await eventually(lambda: first._work._is_owner != second._work._is_owner)


async def test_request_in_flight_is_repeated_by_the_next_sender(use, monkeypatch):
    monkeypatch.setattr(module, "LAST_ANSWERS", 0.01)
    async with backend(lambda _: None) as found:
        await use(found)
        async with running():
            await in_thread(settle, "u", 1)
            await eventually(lambda: found.requests)
        found.answer = lambda _: response(200)
        async with running():
            await eventually(lambda: len(found.requests) == 2)
        first, second = found.requests
        assert first.headers["webhook-id"] == second.headers["webhook-id"]
        assert first.raw == second.raw


async def test_results_are_stored_after_the_database_has_failed(use, monkeypatch):
    async with backend(lambda _: response(200)) as found:
        await use(found)
        step, failures = module._Work.step, 0

        def fail_once(work, results, in_flight):
            nonlocal failures
            if results and failures < 2:  # the thread repeats a failed call once
                failures += 1
                raise OperationalError("it is away")
            return step(work, results, in_flight)

        monkeypatch.setattr(module._Work, "step", fail_once)
        async with running():
            await in_thread(settle, "u", 1)
            await eventually(lambda: failures == 2)

            async def is_empty() -> bool:
                return not await in_thread(WebhookBatch.objects.exists)

            await eventually(is_empty)
        assert len(found.requests) == 1


@pytest.fixture
def at_once(monkeypatch) -> None:
    """A sender finds events at once. That is right here: their transactions have ended."""
    monkeypatch.setattr(module, "TICK", 0.01)
    monkeypatch.setattr(event_feed, "ASSIGN_TIME", 0.0)


@pytest.mark.usefixtures("at_once")
async def test_sender_that_loses_the_lease_cancels_its_requests(use, monkeypatch, caplog):
    monkeypatch.setattr(module, "RENEW", 0.0)
    async with backend(lambda _: None) as found:
        await use(found)
        async with running() as sender:
            await in_thread(settle, "u", 1)
            await eventually(lambda: found.requests)
            await in_thread(WebhookCursor.objects.update, owner="another", until=HOUR)
            await eventually(lambda: found.open_at_once == 0 and not sender._requests)
            assert "another node sends webhooks now" in caplog.messages
            found.answer = lambda _: response(200)
            await in_thread(WebhookCursor.objects.release, "another")
            await eventually(lambda: len(found.requests) == 2)
        first, second = found.requests
        assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert not await in_thread(WebhookBatch.objects.exists)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(("log_every", "lines"), [(3600.0, 1), (0.0, 3)])
async def test_failures_of_an_endpoint_are_logged_now_and_then(
    use, monkeypatch, caplog, log_every, lines
):
    monkeypatch.setattr(module, "LOG_EVERY", log_every)
    monkeypatch.setattr(outbox, "BATCH_MAX", 1)
    monkeypatch.setattr(outbox, "BACKOFF", (600.0, 600.0))
    async with backend(lambda _: response(500)) as found:
        await use(found)
        async with running():
            for number in range(3):
                await in_thread(settle, f"k{number}", number)
            await eventually(lambda: len(found.requests) == 3)
    logged = [line for line in caplog.messages if line.startswith("a webhook to")]
    assert logged == [f"a webhook to {found.url} failed: it answered with status 500"] * lines
    attempts = WebhookBatch.objects.values_list("attempts", flat=True)
    assert await in_thread(list, attempts) == [1, 1, 1]


async def test_sender_stops_while_the_database_fails(use, monkeypatch, caplog):
    def fail(*_: object) -> None:
        raise OperationalError("it is away")

    async with backend(lambda _: response(200)) as found:
        await use(found)
        async with running() as sender:
            await eventually(lambda: sender._work._is_owner)
            monkeypatch.setattr(module._Work, "finish", fail)
    assert "the lease of webhooks ends by itself: it is away" in caplog.messages
    assert "imgo-webhooks-database" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.long
async def test_hanging_endpoint_does_not_delay_another(imgo, monkeypatch):
    monkeypatch.setattr(module, "LAST_ANSWERS", 0.01)
    monkeypatch.setattr(module, "TICK", 0.05)
    async with backend(lambda _: None) as hanging, backend(lambda _: response(200)) as fine:
        imgo(WEBHOOKS=[entry(hanging.url), entry(fine.url)])
        await in_thread(WebhookCursor.objects.begin)
        async with running():
            for number in range(1, 7):  # more than may be in flight
                await in_thread(settle, f"k{number}", number)
                await eventually(lambda n=str(number): n in ids(fine.requests))
            assert 1 <= hanging.most_at_once <= module.IN_FLIGHT_MAX
