"""Replacement: a newer push with the same collapse key ends an older one of the key or room.

A row of `CollapseKey` has the last push and its version for each (key or room, collapse key). All
who change rows lock them first, in one order, so two processes that accept at once cannot deadlock,
and exactly one push is the last.

1. Acceptance stores the new pushes like others. In the same transaction it then locks their rows,
   settles the older pushes as `dropped: replaced`, and a new one with a lower version as
   `dropped: stale`. So replacement counts when a push is accepted, also if it is due later.
2. A scheduled push that is due becomes a message. The message takes the place of the push in its
   rows. For keys whose row names another push it is `dropped: replaced`.
3. A drain does not send messages that a row does not name any more. A drain that has read a message
   already may still send it: the record then has `sent` beside `dropped`.

Pushes without a collapse key execute no further statement.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from django.db import connection
from django.db.models.functions import Now
from django.utils import timezone

from imgo_site.conf import conf
from imgo_site.room_policies import policy_of
from offline import tombstones
from offline.models import (
    REPLACED,
    STALE,
    CollapseKey,
    DuePush,
    Event,
    Message,
    Outbox,
    Pending,
    ScheduledPush,
)
from offline.scheduled_ends import end_scheduled
from offline.settlement import record_ends
from offline.sql import CHUNK, chunks, dialect
from offline.values import NewMessage, OutboxMessage, OutboxRow, Stored

KEY, ROOM = "k", "r"  # first characters of a target

Slot = tuple[str, str]  # a target, and a collapse key


class _End(NamedTuple):
    """End of one push for one target."""

    push_id: int
    target: str
    reason: str


def targets_of(push: NewMessage | Message | ScheduledPush | OutboxMessage) -> list[str]:
    """Return the targets of a push with a collapse key: its keys, or its room."""
    if push.audience == Message.Audience.KEYS:
        return [KEY + key for key in push.keys or ()]
    return [ROOM + push.room]


def apply(messages: Sequence[NewMessage], stored: Stored) -> Counter[str]:
    """End the pushes that new ones replace, and new ones that are stale; return counts by reason.

    Call it in the transaction that stored `messages`. Within one call the last push wins.
    """
    rows = zip(messages, stored.ids, stored.is_new, strict=True)
    new = [(message, i) for message, i, is_new in rows if is_new and message.collapse_key]
    if not new:
        return Counter()
    keep: dict[Slot, float] = {}
    for message, _ in new:
        for target in targets_of(message):
            slot = (target, message.collapse_key)
            keep[slot] = max(keep.get(slot, 0.0), _seconds_kept(message))
    slots = _lock(keep)
    ends: list[_End] = []
    for message, push_id in new:
        for target in targets_of(message):
            last = slots[target, message.collapse_key]
            if _is_stale(message.version, last.version):
                ends.append(_End(push_id, target, STALE))
                continue
            if last.push_id:
                ends.append(_End(last.push_id, target, REPLACED))
            last.push_id = push_id
            last.version = last.version if message.version is None else message.version
    CollapseKey.objects.bulk_update(slots.values(), ["push_id", "version"], batch_size=CHUNK)
    return _end(ends)


def apply_due(pushes: Sequence[tuple[Any, NewMessage, int]]) -> Counter[str]:
    """Let rows name the messages that scheduled pushes became; return counts by reason.

    `pushes`: (the row of the schedule, the message, its id). Call it in the transaction that stored
    the messages.
    """
    ours = [push for push in pushes if push[1].collapse_key]
    if not ours:
        return Counter()
    keep = {
        (target, new.collapse_key): _seconds_kept(new)
        for _, new, _ in ours
        for target in targets_of(new)
    }
    slots = _lock(keep)
    accepted = _accepted_ids({last.push_id for last in slots.values()})
    ends: list[_End] = []
    for row, new, message_id in ours:
        for target in targets_of(new):
            last = slots[target, new.collapse_key]
            if last.push_id in (0, row.pk):
                last.push_id = message_id
                accepted[message_id] = row.pk
            else:
                # A push that was accepted before has stayed the last one: ours was stale for it.
                is_stale = accepted.get(last.push_id, last.push_id) < row.pk
                ends.append(_End(message_id, target, STALE if is_stale else REPLACED))
    CollapseKey.objects.bulk_update(slots.values(), ["push_id"], batch_size=CHUNK)
    return _end(ends)


def _accepted_ids(message_ids: Collection[int]) -> dict[int, int]:
    """Return message id → the id that the API returned, for messages that were scheduled pushes."""
    due: dict[int, int] = {}
    for chunk in chunks(sorted(message_ids)):
        rows = DuePush.objects.filter(message_id__in=chunk)
        due.update(rows.values_list("message_id", "pk"))
    return due


def _is_stale(version: int | None, last: int | None) -> bool:
    return version is not None and last is not None and version < last


def _seconds_kept(new: NewMessage) -> float:
    """Return for how long a row is kept, seconds: as long as its push can be replaced, at least."""
    if new.send_at is not None:
        wait = max(0.0, (new.send_at - timezone.now()).total_seconds())
    else:
        wait = new.send_in or 0.0
    kept = policy_of(new.room).history_ttl if new.room and new.stored else new.ttl
    return wait + max(kept, conf.RECORD_KEEP)


def _lock(keep: dict[Slot, float]) -> dict[Slot, CollapseKey]:
    """Lock the rows of these slots in one order, and create missing ones with the push id 0.

    `keep`: slot → seconds for which the row is kept from now, at least.
    """
    newest: dict[Slot, CollapseKey] = {}
    for chunk in chunks(sorted(keep)):
        times = [dialect().time_before(-keep[slot]) for slot in chunk]
        rows = ", ".join(f"(%s, %s, 0, {time})" for time in times)
        with connection.cursor() as cursor:
            cursor.execute(_LOCK.format(rows=rows), [name for slot in chunk for name in slot])
            for pk, target, name, push_id, version in cursor.fetchall():
                newest[target, name] = CollapseKey(
                    pk=pk, target=target, name=name, push_id=push_id, version=version
                )
    return newest


_LOCK = """
    INSERT INTO offline_collapsekey AS c (target, name, push_id, keep_until) VALUES {rows}
    ON CONFLICT (target, name) DO UPDATE SET keep_until =
        CASE WHEN c.keep_until > excluded.keep_until THEN c.keep_until ELSE excluded.keep_until END
    RETURNING id, target, name, push_id, version
"""


# Ends


def _end(ends: Sequence[_End]) -> Counter[str]:
    """Settle the open deliveries of these pushes to their targets; return counts by reason.

    The rows of `CollapseKey` must be saved. A delivery to a key counts, or a push to a room.
    """
    counts: Counter[str] = Counter()
    for reason in (REPLACED, STALE):
        of_reason = [end for end in ends if end.reason == reason]
        if not of_reason:
            continue
        counts[reason] += _end_scheduled(of_reason, reason)
        pairs = [(i, to[1:]) for i, to, _ in of_reason if to[0] == KEY]
        counts[reason] += _settle(pairs, reason)
        if reason == STALE:
            counts[reason] += _mark_live(pairs)
        counts[reason] += _end_in_room([i for i, to, _ in of_reason if to[0] == ROOM], reason)
    return +counts


def _end_scheduled(ends: Sequence[_End], reason: str) -> int:
    """End scheduled pushes that no row names any more; return how many deliveries that are.

    Locked rows are skipped: another transaction stores them as messages, or cancels them. The
    message is then replaced by `apply_due`, which reads the rows of `CollapseKey`.
    """
    count = 0
    for chunk in chunks(sorted({end.push_id for end in ends})):
        rows: Any = ScheduledPush.objects.annotate(now=Now()).filter(pk__in=chunk)
        for row in rows.select_for_update(skip_locked=True):
            if not _is_named(row):
                count += max(1, end_scheduled(row, reason).recipients)
    return count


def _is_named(row: ScheduledPush) -> bool:
    """Return whether a scheduled push is the last one for any of its targets."""
    last = CollapseKey.objects.filter(name=row.collapse_key, push_id=row.pk)
    return any(last.filter(target__in=part).exists() for part in chunks(targets_of(row)))


def _settle(pairs: Sequence[tuple[int, str]], reason: str) -> int:
    """Settle the unexpired pending rows of these (message id, key); return how many."""
    pair_set = set(pairs)
    pks: list[int] = []
    for chunk in chunks(sorted(pair_set)):
        rows = Pending.objects.filter(
            message_id__in={i for i, _ in chunk}, key__in={key for _, key in chunk}
        )
        for pk, *pair in rows.filter(expires_at__gt=Now()).values_list("pk", "message_id", "key"):
            if tuple(pair) in pair_set:
                pks.append(pk)
    count = 0
    # In the order in which other statements lock them.
    for part in chunks(sorted(set(pks))):
        rows = Pending.objects.filter(pk__in=part).order_by("pk").select_for_update()
        ended = list(rows.values_list("pk", "message_id", "key", "device"))
        Pending.objects.filter(pk__in=[pk for pk, *_ in ended]).delete()
        record_ends([row for _, *row in ended], Event.Kind.DROPPED, reason)
        count += len(ended)
    return count


def _mark_live(pairs: Sequence[tuple[int, str]]) -> int:
    """Record that messages which are not stored are stale; return for how many keys.

    Such a message has no row for each key. If it is stale for only some of its keys, nothing is
    recorded.
    """
    keys = Counter(i for i, _ in pairs)
    rows = Message.objects.filter(pk__in=list(keys), stored=False, audience=Message.Audience.KEYS)
    ended = [pk for pk, names in rows.values_list("pk", "keys") if len(names or ()) == keys[pk]]
    if ended:
        Message.objects.filter(pk__in=ended).update(drop_reason=STALE)
    return sum(keys[pk] for pk in ended)


def _end_in_room(message_ids: Sequence[int], reason: str) -> int:
    """End messages to rooms that wait for their fan-out or that a stream keeps; return how many.

    A room's message that was sent, and that no stream keeps, has ended before.
    """
    if not message_ids:
        return 0
    waiting: set[int] = set()
    for chunk in chunks(sorted(set(message_ids))):
        waiting.update(
            Outbox.objects.filter(message_id__in=chunk).values_list("message_id", flat=True)
        )
    kept = tombstones.kept_among(message_ids)
    tombstones.erase(kept)
    ended = sorted(waiting | kept)
    for chunk in chunks(ended):
        Message.objects.filter(pk__in=chunk).update(drop_reason=reason)
    return len(ended)


# For drains


def mark_replaced(rows: Sequence[OutboxRow]) -> None:
    """Set `replaced_for` of rows whose messages are not the last ones for some of their targets."""
    ours = [row for row in rows if row.message.collapse_key]
    if not ours:
        return
    last = _last_of([row.message for row in ours])
    for row in ours:
        row.replaced_for = _replaced(row.message, last)


class Placeable(NamedTuple):
    """Messages to rooms that wait for their offsets.

    `current`: they were not replaced, and no push that replaces one can be accepted before the
    transaction ends. `deferred`: a transaction of another process is replacing them.
    """

    current: list[OutboxMessage]
    deferred: list[OutboxMessage]


def lock_current(messages: Sequence[OutboxMessage]) -> Placeable:
    """Return which of these messages can get an offset. It waits for no other transaction.

    Those that were replaced are in neither list. A message that got its offset while a push that
    replaces it is being accepted would stay in the history: that push could not see the offset.
    """
    ours = [message for message in messages if message.collapse_key]
    if not ours:
        return Placeable(list(messages), [])
    last = _last_of(ours)
    locked = _last_of(ours, lock=True)
    placeable = Placeable([], [])
    for message in messages:
        slot = (ROOM + message.room, message.collapse_key)
        if message.collapse_key and slot in last and slot not in locked:
            placeable.deferred.append(message)
        elif not message.collapse_key or not _replaced(message, locked):
            placeable.current.append(message)
    return placeable


def _replaced(message: OutboxMessage, last: dict[Slot, int]) -> frozenset[str]:
    """Return the keys, or the room, for which another push is the last one."""
    return frozenset(
        target[1:]
        for target in targets_of(message)
        if last.get((target, message.collapse_key), message.pk) not in (0, message.pk)
    )


def _last_of(messages: Iterable[OutboxMessage], *, lock: bool = False) -> dict[Slot, int]:
    """Return the id of the last push of each slot of these messages."""
    slots = sorted(
        {(to, message.collapse_key) for message in messages for to in targets_of(message)}
    )
    last_ids: dict[Slot, int] = {}
    for chunk in chunks(slots):
        rows = CollapseKey.objects.filter(
            target__in={target for target, _ in chunk}, name__in={name for _, name in chunk}
        )
        if lock:
            rows = rows.select_for_update(skip_locked=True)
        for target, name, push_id in rows.values_list("target", "name", "push_id"):
            last_ids[target, name] = push_id
    return last_ids


# Retention

PRUNE_BATCH = 1_000  # rows of one DELETE


def prune_batch() -> int:
    """Delete one batch of rows that are kept no longer; return how many."""
    due = CollapseKey.objects.filter(keep_until__lte=Now()).order_by("keep_until")
    pks = list(due.values_list("pk", flat=True)[:PRUNE_BATCH])
    # The condition again: a push may have been accepted meanwhile.
    return CollapseKey.objects.filter(pk__in=pks, keep_until__lte=Now()).delete()[0]
