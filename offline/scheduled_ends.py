"""End of a scheduled push that must not be sent: it was cancelled, replaced, or is stale.

It becomes a message that was never fanned out, with the id that the API returned. Its record has
the reason, and the balance of accepted and settled deliveries holds.
"""

from datetime import timedelta
from typing import Any

from imgo_site.conf import conf
from offline.models import CANCELLED, Event, Message
from offline.settlement import record_ends


def end_scheduled(row: Any, reason: str) -> Message:
    """Turn a scheduled push into a message whose deliveries are dropped for this reason.

    `row`: a locked `ScheduledPush` with `now`, the database's time. Call it in a transaction.
    """
    keys: list[str] = row.keys if row.stored and row.keys else []
    message = Message.objects.create(
        **{name: getattr(row, name) for name in _SAME},
        recipients=len(keys),
        expires_at=row.due_at + timedelta(seconds=row.ttl),
        keep_until=row.now + timedelta(seconds=conf.RECORD_KEEP),
        retracted_at=row.now,  # no session was sent it, so no cancellation needs a retraction
        cancelled_at=row.now if reason == CANCELLED else None,
        drop_reason="" if reason == CANCELLED else reason,
    )
    record_ends([(row.pk, key, "") for key in keys], Event.Kind.DROPPED, reason)
    row.delete()
    return message


_SAME = (
    "id", "audience", "room", "keys", "stored", "op", "body", "is_json", "by", "ensure", "speed",
    "created_at", "exclude", "collapse_key", "version",
)  # fmt: skip
