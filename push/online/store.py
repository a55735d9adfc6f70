"""Changes of online keys in the database: each is a transaction with the events that it causes.

A transaction first finds the node's lease, then locks the states of its keys in order. So two
changes of a key happen one after the other, and a key has as many events as its state has changes.
Every change may be repeated: the second time it changes nothing and causes no event.
"""

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import msgspec
from django.db import connection, transaction
from django.db.models import F
from django.db.models.functions import Now

from imgo_site.conf import conf
from imgo_site.postgres.limits import limit_idle
from offline import streams
from push.metrics import definitions as metrics
from push.online import statements
from push.online.events import (
    NODE_LOST,
    publish,
    store_for_webhooks,
    with_facts,
)
from push.online.tables import OnlineKey, OnlineNode, OnlineState
from push.session.session_records import SessionEvent, SessionRecord
from push.webhooks import outbox
from push.webhooks.endpoints import EventType, endpoints, room_of

BATCH = 1_000  # keys of one transaction
RESEND_BATCH = 500  # events of one transaction

Changed = list[tuple[str, int, float]]  # (key, number, Unix time)


class LeaseLost(Exception):
    """The node must take another lease, and insert its keys again."""


class Lease(NamedTuple):
    """A lease as a node reads it. For the fields see `OnlineNode`."""

    id: str
    beat: int
    is_stopped: bool
    is_ended: bool


# Leases


def acquire(name: str) -> str:
    """Insert a lease of the node of this name; return its id."""
    lease_id = secrets.token_hex(16)
    _execute(_statements().acquire, [lease_id, name])
    return lease_id


def beat(lease_id: str) -> None:
    """Renew a lease. Raises `LeaseLost`."""
    if not _execute(_statements().beat, [lease_id]):
        raise LeaseLost


def stop(lease_id: str) -> None:
    """Leave a lease in order: its keys stay for `PRESENCE_GRACE`."""
    OnlineNode.objects.filter(pk=lease_id).update(is_stopped=True, beat=F("beat") + 1)


def end(lease_ids: Iterable[str]) -> None:
    """End leases of which nothing is needed any more: their keys are inserted elsewhere."""
    OnlineNode.objects.filter(pk__in=list(lease_ids)).update(is_ended=True)


def leases() -> list[Lease]:
    """Return all leases."""
    rows = OnlineNode.objects.values_list("id", "beat", "is_stopped", "is_ended").order_by("pk")
    return [Lease(*row) for row in rows]


def condemn(lease: Lease) -> bool:
    """End a lease, unless its node has renewed it since it was read; return whether it was ended.

    A node that is just writing under it is awaited by `reap`.
    """
    lease_row = OnlineNode.objects.filter(pk=lease.id, beat=lease.beat, is_ended=False)
    return lease_row.update(is_ended=True) == 1


# Changes of keys


def add(lease_id: str, events: Mapping[str, SessionEvent]) -> None:
    """Insert keys of a node, at most `BATCH`. Raises `LeaseLost`.

    `events`: the opening of a session by key.
    """
    with _transaction():
        _find_lease(lease_id)
        changed: Changed = _execute(_statements().go_online, [_rows(events)])
        _execute(_statements().insert, [lease_id, _names(events)])
        publish(EventType.KEY_ONLINE, changed, events)
    _count(changed, "online", "occupied")


def remove(lease_id: str, events: Mapping[str, SessionEvent]) -> None:
    """Delete keys of a node, at most `BATCH`. Raises `LeaseLost`.

    `events`: the end of the last session by key.
    """
    with _transaction():
        _find_lease(lease_id)
        changed = _remove(lease_id, events)
        publish(EventType.KEY_OFFLINE, changed, events)
    _count(changed, "offline", "vacated")


def reap(lease_id: str) -> int:
    """Delete keys of a lease that has ended, at most `BATCH`; after the last ones, the lease.

    Return how many keys were deleted; 0 also if its node or another reaper is at work there.
    """
    with _transaction():
        lease = _execute(_statements().reaped_lease, [lease_id])
        if not lease:
            return 0
        held = OnlineKey.objects.filter(node=lease_id).order_by("key")
        keys = list(held.values_list("key", flat=True)[:BATCH])
        if not keys:
            OnlineNode.objects.filter(pk=lease_id).delete()
            return 0
        name, is_stopped = lease[0]
        events = _last_events(keys, name, has_recorded_ends=bool(is_stopped))
        changed = _remove(lease_id, events)
        publish(EventType.KEY_OFFLINE, changed, events)
    _count(changed, "offline", "vacated")
    return len(keys)


def _count(changed: Changed, of_keys: str, of_rooms: str) -> None:
    rooms = sum(room_of(name) is not None for name, _, _ in changed)
    metrics.KEY_EVENTS.labels(of_keys).inc(len(changed) - rooms)
    metrics.KEY_EVENTS.labels(of_rooms).inc(rooms)


def _remove(lease_id: str, events: Mapping[str, SessionEvent]) -> Changed:
    names = _names(events)
    if _statements().lock:
        _execute(_statements().lock, [names])
    _execute(_statements().delete, [lease_id, names])
    return _execute(_statements().go_offline, [_rows(events)])


def _last_events(keys: list[str], node: str, *, has_recorded_ends: bool) -> dict[str, SessionEvent]:
    """Return the last end of a session of each key; without one, that it was lost just now.

    `node`: the name of the node whose keys these are.
    `has_recorded_ends`: the node was stopped in order, so it has recorded the end of each session.
    The last end of a key whose node was lost is that of a session which ended before.
    """
    states = OnlineState.objects.filter(key__in=keys).annotate(now=Now())
    records = SessionRecord.objects.filter(pk__in=keys).values_list("key", "opened", "closed")
    times = {key: (opened, closed) for key, opened, closed in records}
    last = {}
    for state in states:
        opened, closed = (
            msgspec.convert(event, SessionEvent) if event else None
            for event in times.get(state.key, (None, None))
        )
        is_last = closed and closed.time >= state.at and (not opened or closed.at >= opened.at)
        if closed and is_last and has_recorded_ends:
            last[state.key] = closed
        else:
            last[state.key] = _loss(node, opened, closed, state.now.timestamp())
    return last


def _loss(
    node: str, opened: SessionEvent | None, closed: SessionEvent | None, at: float
) -> SessionEvent:
    """Return the loss of a session with its node.

    `opened`, `closed`: the last opening and the last end of a session of its key. What is known of
    the session is its opening, if that was the last one. `at`: Unix time, seconds.
    """
    has_ended = opened and closed and closed.session == opened.session
    if opened and opened.node == node and not has_ended:
        return msgspec.structs.replace(opened, at=at, reason=NODE_LOST)
    return SessionEvent(at, node, "", "", reason=NODE_LOST)


# Events that the webhook outbox had no room for


def resend() -> int:
    """Store the last event of keys once more whose events were dropped; return how many keys.

    So a receiver learns whether a key is online, after it has missed some changes.
    """
    unreported = OnlineState.objects.filter(is_unreported=True).order_by("key")
    if not unreported.exists():
        return 0
    room = (conf.WEBHOOKS_MAX - outbox.backlog()) // max(1, len(endpoints()))
    if room <= 0:
        return 0
    with _transaction():
        if connection.features.has_select_for_update_skip_locked:
            unreported = unreported.select_for_update(skip_locked=True)
        states = list(unreported[: min(room, RESEND_BATCH)])
        keys = [state.key for state in states]
        OnlineState.objects.filter(key__in=keys).update(is_unreported=False)
        for kind in (EventType.KEY_ONLINE, EventType.KEY_OFFLINE):
            is_online = kind is EventType.KEY_ONLINE
            last = [(s.key, s.number, s.at.timestamp()) for s in states if s.is_online is is_online]
            store_for_webhooks(kind, with_facts(last, {}))
    return len(states)


# Parts


@contextmanager
def _transaction() -> Iterator[None]:
    """A transaction that Postgres ends by itself if this process hangs in it."""
    with transaction.atomic():
        limit_idle()
        yield


@cache
def _of_vendor(vendor: str) -> statements.Statements:
    make = statements.postgres if vendor == "postgresql" else statements.sqlite
    return make(streams.cluster_identity())


def _statements() -> statements.Statements:
    return _of_vendor(connection.vendor)


def _find_lease(lease_id: str) -> None:
    if not _execute(_statements().lease, [lease_id]):
        raise LeaseLost


def _execute(statement: str, parameters: Sequence[Any]) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchall() if cursor.description else []


def _names(events: Mapping[str, SessionEvent]) -> Any:
    """Return the keys as a parameter, in the order of their bytes in UTF-8."""
    names = sorted(events)
    return names if connection.vendor == "postgresql" else msgspec.json.encode(names).decode()


def _rows(events: Mapping[str, SessionEvent]) -> str:
    """Return the keys with the times of their events as a parameter, in the same order."""
    rows = [{"name": key, "moment": events[key].at} for key in sorted(events)]
    return msgspec.json.encode(rows).decode()
