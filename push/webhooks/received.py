"""Recording of upstream messages (op 4) for webhooks, before they are answered."""

import base64
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils import timezone

from imgo_site.batching import BatchLoader
from push.webhooks import outbox
from push.webhooks.endpoints import EventType, endpoints
from push.webhooks.tables import WebhookEvent


@dataclass(eq=False)
class _Upstream:
    """One message as rows. Equal messages are distinct keys of the loader."""

    rows: list[WebhookEvent]


def _write(messages: list[_Upstream]) -> dict[_Upstream, bool]:
    outbox.insert(row for message in messages for row in message.rows)
    return {}


_writer: BatchLoader[_Upstream, bool] = BatchLoader(_write)


async def record(key: str, session: str, op: int, body: Any, raw: bytes) -> None:
    """Store an upstream message for the endpoints that match it, if there are any.

    `body`: its JSON value, text or bytes. `raw`: the bytes as they were sent.

    Raises `DatabaseError`.
    """
    if not any(endpoint.matches(EventType.RECEIVED, key) for endpoint in endpoints()):
        return
    now, members = timezone.now(), {"session": session, "op": op}
    in_base64 = {**members, "body_base64": base64.b64encode(raw).decode()}
    if isinstance(body, bytes):
        rows = _rows(key, in_base64, now)
    else:
        try:
            rows = _rows(key, {**members, "body": body}, now)
        except (ValueError, RecursionError):  # Python reads NaN and deep lists, but writes none
            rows = _rows(key, in_base64, now)
    await _writer.get(_Upstream(rows))


def _rows(key: str, members: dict[str, Any], at: datetime) -> list[WebhookEvent]:
    return outbox.rows_for(EventType.RECEIVED, key, members, at)
