"""Closings: notifications that devices show, and whose message was read or cancelled since.

The rows of notifications that a provider which can close them has taken stay until the message
ends. Acknowledgements and cancellations do nothing for that. A node reads the events that they
record, each event once, while such a row exists. Messages that were not notified cost nothing.

No end is missed. `SHOWN` rows are compared with all events, once, and are `WATCHED` from then on.
Watched rows are compared with the events above the cursor. An end is visible to the first
comparison, or its event's id is above the cursor: `Horizon` tells up to which id all are visible.
"""

import json
import time
from collections.abc import Sequence
from typing import Any

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.db.models.functions import Now

from imgo_site.postgres.limits import limit_idle
from offline.event_feed import Horizon
from offline.models import ACKNOWLEDGED, CANCELLED, RECEIVED, REPLACED, Event
from push.devices.addresses import configured
from push.devices.tables import CLOSING_PROVIDERS, SHOWN, ClosingCursor, Notification

SCAN_MAX = 50_000  # ids of events that one statement reads; above that, rows are compared instead
COMPARE_MAX = 2_000  # rows that one statement compares with all events
# Events after which a notification has no use: the message was read, or taken back.
_ENDS = Q(kind__in=(ACKNOWLEDGED, RECEIVED)) | Q(
    kind=Event.Kind.DROPPED, reason__in=(CANCELLED, REPLACED)
)


def can_close() -> bool:
    """Return whether a provider is configured that can close notifications."""
    return any(name in CLOSING_PROVIDERS for name in configured())


class Watch:
    """Search of one node for shown notifications that are of no use any more."""

    def __init__(self) -> None:
        self._horizon = Horizon(time.monotonic)

    def step(self) -> None:
        """Mark those whose message has ended. Call it regularly, in autocommit mode."""
        if can_close() and Notification.objects.filter(state__in=SHOWN).exists():
            upto = self._horizon.advance()
            if upto:
                mark(upto)


def mark(upto: int) -> None:
    """Mark the shown notifications whose message has ended, to be closed.

    `upto`: an id up to which all events are visible. It does nothing while another process does it.
    """
    with transaction.atomic():
        limit_idle()
        cursor = ClosingCursor.objects.select_for_update(skip_locked=True).first()
        if cursor is None:
            ClosingCursor.objects.bulk_create([ClosingCursor()], ignore_conflicts=True)
            return
        upto = max(upto, cursor.position)
        watched = Notification.objects.filter(state=Notification.State.WATCHED)
        if upto - cursor.position > SCAN_MAX:
            watched.update(state=Notification.State.SHOWN)
        elif upto > cursor.position:
            shown = Notification.objects.filter(state__in=SHOWN)
            _close(shown, Event.objects.filter(pk__gt=cursor.position, pk__lte=upto))
        new = Notification.objects.filter(state=Notification.State.SHOWN).order_by("pk")
        pks = list(new.values_list("pk", flat=True)[:COMPARE_MAX])
        if pks:
            rows = Notification.objects.filter(pk__in=pks)
            _close(rows, Event.objects.all())
            rows.filter(state=Notification.State.SHOWN).update(state=Notification.State.WATCHED)
        ClosingCursor.objects.update(position=upto)


def _close(rows: "QuerySet[Notification]", events: "QuerySet[Event]") -> None:
    """Mark those of the shown notifications whose end is among the events."""
    ends = events.filter(_ENDS, message_id=OuterRef("message_id"), key=OuterRef("key"))
    rows.filter(Exists(ends)).update(state=Notification.State.CLOSING, next_at=Now())


def still_shown(rows: Sequence[Any]) -> set[int]:
    """Return the primary keys of the notifications to close that the device may still show.

    Those that have expired are left out, and those that a newer notification with the same tag has
    replaced on their device. `rows`: with `notice` loaded, and `now`.
    """
    alive = [row for row in rows if row.expires_at > row.now]
    tagged = {row.device_id for row in alive if _tag(row)}
    newest: dict[tuple[int, str], int] = {}  # device and tag → message
    if tagged:
        others = Notification.objects.filter(
            device__in=tagged, state__in=(*SHOWN, Notification.State.CLOSING)
        )
        for row in others.select_related("notice").order_by("message_id"):
            newest[row.device_id, _tag(row)] = row.message_id
    return {
        row.pk
        for row in alive
        if not _tag(row) or newest.get((row.device_id, _tag(row)), 0) <= row.message_id
    }


def _tag(row: Any) -> str:
    """Return the tag that the app has given, "" without one."""
    return str(json.loads(row.notice.content).get("tag", ""))
