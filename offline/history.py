"""History of a push for each key, for the API, the admin and `explain`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.db.models import Count, Max
from django.db.models.functions import Now

from accounts.callers import caller_name
from offline.models import (
    CANCELLED,
    STEPS,
    DuePush,
    Event,
    Message,
    Outbox,
    Pending,
    Reach,
    ScheduledPush,
)


class Sent(NamedTuple):
    """Number of sessions that a message was sent to, and the time of the last one."""

    sessions: int
    last: datetime

    def __str__(self) -> str:
        return f"sent to {self.sessions} session{'s' if self.sessions > 1 else ''}"


class Notified(NamedTuple):
    """Outcome of a notification to one device, or of closing it there.

    `device`: its number. `provider_id`: the provider's name of what it was sent. `reason`: why the
    provider refused it; "" if it accepted it.
    """

    device: str
    at: datetime
    provider_id: str = ""
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON, without those that are empty."""
        fields = {"device": self.device, "at": self.at, "provider_id": self.provider_id}
        return {name: v for name, v in {**fields, "reason": self.reason}.items() if v}


@dataclass
class Delivery:
    """History of a message for one key.

    `state`: pending, acknowledged, expired, dropped; live if the message is not stored; scheduled
    if it is not due yet.
    `how`: of an acknowledgement, `client`, or `kernel` for a client that cannot acknowledge.
    `devices`: the history for each device, if the message was stored for named devices of the key.
    The state is then `pending` as long as it is that of a device, else that of the device that
    acknowledged it first. `device`: the name, in such a part; "" for clients that give no name.
    """

    key: str
    state: str = "live"
    at: datetime | None = None
    session: str = ""
    how: str = ""
    reason: str = ""
    sent: list[tuple[str, datetime]] = field(default_factory=list)
    notified: list[Notified] = field(default_factory=list)
    closed: list[Notified] = field(default_factory=list)
    device: str = ""
    devices: list["Delivery"] = field(default_factory=list)

    @property
    def unacknowledged(self) -> Sent | None:
        """Sessions that it was sent to while it is pending; None if there are none."""
        if self.state != "pending" or not self.sent:
            return None
        return Sent(len({name for name, _ in self.sent}), max(at for _, at in self.sent))

    @property
    def stored_parts(self) -> list["Delivery"]:
        """The parts of devices that it was stored for, without those that got only a live copy."""
        return [part for part in self.devices if part.state != "live"]

    @property
    def words(self) -> str:
        """State for people, short: how and why included."""
        words = " ".join(filter(None, (self.state, self.how, self.reason)))
        if self.devices:
            parts = self.stored_parts
            done = sum(1 for part in parts if part.state == "acknowledged")
            return f"{words}, {done} of {len(parts)} devices acknowledged"
        return f"{words}, {self.unacknowledged}" if self.unacknowledged else words

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON, without those that are empty."""
        fields: dict[str, Any] = {"key": self.key, "state": self.state, "at": self.at}
        fields |= {n: v for n in ("session", "how", "reason") if (v := getattr(self, n))}
        fields["sent"] = [{"session": name, "at": at} for name, at in self.sent]
        for name in ("notified", "closed"):
            if outcomes := getattr(self, name):
                fields[name] = [outcome.as_dict() for outcome in outcomes]
        if self.devices:
            parts = [(part.device, part.as_dict()) for part in self.devices]
            fields["devices"] = [
                {"device": device, **{n: v for n, v in part.items() if n != "key"}}
                for device, part in parts
            ]
        return fields


def find(message_id: int) -> Message | None:
    """Return a message while its record is kept, else None. `now`: the database's time.

    A push that was scheduled is found by both ids: the message's, and the one that the API
    returned. The body is not loaded.
    """
    rows = Message.objects.defer("body").annotate(now=Now())
    message = rows.filter(pk=message_id).first()
    if message is None and (due := DuePush.objects.filter(pk=message_id).first()):
        message = rows.filter(pk=due.message_id).first()
    return message


def find_scheduled(push_id: int) -> ScheduledPush | None:
    """Return a push that is not due yet, else None. The body is not loaded.

    Search here before `find`: a push may become a message meanwhile, but not the other way round.
    """
    return ScheduledPush.objects.filter(pk=push_id).defer("body").first()


def schedule_of(message: Message) -> DuePush | None:
    """Return the schedule of a message that was a scheduled push, else None."""
    return DuePush.objects.filter(message_id=message.pk).first()


def deliveries(message: Message, keys: Sequence[str]) -> list[Delivery]:
    """Return the history of a message for some of the keys that it was pushed to."""
    return list(_deliveries([message], keys).values())


def _deliveries(
    messages: Sequence[Message], keys: Sequence[str]
) -> dict[tuple[int, str], Delivery]:
    by_id = {message.pk: message for message in messages}
    by_pair = {(pk, key): Delivery(key) for pk in by_id for key in keys}
    for (pk, _), delivery in by_pair.items():
        if reason := _unsent_reason(by_id[pk]):
            delivery.state, delivery.reason = Event.Kind.DROPPED, reason
            ended_at = by_id[pk].cancelled_at or by_id[pk].retracted_at
            delivery.at = ended_at or by_id[pk].created_at  # a stale push ends when it is accepted
    parts: dict[tuple[int, str], dict[str, Delivery]] = {}
    pending = Pending.objects.filter(message__in=list(by_id), key__in=keys)
    for pk, key, device in pending.values_list("message_id", "key", "device"):
        message, delivery = by_id[pk], _part(by_pair[pk, key], parts, pk, device)
        is_over = message.expires_at <= message.now  # type: ignore[attr-defined]
        delivery.state = "expired" if is_over else "pending"
        delivery.at = message.expires_at if is_over else message.created_at
    events = Event.objects.filter(message__in=list(by_id), key__in=keys)
    for event in events.order_by("at", "pk"):
        delivery = by_pair[event.message_id, event.key]
        _add(_part(delivery, parts, event.message_id, event.device), event)
    for pair, named in parts.items():
        _summarize(by_pair[pair], named)
    return by_pair


def _part(
    delivery: Delivery,
    parts: dict[tuple[int, str], dict[str, Delivery]],
    message_id: int,
    device: str,
) -> Delivery:
    """Return the part of a delivery that is a named device's; for "", the delivery itself."""
    if not device:
        return delivery
    named = parts.setdefault((message_id, delivery.key), {})
    return named.setdefault(device, Delivery(delivery.key, device=device))


def _summarize(delivery: Delivery, named: dict[str, Delivery]) -> None:
    """Add the parts of devices to a delivery, and give it the state of the whole."""
    devices = [named[name] for name in sorted(named)]
    if delivery.state != "live" or delivery.sent:
        unnamed = replace(delivery, notified=[])
        devices.insert(0, unnamed)
    delivery.devices = devices
    delivery.sent = sorted(
        (sent for part in devices for sent in part.sent), key=lambda sent: sent[1]
    )
    whole = min(devices, key=_rank)
    delivery.state, delivery.at, delivery.session = whole.state, whole.at, whole.session
    delivery.how, delivery.reason = whole.how, whole.reason


def _rank(delivery: Delivery) -> tuple[int, float]:
    at = delivery.at.timestamp() if delivery.at else math.inf
    return _RANKS.get(delivery.state, len(_RANKS)), at


# A delivery to several devices has the first of these states that a device has.
_RANKS = {"pending": 0, "acknowledged": 1, "expired": 2, "dropped": 3}


def _unsent_reason(message: Message) -> str:
    """Return why a push that is not stored was sent to none of its keys; "" if it may have been.

    It has no events. A cancelled one to several keys may have been sent to some of them.
    """
    if message.stored:
        return ""
    is_cancelled = message.cancelled_at is not None and len(message.keys or []) == 1
    return CANCELLED if is_cancelled else message.drop_reason


def _add(delivery: Delivery, event: Event) -> None:
    kind = event.kind
    if kind in {Event.Kind.SENT, Event.Kind.RECEIVED}:
        delivery.sent.append((event.session, event.at))
    if kind in {Event.Kind.NOTIFIED, Event.Kind.NOTIFY_FAILED, Event.Kind.NOTIFY_CLOSED}:
        outcome = Notified(event.session, event.at, event.provider_id, event.reason)
        is_closed = kind == Event.Kind.NOTIFY_CLOSED
        (delivery.closed if is_closed else delivery.notified).append(outcome)
    if kind in STEPS:
        return
    delivery.at, delivery.session, delivery.reason = event.at, event.session, event.reason
    delivery.state = kind
    if kind in {Event.Kind.RECEIVED, Event.Kind.ACKNOWLEDGED}:
        delivery.state = "acknowledged"
        delivery.how = "kernel" if kind == Event.Kind.RECEIVED else "client"


def totals(message: Message) -> dict[str, int]:
    """Return the number of keys, or of devices of them, of a stored message in each state."""
    counts = {"acknowledged": 0, "pending": 0, "expired": 0, "dropped": 0}
    is_over = message.expires_at <= message.now  # type: ignore[attr-defined]
    counts["expired" if is_over else "pending"] += Pending.objects.filter(message=message).count()
    ends = Event.objects.filter(message=message).exclude(kind__in=STEPS)
    for kind, count in ends.values_list("kind").annotate(Count("pk")):
        is_read = kind in {Event.Kind.RECEIVED, Event.Kind.ACKNOWLEDGED}
        counts["acknowledged" if is_read else kind] += count
    return counts


def fan_out(message: Message) -> dict[str, Any]:
    """Return the state of the fan-out, `done`, `waiting` or `parked`, with partitions and error."""
    rows = list(Outbox.objects.filter(message=message).order_by("partition"))
    if not rows:
        return {"state": "done"}
    partitions = [row.partition for row in rows]
    parked = [row for row in rows if row.parked_at is not None]
    state: dict[str, Any] = {"state": "parked" if parked else "waiting", "partitions": partitions}
    if error := next((row.error for row in rows if row.error), ""):
        state["error"] = error
    return state


def reach_of(message: Message) -> dict[str, int]:
    """Return the numbers of sessions and nodes that a push to a room or to all was written to.

    Nodes report them within a second or two.
    """
    row = Reach.objects.filter(pk=message.pk).first()
    return {"sessions": row.sessions, "nodes": row.nodes} if row else {"sessions": 0, "nodes": 0}


def sent_pending(key: str, message_ids: Sequence[int]) -> dict[int, Sent]:
    """Return, by message id, the sessions of a key that were sent each of these messages."""
    rows = Event.objects.filter(key=key, message__in=message_ids, kind=Event.Kind.SENT)
    counts = rows.values("message_id").annotate(
        sessions=Count("session", distinct=True), last=Max("at")
    )
    return {row["message_id"]: Sent(row["sessions"], row["last"]) for row in counts.order_by()}


def unacknowledged_count(key: str) -> int:
    """Return how many pending messages of a key were sent to a session of it."""
    pending = Pending.objects.unexpired(key).values("message")
    sent = Event.objects.filter(key=key, message__in=pending, kind=Event.Kind.SENT)
    return sent.values("message_id").distinct().count()


def as_dict(message: Message, window: slice) -> dict[str, Any]:
    """Return the history for JSON, with one page of the keys in the order of the push."""
    keys: list[str] = message.keys or []
    record: dict[str, Any] = {
        "id": str(message.pk),
        "target": message.audience,
        "by": message.by,
        "by_name": caller_name(message.by),
        "op": message.op,
        "stored": message.stored,
        "created_at": message.created_at,
        "expires_at": message.expires_at,
        "fan_out": fan_out(message),
    }
    if due := schedule_of(message):
        record |= {"scheduled_id": str(due.pk), "send_at": due.due_at}
    if message.exclude:
        record["exclude"] = message.exclude.split(",")
    record |= _collapse(message)
    if message.drop_reason:
        record["dropped"] = message.drop_reason
    if message.cancelled_at:
        record["cancelled_at"] = message.cancelled_at
    if message.audience == Message.Audience.ROOM:
        record["room"] = message.room
    if message.sender:
        record["from"] = message.sender
    if message.audience != Message.Audience.KEYS:
        record["written"] = reach_of(message)
    if message.audience == Message.Audience.KEYS:
        # The totals are queried first, so that the rows are at least as new.
        record["totals"] = totals(message) if message.stored else {}
        rows = [delivery.as_dict() for delivery in deliveries(message, keys[window])]
        record |= {"count": len(keys), "results": rows}
    return record


def _collapse(push: Message | ScheduledPush) -> dict[str, Any]:
    """Return the collapse key and the version for JSON, without those that are missing."""
    collapse: dict[str, Any] = {"collapse_key": push.collapse_key} if push.collapse_key else {}
    return collapse if push.version is None else {**collapse, "version": push.version}


def scheduled_as_dict(push: ScheduledPush, window: slice) -> dict[str, Any]:
    """Return the state of a push that is not due yet, in the form of `as_dict`."""
    record: dict[str, Any] = {
        "id": str(push.pk),
        "target": push.audience,
        "by": push.by,
        "by_name": caller_name(push.by),
        "op": push.op,
        "stored": push.stored,
        "created_at": push.created_at,
        "expires_at": push.due_at + timedelta(seconds=push.ttl),
        "fan_out": {"state": "scheduled"},
        "send_at": push.due_at,
    }
    record |= _collapse(push)
    if push.exclude:
        record["exclude"] = push.exclude.split(",")
    if push.audience == Message.Audience.ROOM:
        record["room"] = push.room
    if push.audience == Message.Audience.KEYS:
        keys: list[str] = push.keys or []
        rows = [Delivery(key, "scheduled", push.created_at).as_dict() for key in keys[window]]
        record |= {"totals": {}, "count": len(keys), "results": rows}
    return record


def latest_of(key: str, limit: int) -> list[tuple[Message, Delivery]]:
    """Return the last messages that have a history for a key, each with that history."""
    pending = Pending.objects.filter(key=key).order_by("-message_id")
    events = Event.objects.filter(key=key).order_by("-message_id")
    ids: set[int] = set(pending.values_list("message_id", flat=True).distinct()[:limit])
    ids |= set(events.values_list("message_id", flat=True).distinct()[:limit])
    rows = Message.objects.filter(pk__in=ids).defer("body").annotate(now=Now())
    messages = list(rows.order_by("-pk")[:limit])
    return list(zip(messages, _deliveries(messages, [key]).values(), strict=True))
