"""Settlement: pending rows end with one event each: received, acknowledged, expired or dropped."""

from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import Count, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from offline.models import Event, Pending
from offline.sql import CHUNK, chunks, dialect
from offline.values import DeviceReceipt, Receipt

SETTLE_BATCH = 1000  # rows of one DELETE, so that none holds locks for long


def record_receipts(receipts: Sequence[Receipt], *, again: bool = False) -> int:
    """Record deliveries, and settle those that they acknowledge; return how many were pending.

    The first `received` or `acknowledged` of a (message, key) settles it. A further `received` is
    recorded as `sent`. A further `acknowledged` is not recorded.

    `again`: Postgres may have carried out an earlier call with some of these receipts, whose
    answer was lost. A delivery that is recorded already is not recorded a second time. On SQLite
    no answer is lost.
    """
    return dialect().record_receipts(receipts, again=again) if receipts else 0


def record_device_receipts(
    receipts: Sequence[DeviceReceipt], *, again: bool = False
) -> list[DeviceReceipt]:
    """Record receipts of sessions of keys with the scope `each`; return those that settled a row.

    Like `record_receipts`, for each device. The row without a device of a key that had none is
    settled by the first one. `again`: as there.
    """
    settled = dialect().record_device_receipts(receipts, again=again) if receipts else set()
    return [receipts[place] for place in sorted(settled)]


def record_ends(rows: Iterable[Sequence[Any]], kind: str, reason: str = "") -> None:
    """Record the end of each (message id, key, device). The caller deletes their pending rows."""
    now = timezone.now()
    Event.objects.bulk_create(
        (
            Event(message_id=message_id, key=key, device=device, kind=kind, reason=reason, at=now)
            for message_id, key, device in rows
        ),
        batch_size=CHUNK,
    )


def keys_over_limit(keys: Collection[str], limit: int) -> dict[str, int]:
    """Return those of `keys` that have more than `limit` pending messages, and how many.

    On Postgres the count stops at ten times the limit, and one.
    """
    return dialect().keys_over_limit(list(keys), limit)


def devices_over_limit(key: str, limit: int) -> dict[str, int]:
    """Return the devices of a key with more than `limit` pending messages, and how many."""
    counts = Pending.objects.filter(key=key).order_by().values("device").annotate(n=Count("pk"))
    return dict(counts.filter(n__gt=limit).values_list("device", "n"))


def drop_oldest(
    key: str, limit: int, *, device: str | None = None, pending_for: float = 0.0
) -> int:
    """Drop the oldest pending messages of `key` above `limit`; return how many.

    `device`: those of one device of the key; None for all of them.
    `pending_for`: drop only those that have been pending for this many seconds.
    """
    dropped = 0
    rows = Pending.objects.filter(key=key)
    if device is not None:
        rows = rows.filter(device=device)
    newest = rows.order_by("-message_id").values_list("message_id", flat=True)
    # One id, of the newest message to drop; none if others were acknowledged meanwhile.
    for newest_gone in newest[limit : limit + 1]:
        oldest = rows.filter(message_id__lte=newest_gone).order_by("message_id")
        if pending_for:
            before = Now() - timedelta(seconds=pending_for)
            oldest = oldest.filter(message__created_at__lt=before)
        while count := _settle(oldest[:SETTLE_BATCH], Event.Kind.DROPPED, "offline_max"):
            dropped += count
    return dropped


def expire_batch() -> int:
    """Settle one batch of expired pending rows; return how many."""
    due = Pending.objects.filter(expires_at__lte=Now()).order_by("expires_at")
    return _settle(due[:SETTLE_BATCH], Event.Kind.EXPIRED)


def _settle(rows: QuerySet[Pending], kind: str, reason: str = "") -> int:
    with transaction.atomic():
        # Skip rows that another transaction is settling at this moment.
        locked = rows.select_for_update(skip_locked=True, of=("self",))
        ended = list(locked.values_list("pk", "message_id", "key", "device"))
        for chunk in chunks(ended):
            Pending.objects.filter(pk__in=[pk for pk, *_ in chunk]).delete()
        record_ends([row for _, *row in ended], kind, reason)
    return len(ended)
