"""What tests of online events share: session events, and the rows of the outbox."""

import json
import time
from typing import Any

import pytest

from push.session.session_records import SessionEvent
from push.webhooks.tables import WebhookEvent
from tests.push.webhooks.conftest import entry


def event(at: float = 0.0, session: str = "s1", node: str = "n1", **more: Any) -> SessionEvent:
    """A session's opening or end. `at`: Unix time, seconds; 0 for now."""
    return SessionEvent(at or time.time(), node, "websocket", "192.0.2.1", session=session, **more)


def events(*keys: str, at: float = 0.0) -> dict[str, SessionEvent]:
    """One for each key."""
    return {key: event(at) for key in keys}


def stored() -> list[tuple[str, str]]:
    """Type and key of each event for webhooks, in order."""
    return list(WebhookEvent.objects.order_by("pk").values_list("type", "key"))


def data() -> list[dict[str, Any]]:
    """The data of each, in order."""
    rows = WebhookEvent.objects.order_by("pk").values_list("data", flat=True)
    return [json.loads(row) for row in rows]


@pytest.fixture
def hooked(imgo) -> None:
    """An endpoint that wants all events of keys."""
    imgo(WEBHOOKS=[entry(events=["key.online", "key.offline"])], EVENT_KEYS=["*"])
