"""Providers that fail in every order: each device is notified once, and the ledger says so."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from offline import conservation
from offline.models import Event
from push import push_to_keys
from push.devices import queue
from push.devices.addresses import address_of
from push.devices.registration import register
from push.devices.sender import NotificationSender
from push.devices.tables import Notification
from tests import eventually, in_thread

from .conftest import CONTENT
from .http2_server import Request, Response
from .mobile_services import Apple, Google

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.long]

DEVICES = 60
FAULTS = 90  # answers that are no success
HANGS = 3  # requests that are never answered
TIMEOUT = 5.0  # seconds: only those that hang last as long


@pytest.fixture(params=[Apple, Google])
def phones(request, tmp_path, imgo, monkeypatch):
    """A service of phones, whose limits and pauses are short."""
    monkeypatch.setattr(queue, "BACKOFF", (0.05, 0.2))
    monkeypatch.setattr("push.devices.providers.fcm.QUOTA_PAUSE", 0.1)
    monkeypatch.setattr(queue, "RETRY_AFTER_MAX", 0.3)
    with request.param(tmp_path).running() as found:
        imgo(**{**found.settings(), "NOTIFY_TIMEOUT": TIMEOUT})
        yield found


def faults(draw: random.Random) -> list[Response | None]:
    """Failures that are no fault of the notification. With each, the service has not taken it."""
    soon = format_datetime(datetime.now(tz=UTC) + timedelta(hours=2), usegmt=True)
    kinds: list[Callable[[], Response]] = [
        lambda: Response(429, {"retry-after": "1"}),
        lambda: Response(429, {"retry-after": soon}),
        lambda: Response(503, {"retry-after": draw.choice(["1", soon, "nonsense", "9" * 400])}),
        lambda: Response(500, {}, b"<html>" * draw.choice([1, 9_000])),
        lambda: Response(resets=True),
    ]
    found: list[Response | None] = [draw.choice(kinds)() for _ in range(FAULTS)]
    found += [None] * HANGS
    draw.shuffle(found)
    return found


@pytest.mark.parametrize("seed", range(3))
async def test_each_device_is_notified_once_whatever_a_provider_answers(phones, seed):
    draw = random.Random(seed)
    provider = "apns" if isinstance(phones, Apple) else "fcm"
    tokens = [f"{number:064x}" for number in range(DEVICES)]

    def prepare() -> None:
        for number, token in enumerate(tokens):
            register(f"u{number}", address_of(provider, None, token))

    await in_thread(prepare)
    accepted: list[str] = []
    accept = phones.accept

    def count(request: Request) -> Response:
        accepted.append(phones.token_of(request))
        return accept(request)

    phones.accept = count
    phones.answers = faults(draw)
    phones.requests_max = draw.randint(5, 15)
    sender = NotificationSender()
    task = asyncio.create_task(sender.run())
    keys = [f"u{number}" for number in range(DEVICES)]
    await in_thread(lambda: push_to_keys(keys, 1, notify=CONTENT, notify_after=0))
    try:
        await eventually(lambda: in_thread(is_over))
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await sender.stop()
    assert phones.answers == []
    assert Counter(accepted) == Counter(tokens)
    assert await in_thread(lambda: Counter(Event.objects.values_list("kind", flat=True))) == {
        Event.Kind.NOTIFIED: DEVICES
    }
    assert await in_thread(lambda: conservation.balance_of_latest(0).missing) == 0


def is_over() -> bool:
    return Event.objects.count() >= DEVICES and not waiting()


def waiting() -> bool:
    return Notification.objects.filter(state=Notification.State.WAITING).exists()
