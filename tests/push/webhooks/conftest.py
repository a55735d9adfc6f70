"""What tests of webhooks share: endpoints, and events of the ledger."""

import base64
from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone

from offline.models import Event
from push.webhooks.tables import WebhookCursor

SECRET = "whsec_" + base64.b64encode(b"of the tests, with enough bytes!").decode()
OTHER_SECRET = "whsec_" + base64.b64encode(b"the second of the tests, longer!").decode()
URL = "http://127.0.0.1:9/a"
OTHER_URL = "http://127.0.0.1:9/b"
OWNER = "owner"


def entry(url: str = URL, **changes: Any) -> dict[str, Any]:
    """One entry of WEBHOOKS."""
    return {"url": url, "secret": SECRET, "events": ["*"], **changes}


@pytest.fixture
def webhooks(imgo) -> Callable[..., None]:
    """Sets the endpoints, and gives this test the lease."""

    def use(*entries: dict[str, Any], **settings: Any) -> None:
        imgo(WEBHOOKS=list(entries), **settings)
        WebhookCursor.objects.begin()
        assert WebhookCursor.objects.hold(OWNER)

    return use


def settle(key: str, message_id: int, kind: str = "acknowledged", **more: Any) -> Event:
    """Insert an event of the ledger."""
    return Event.objects.create(
        key=key, message_id=message_id, kind=kind, at=timezone.now(), **more
    )
