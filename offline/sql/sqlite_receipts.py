"""Receipts on SQLite: records them and settles what they acknowledge."""

from collections.abc import Callable, Sequence
from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from offline.models import ACKNOWLEDGED, SENT, Event, KeyDevice, Pending
from offline.sql.base import CHUNK, chunks
from offline.values import DeviceReceipt, Receipt

Pair = tuple[int, str]  # a message id, and a key
# Returns the devices of a pair's rows that a receipt settles, given those of the rows there are.
Settles = Callable[[Receipt | DeviceReceipt, list[str]], list[str]]


def record_receipts(receipts: Sequence[Receipt]) -> int:
    """Do what `Dialect.record_receipts` describes."""
    with transaction.atomic():
        return sum(len(devices) for devices in _record(receipts, lambda _, rows: rows))


def record_device_receipts(receipts: Sequence[DeviceReceipt]) -> set[int]:
    """Do what `Dialect.record_device_receipts` describes."""

    def settles(receipt: Receipt | DeviceReceipt, devices: list[str]) -> list[str]:
        assert isinstance(receipt, DeviceReceipt)
        shared = [] if receipt.key in unnamed else [""]
        return [name for name in (receipt.device, *shared) if name in devices][:1]

    with transaction.atomic():
        unnamed = set(
            KeyDevice.objects.filter(
                name="", key__in={receipt.key for receipt in receipts}
            ).values_list("key", flat=True)
        )
        settled = _record(receipts, settles)
    return {place for place, devices in enumerate(settled) if devices}


def _record(
    receipts: Sequence[Receipt] | Sequence[DeviceReceipt], settles: Settles
) -> list[list[str]]:
    """Record receipts; return, for each, the devices of the rows that it has settled."""
    rows = _pending(
        {(receipt.message_id, receipt.key) for receipt in receipts if receipt.kind != SENT}
    )
    now = timezone.now()
    events: list[Event] = []
    settled: list[list[str]] = []
    gone: list[int] = []
    for receipt in receipts:
        by_device = rows.get((receipt.message_id, receipt.key), {})
        ended = settles(receipt, list(by_device)) if receipt.kind != SENT else []
        settled.append(ended)
        gone += [by_device.pop(device) for device in ended]
        if not ended and receipt.kind == ACKNOWLEDGED:
            continue
        events += [
            Event(
                message_id=receipt.message_id,
                key=receipt.key,
                kind=receipt.kind if ended else SENT,
                session=receipt.session,
                at=now - timedelta(seconds=receipt.age),
                device=getattr(receipt, "device", device),
            )
            for device in ended or [""]
        ]
    for chunk in chunks(gone):
        Pending.objects.filter(pk__in=chunk).delete()
    Event.objects.bulk_create(events, batch_size=CHUNK)
    return settled


def _pending(pairs: set[Pair]) -> dict[Pair, dict[str, int]]:
    """Return, for each of these pairs that is pending, the primary keys of its rows by device."""
    rows_of: dict[Pair, dict[str, int]] = {}
    for chunk in chunks(sorted(pairs)):
        rows = Pending.objects.filter(
            message__in={i for i, _ in chunk}, key__in={key for _, key in chunk}
        )
        for pk, message_id, key, device in rows.values_list("pk", "message_id", "key", "device"):
            if (message_id, key) in pairs:
                rows_of.setdefault((message_id, key), {})[device] = pk
    return rows_of
