"""Cancellation of a push: its scheduled and pending deliveries end as `dropped: cancelled`.

A scheduled push becomes a message that was never fanned out, with the id that the API returned. Its
record names the cancelled deliveries, and the balance of accepted and settled deliveries holds.

A message first leaves the outbox, so that no later fan-out sends it, and its room's history, where
its offset stays as a tombstone. Then its pending rows are settled, in batches. Finally a
retraction is stored: a message that asks clients to remove this one. If a call is interrupted, the
next one completes it. A copy that a fan-out has already sent may still reach a session: the record
then has `sent` beside `dropped`.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models.functions import Now

from imgo_site.conf import conf
from imgo_site.errors import Forbidden, Unavailable
from offline import history, outbox_queue, store, tombstones
from offline.models import (
    CANCELLED,
    STALE,
    Event,
    Message,
    Outbox,
    Pending,
    ScheduledPush,
    StreamMessage,
)
from offline.outbox_queue import Busy
from offline.partitions import hashes_of, partitions_of
from offline.scheduled_ends import end_scheduled
from offline.settlement import record_ends
from offline.values import NewMessage

BATCH = 1000  # pending rows of one transaction
REASON = CANCELLED
RETRACTION_OP = 30  # of the frame, in the protocol

# The receivers of one outbox row: those of this partition, of so many.
Share = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Outcome of a cancellation.

    `message`: the push as a message. `keys`: keys for which it is cancelled, by this call or an
    earlier one. `new_keys`: those of this call. `stopped`: whether this call prevented all
    sends or, if it is not stored for keys, those of some partitions. `erased`: whether it
    was taken out of its room's history, by this call or an earlier one. `retracted`: the partitions
    that fan out the retraction; empty if there is none, or if an earlier call has stored it.
    """

    message: Message
    keys: int
    new_keys: int
    stopped: bool
    erased: bool = False
    retracted: Collection[int] = ()


def cancel(push_id: int, by: str | None = None) -> Cancelled | None:
    """Cancel a push; return None if there is no record of it.

    `by`: the caller, who must have pushed it; None: any.

    Raises:
        Forbidden: another caller has pushed it.
        Unavailable: another process has been fanning the message out for too long.
    """
    if (scheduled := _cancel_scheduled(push_id, by)) is not None:
        return scheduled
    message = history.find(push_id)
    if message is None:
        return None
    _check_caller(message, by)
    stopped = _leave_outbox(message)
    _erase(message)
    count = _settle(message)
    retracted = _retract(message, stopped)
    message.refresh_from_db(fields=["cancelled_at"])
    is_kept = StreamMessage.objects.filter(message_id=message.pk, body=b"").exists()
    erased = is_kept and message.cancelled_at is not None
    return Cancelled(message, _cancelled_keys(message), count, bool(stopped), erased, retracted)


def _mark(message: Message) -> None:
    """Record that the message is cancelled, in the transaction that cancels a part of it."""
    Message.objects.filter(pk=message.pk, cancelled_at=None).update(cancelled_at=Now())


def _erase(message: Message) -> None:
    """Take the message out of its room's history."""
    with transaction.atomic():
        if tombstones.erase([message.pk]):
            _mark(message)


def _retract(message: Message, stopped: Collection[Share]) -> set[int]:
    """Store the retraction of a message, once; return the partitions that fan it out.

    It goes to all who may have been sent the message, also those who have acknowledged it. It has
    a higher id, so it comes behind the message. `stopped`: the shares of its receivers that have
    not been sent the message, and never will. If these are all, no retraction is needed.
    """
    names = _possible_receivers(message)
    new = NewMessage(
        json.dumps({"ids": [str(message.pk)]}, separators=(",", ":")).encode(),
        conf.LIVE_TTL,
        audience=message.audience,
        keys=tuple(names) if message.audience == Message.Audience.KEYS else (),
        room=message.room,
        stored=False,
        op=RETRACTION_OP,
        by=message.by,
        ensure=True,
        hashes=hashes_of(names),
    )
    with transaction.atomic():
        rows = Message.objects.filter(pk=message.pk, retracted_at=None).exclude(op=RETRACTION_OP)
        if not rows.update(retracted_at=Now()):
            return set()
        if all(any(number % of == n for n, of in stopped) for number in new.hashes):
            return set()
        stored = store.insert([new])
    return partitions_of(new.hashes, stored.partitions)


def _possible_receivers(message: Message) -> list[str]:
    """Return the keys that may have been sent the message, or its room; "" is everyone.

    A stale push is sent to nobody.
    """
    if message.drop_reason == STALE:
        return []
    if message.audience != Message.Audience.KEYS:
        return [message.room]
    keys: list[str] = message.keys or []
    if not message.collapse_key:
        return keys
    drops = Event.objects.filter(message=message, kind=Event.Kind.DROPPED, reason=STALE)
    stale = set(drops.values_list("key", flat=True))
    return [key for key in keys if key not in stale]


def _check_caller(push: Message | ScheduledPush, by: str | None) -> None:
    if by is not None and push.by != by:
        raise Forbidden(
            f"Push {push.pk} is another caller's. To cancel it, the API key needs the scope "
            "'admin'."
        )


def _cancel_scheduled(push_id: int, by: str | None) -> Cancelled | None:
    """Turn a scheduled push into a cancelled message; return None if it is not scheduled."""
    rows: Any = ScheduledPush.objects.annotate(now=Now()).filter(pk=push_id)
    with transaction.atomic():
        row = rows.select_for_update().first()
        if row is None:
            return None
        _check_caller(row, by)
        message = end_scheduled(row, REASON)
    return Cancelled(message, message.recipients, message.recipients, stopped=True)


def _leave_outbox(message: Message) -> set[Share]:
    """Delete the outbox rows of a message; return their shares of its receivers.

    The lock of the partition makes sure that no fan-out has read the row and not sent it yet. A
    message that has its offset in a room's history stays: offsets have no gaps.
    """
    left: set[Share] = set()
    rows = Outbox.objects.filter(message=message)
    for partition, partitions in sorted(rows.values_list("partition", "partitions")):
        try:
            with outbox_queue.draining(partition, wait=True), transaction.atomic():
                if StreamMessage.objects.filter(message_id=message.pk).exists():
                    break
                if rows.filter(partition=partition).delete()[0]:
                    left.add((partition, partitions))
                    _mark(message)
        except Busy:
            raise Unavailable("The message is being sent at this moment: try again.") from None
    return left


def _settle(message: Message) -> int:
    """Settle the pending rows of a message that have not expired; return how many."""
    due = Pending.objects.filter(message=message, expires_at__gt=Now()).order_by("pk")
    # All at once, because the order of locking is that of other statements.
    pks = list(due.values_list("pk", flat=True))
    count = 0
    for start in range(0, len(pks), BATCH):
        part = Pending.objects.filter(pk__in=pks[start : start + BATCH]).order_by("pk")
        with transaction.atomic():
            ended = list(part.select_for_update().values_list("pk", "key", "device"))
            Pending.objects.filter(pk__in=[pk for pk, *_ in ended]).delete()
            rows = [(message.pk, key, device) for _, key, device in ended]
            record_ends(rows, Event.Kind.DROPPED, REASON)
            if ended:
                _mark(message)
        count += len(ended)
    return count


def _cancelled_keys(message: Message) -> int:
    ends = Event.objects.filter(message=message, kind=Event.Kind.DROPPED, reason=REASON)
    return ends.count()
