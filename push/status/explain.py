"""Explanation why a key did not get a message, from the records, the registry and the workers."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import quote

from django.utils import timezone

from accounts.callers import caller_name
from accounts.models import Token
from imgo_site.conf import conf
from imgo_site.deployment import redis_url
from imgo_site.errors import Unavailable
from offline import history
from offline.history import Delivery
from offline.models import Message, Pending
from push.models import SessionRecord
from push.registry.base import Entry
from push.registry.select import get_registry
from push.session.session_records import SessionEvent
from push.status import vitals
from push.webhooks import backlogs as webhook_backlogs


def of_message(key: str, message_id: int) -> list[str]:
    """Return sentences about one message's delivery to a key, and about its hindrances at last."""
    message = history.find(message_id)
    if message is None:
        return [
            f"There is no record of message {message_id}: it was never accepted, or longer ago "
            f"than records are kept (RECORD_KEEP, {conf.RECORD_KEEP} s)."
        ]
    return [_acceptance(message), *_body(key, message)]


def _acceptance(message: Message) -> str:
    target = {
        Message.Audience.KEYS: f"{len(message.keys or [])} key(s)",
        Message.Audience.ROOM: f"the room {message.room!r}",
        Message.Audience.ALL: "everyone",
    }[Message.Audience(message.audience)]
    by = f" by {caller_name(message.by)}" if message.by else ""
    return f"Message {message.pk} was accepted{by} for {target} at {_time(message.created_at)}."


def _body(key: str, message: Message) -> Iterator[str]:
    if message.audience != Message.Audience.KEYS:
        yield "Such messages go to who is connected at that moment, and are not recorded by key."
        reach = history.reach_of(message)
        yield f"It was written to {reach['sessions']} session(s) of {reach['nodes']} node(s)."
        yield from _hindrances(message)
        return
    if key not in (message.keys or []):
        yield f"It was not pushed to {key!r}."
        return
    (delivery,) = history.deliveries(message, [key])
    yield from _sent(delivery)
    yield _end(delivery, message)
    if conf.WEBHOOKS:
        yield from webhook_backlogs.events_of(key, message.pk)
    if delivery.state in {"pending", "live"}:
        yield from _hindrances(message)
        yield from _presence(key, delivery)


def _sent(delivery: Delivery) -> Iterator[str]:
    for session, at in delivery.sent:
        yield f"It was sent to session {session} at {_time(at)}."


def _end(delivery: Delivery, message: Message) -> str:
    at = _time(delivery.at) if delivery.at else ""
    sentences = {
        "acknowledged client": f"The client of session {delivery.session} acknowledged it at {at}.",
        "acknowledged kernel": (
            f"Session {delivery.session} cannot acknowledge; the kernel had taken all of it at "
            f"{at}, which counts as delivered."
        ),
        "expired": f"It expired at {at}, before a session of the key had it.",
        "dropped offline_max": (
            f"It was dropped at {at}: the key had more than OFFLINE_MAX ({conf.OFFLINE_MAX}) "
            "pending messages, and the oldest go first."
        ),
        "live": "It was not to be stored: only sessions that were connected then could get it.",
        "pending": _pending(delivery, message),
    }
    state = f"{delivery.state} {delivery.how}{delivery.reason}".strip()
    return sentences.get(state, f"It was {state} at {at}.")


def _pending(delivery: Delivery, message: Message) -> str:
    expires = f"it expires at {_time(message.expires_at)}"
    if (sent := delivery.unacknowledged) is None:
        return f"It is pending, sent to no session yet; {expires}."
    return f"It is pending: {sent}, last at {_time(sent.last)}, and not acknowledged; {expires}."


def _hindrances(message: Message) -> Iterator[str]:
    """Yield sentences about hindrances between the outbox and the nodes."""
    way = history.fan_out(message)
    if way["state"] == "parked":
        yield f"Its fan-out failed again and again and is parked: {way['error']}"
    elif way["state"] == "waiting":
        yield f"It has not been fanned out yet (partitions {way['partitions']})."
        deaf = [n for n in vitals.deaf_workers() if n in way["partitions"]]
        if deaf:
            yield (
                f"No worker takes tasks for partition {deaf[0]}; a node sends what is overdue "
                f"after SWEEP_AFTER ({conf.SWEEP_AFTER:g} s)."
            )


def _connected(key: str) -> tuple[list[Entry], str]:
    """Return a key's sessions, and the reason why they are not known, "" if they are."""
    registry = get_registry()
    try:
        if not redis_url() and not registry.nodes():
            return [], (
                "without REDIS_URL only the server's own process knows: "
                f"GET /api/v1/keys/{quote(key, safe='')}"
            )
        return registry.sessions(key), ""
    except Unavailable as error:
        return [], error.message


def _presence(key: str, delivery: Delivery) -> Iterator[str]:
    sessions, unknown = _connected(key)
    if unknown:
        yield f"Whether the key is connected is not known here; {unknown}"
    elif not sessions:
        yield "No session of the key is connected now; the next that connects gets it."
        yield from session_events(key)
        yield from _token(key)
    sent_to = {name for name, _ in delivery.sent}
    for entry in sessions:
        state = "was sent it and has not acknowledged it" if entry.id in sent_to else "is connected"
        yield f"{_session(entry)} {state}."


def _session(entry: Entry) -> str:
    since = datetime.fromtimestamp(entry.since, tz=timezone.get_current_timezone())
    return (
        f"Session {entry.id} ({entry.transport} from {entry.address} on node {entry.node}, "
        f"since {_time(since)})"
    )


def session_events(key: str) -> list[str]:
    """Return one sentence for each recorded event of a key's last sessions."""
    events = SessionRecord.objects.of(key)
    if not events:
        kept = f"RECORD_KEEP, {conf.RECORD_KEEP} s"
        return [f"No session of the key was opened, refused or closed within {kept}."]
    return [_event(name, event) for name, event in sorted(events.items(), key=_time_of)]


def _time_of(item: tuple[str, SessionEvent]) -> float:
    return item[1].at


def _event(name: str, event: SessionEvent) -> str:
    at, where = _time(event.time), f"{event.transport} from {event.address} on node {event.node}"
    if name == "opened":
        return f"Session {event.session} was opened at {at} ({where})."
    why = f"{event.code} {event.reason}" if event.code else event.reason
    if name == "refused":
        return f"The last session that was refused: at {at} ({where}), with {why}."
    lasted = f"after {event.seconds:.1f} s"
    return f"Session {event.session} was closed at {at}, {lasted} ({where}): {why}."


def _token(key: str) -> Iterator[str]:
    token = Token.objects.filter(key=key).first()
    if token is None:
        yield "The key has no stored token (a JWT or a login may still let it in)."
    elif token.is_expired(timezone.now()):
        yield f"The key's stored token expired at {_time(token.expires_at)}."


def of_key(key: str, limit: int) -> list[str]:
    """Return lines about a key: its sessions, pending messages, and at most `limit` messages."""
    pending = f"{Pending.objects.unexpired(key).count()} pending message(s)."
    sessions, unknown = _connected(key)
    if unknown:
        lines = [f"{key!r} has {pending}", f"Whether it is connected is not known here; {unknown}"]
    else:
        lines = [f"{key!r} has {len(sessions)} session(s) and {pending}"]
    lines += [f"  {_session(entry)}" for entry in sessions]
    lines += session_events(key)
    if not sessions:
        lines += _token(key)
    latest = history.latest_of(key, limit)
    if not latest:
        lines.append("There is no record of a message to it.")
    for message, delivery in latest:
        lines.append(f"{message.pk}  {_time(message.created_at)}  {_end(delivery, message)}")
    deaf = vitals.deaf_workers()
    if deaf:
        lines.append(f"No worker takes tasks for partition(s) {', '.join(map(str, deaf))}.")
    return lines


def as_data(key: str, message_id: int | None, limit: int) -> dict[str, Any]:
    """Return the explanation, and the messages' states, as data.

    `message_id`: None for the key's last messages, at most `limit`.
    """
    if message_id is not None:
        message = history.find(message_id)
        messages = [] if message is None else [message]
        lines = of_message(key, message_id)
    else:
        messages = [message for message, _ in history.latest_of(key, limit)]
        lines = of_key(key, limit)
    return {
        "key": key,
        "explanation": lines,
        "messages": [
            {
                "id": str(message.pk),
                "created_at": message.created_at,
                "fan_out": history.fan_out(message),
                **history.deliveries(message, [key])[0].as_dict(),
            }
            for message in messages
            if key in (message.keys or [])
        ],
    }


def _time(moment: datetime | None) -> str:
    if moment is None:
        return ""
    return timezone.localtime(moment).isoformat(sep=" ", timespec="milliseconds")
