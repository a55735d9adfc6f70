"""What tests of devices share: a push service, jobs, and devices of keys."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from push.devices.addresses import address_of
from push.devices.jobs import Job
from push.devices.registration import register
from push.devices.tables import Device

from .push_service import Browser, PushService

CONTENT = {"title": "Order 7", "body": "sent", "url": "/orders/7", "tag": "o7", "data": {"n": 1}}


@pytest.fixture(scope="package")
def running_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PushService]:
    with PushService(tmp_path_factory.mktemp("service")).running() as found:
        assert isinstance(found, PushService)
        yield found


@pytest.fixture
def service(running_service: PushService, imgo) -> PushService:
    """The push service of this process, configured, without the traces of other tests."""
    running_service.requests.clear()
    running_service.answers.clear()
    imgo(**running_service.settings())
    return running_service


def job(address: str, provider: str = "webpush", **changes: Any) -> Job:
    values = {
        "pk": 1, "attempt": 1, "message_id": 1043, "key": "u1", "device_id": 17,
        "provider": provider, "address": address, "content": CONTENT, "ttl": 60,
    }  # fmt: skip
    return Job(**{**values, **changes})


def address_text(browser: Browser) -> str:
    """The address of a browser as it is stored."""
    return address_of("webpush", browser.subscription, None).text


@pytest.fixture
def register_browser(service: PushService) -> Callable[..., Device]:
    """Registers a new browser of a key; `browser` of the result is the browser."""

    def make(key: str, name: str = "", browser: Browser | None = None) -> Device:
        found = browser or service.subscribe()
        device = register(key, address_of("webpush", found.subscription, None), name)
        device.browser = found
        return device

    return make


def notify(**changes: Any) -> str:
    return json.dumps({**CONTENT, **changes})
