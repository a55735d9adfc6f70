"""Online and offline events: from a change of keys to webhooks and signals, in its transaction."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
from django.db import transaction
from django.dispatch import Signal

from push.online.tables import OnlineState
from push.session.session_records import SessionEvent
from push.signals import key_offline, key_online
from push.webhooks import outbox
from push.webhooks.endpoints import EventType, endpoints, room_of
from push.webhooks.outbox import KeyData

logger = logging.getLogger(__name__)

TIME_FORMAT = "%Y-%m-%d %H:%M:%S.%f"
OF_ROOMS = {
    EventType.KEY_ONLINE: EventType.ROOM_OCCUPIED,
    EventType.KEY_OFFLINE: EventType.ROOM_VACATED,
}
NODE_LOST = "the node of its last session was lost"

Members = dict[str, Any]


@dataclass(frozen=True, slots=True)
class KeyEvent:
    """One event of a key. `facts`: of the session, for people and receivers."""

    key: str
    number: int
    at: datetime
    facts: Members


def facts_of(event: SessionEvent) -> Members:
    """Return the opening or the end of a session as a dictionary, without what is not known."""
    facts: Members = msgspec.to_builtins(event)
    return {name: value for name, value in facts.items() if name != "at" and value != ""}


def with_facts(
    changed: Iterable[tuple[str, int, float]], facts: Mapping[str, SessionEvent]
) -> list[KeyEvent]:
    """Return an event for each (key, number, Unix time), in order of key.

    `facts`: the session of each key; keys may be missing.
    """
    return [
        KeyEvent(
            key,
            number,
            datetime.fromtimestamp(at, tz=UTC),
            facts_of(facts[key]) if key in facts else {},
        )
        for key, number, at in sorted(changed)
    ]


def publish(
    kind: EventType,
    changed: Iterable[tuple[str, int, float]],
    sessions: Mapping[str, SessionEvent],
) -> None:
    """Store events for webhooks, and send their signals, in the caller's transaction.

    The states of the keys are locked, so the events of each key are stored and sent in order.

    `changed`: key, number and Unix time of each event. `sessions`: the sessions that caused them.
    """
    signal = key_online if kind is EventType.KEY_ONLINE else key_offline
    if not signal.has_listeners() and not _is_wanted(kind):
        return
    events = with_facts(changed, sessions)
    store_for_webhooks(kind, events)
    if signal.has_listeners():
        for event in events:
            if room_of(event.key) is None:
                _send(signal, event)


def _is_wanted(kind: EventType) -> bool:
    kinds = {kind, OF_ROOMS[kind]}
    return any(not kinds.isdisjoint(endpoint.events) for endpoint in endpoints())


def store_for_webhooks(kind: EventType, events: list[KeyEvent]) -> None:
    """Store events for webhooks, and mark the keys of those that the outbox has no room for.

    Those of marked rooms are stored as the events of rooms.
    """
    of_keys: list[KeyData] = []
    of_rooms: list[KeyData] = []
    for event in events:
        rows = of_keys if room_of(event.key) is None else of_rooms
        rows.append(KeyData(event.key, _data(event), f"{event.at:{TIME_FORMAT}}"))
    dropped = outbox.insert_alike(kind, of_keys) + outbox.insert_alike(OF_ROOMS[kind], of_rooms)
    if dropped:
        OnlineState.objects.filter(key__in=dropped).update(is_unreported=True)


def _data(event: KeyEvent) -> str:
    members: Members = {"key": event.key, "number": event.number, **event.facts}
    if (room := room_of(event.key)) is not None:
        members = {"room": room, "number": event.number}
    return msgspec.json.encode(members).decode()


def _send(signal: Signal, event: KeyEvent) -> None:
    try:
        with transaction.atomic():
            signal.send(
                sender=None, key=event.key, number=event.number, at=event.at, facts=event.facts
            )
    except Exception:
        logger.exception("a receiver of key_online or key_offline failed; the event goes on")
