"""Explanation why a key did not get a message, from the records, the registry and the workers."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from django.utils import timezone

from accounts.callers import caller_name
from accounts.models import Token
from imgo_site.conf import conf
from imgo_site.deployment import redis_url
from imgo_site.errors import ImgoError, Unavailable
from imgo_site.replica import current_source, from_primary, from_replica
from imgo_site.times import utc_text
from offline import history, streams
from offline.history import Delivery
from offline.models import STALE, Message, Pending, ScheduledPush, StreamMessage
from push.hooks.figures import HookRow
from push.models import OnlineState, SessionRecord
from push.registry.base import Entry
from push.registry.select import get_registry
from push.session.session_records import SessionEvent
from push.status import device_states, hook_states, key_device_states, vitals
from push.webhooks import backlogs as webhook_backlogs

# Returns the sessions of a key. Raises an `ImgoError` if they are not known.
SessionsOf = Callable[[str], list[Entry]]
# Returns the state of the hooks. Raises an `ImgoError` if it is not known.
HooksOf = Callable[[], list[HookRow]]


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: "1 session", "2 sessions"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def registered_sessions(key: str) -> list[Entry]:
    """Return the sessions of a key from the registry.

    Raises `Unavailable` if it cannot be read, or if it is in the memory of another process.
    """
    registry = get_registry()
    if not redis_url() and not registry.nodes():
        raise Unavailable(
            "without REDIS_URL only the server's own process knows: "
            f"GET /api/v1/keys/{quote(key, safe='')}"
        )
    return registry.sessions(key)


@from_replica
def of_message(
    key: str,
    message_id: int,
    sessions_of: SessionsOf = registered_sessions,
    hooks_of: HooksOf = hook_states.of_nodes,
) -> list[str]:
    """Return sentences about one message's delivery to a key, the obstacles last."""
    if scheduled := history.find_scheduled(message_id):
        return list(_schedule(key, scheduled))
    message = history.find(message_id)
    if message is None:
        if current_source().age is not None:  # a replica may not have it yet
            return from_primary(of_message)(key, message_id, sessions_of, hooks_of)
        return [
            f"There is no record of message {message_id}: it was never accepted, or its record is "
            f"older than {_kept()} and was deleted."
        ]
    return [
        _acceptance(message),
        *_was_scheduled(message),
        *_exclusion(message),
        *_body(key, message, sessions_of, hooks_of),
        *_source(),
    ]


def _source() -> Iterator[str]:
    if sentence := current_source().sentence:
        yield sentence


def _target(push: Message | ScheduledPush) -> str:
    return {
        Message.Audience.KEYS: counted(len(push.keys or []), "key"),
        Message.Audience.ROOM: f"the room {push.room!r}",
        Message.Audience.ALL: "everyone",
    }[Message.Audience(push.audience)]


def _schedule(key: str, push: ScheduledPush) -> Iterator[str]:
    """Yield sentences about a push that is not due yet."""
    by = f" by {caller_name(push.by)}" if push.by else ""
    yield f"Push {push.pk} was accepted{by} for {_target(push)} at {_time(push.created_at)}."
    if push.audience == Message.Audience.KEYS and key not in (push.keys or []):
        yield f"It was not pushed to {key!r}."
    yield f"It is scheduled for {_time(push.due_at)}. No session gets it before."
    yield from _exclusion(push)


def _was_scheduled(message: Message) -> Iterator[str]:
    if due := history.schedule_of(message):
        yield (
            f"It was scheduled for {_time(due.due_at)}, as push {due.pk}, at "
            f"{_time(due.created_at)}."
        )


def _exclusion(push: Message | ScheduledPush) -> Iterator[str]:
    if names := push.exclude.replace(",", ", "):
        yield f"It excludes these sessions: {names}. Only other sessions get it."


def _acceptance(message: Message) -> str:
    target = _target(message)
    by = f" by {caller_name(message.by)}" if message.by else ""
    if message.sender:
        by += f" with the key {message.sender!r}"
    return f"Message {message.pk} was accepted{by} for {target} at {_time(message.created_at)}."


def _kept() -> str:
    """Return how long records are kept, such as "24 h (RECORD_KEEP)"."""
    seconds = conf.RECORD_KEEP
    text = f"{seconds / 3600:g} h" if seconds and seconds % 3600 == 0 else f"{seconds} s"
    return f"{text} (RECORD_KEEP)"


def _body(key: str, message: Message, sessions_of: SessionsOf, hooks_of: HooksOf) -> Iterator[str]:
    if message.audience != Message.Audience.KEYS:
        yield "Such a message goes to the sessions that are open; there is no record for each key."
        if message.cancelled_at:
            yield _cancelled(message, _time(message.cancelled_at))
            return
        if message.drop_reason:
            yield _dropped(message)
        else:
            yield from _kept_by_room(message)
        reach = history.reach_of(message)
        sessions, nodes = counted(reach["sessions"], "session"), counted(reach["nodes"], "node")
        yield f"It was written to {sessions} of {nodes}."
        yield from _hindrances(message)
        return
    if key not in (message.keys or []):
        yield f"It was not pushed to {key!r}."
        return
    (delivery,) = history.deliveries(message, [key])
    yield from _sent(delivery)
    yield from _ends(delivery, message)
    yield from device_states.sentences(key, message, delivery)
    if conf.WEBHOOKS:
        yield from webhook_backlogs.events_of(key, message.pk)
    if delivery.state in {"pending", "live"}:
        yield from _hindrances(message)
        yield from _presence(key, delivery, sessions_of, hooks_of)


def _cancelled(message: Message, at: str) -> str:
    if StreamMessage.objects.filter(message_id=message.pk).exists():
        return f"It was cancelled at {at}: its room keeps it no more."
    return f"It was cancelled at {at}, before it was sent."


def _dropped(message: Message) -> str:
    pushed = f"push with the collapse key {message.collapse_key!r}"
    if message.drop_reason == STALE:
        return (
            f"It was dropped: its version, {message.version}, is lower than of an older {pushed}."
        )
    return f"It was replaced by a newer {pushed}."


def _kept_by_room(message: Message) -> Iterator[str]:
    """Yield a sentence about a message of a room with history, if it is one."""
    if not streams.is_kept(message):
        return
    places = StreamMessage.objects.filter(message_id=message.pk)
    offset = places.values_list("offset", flat=True).first()
    if offset is not None and _is_in_history(message.room, offset):
        yield (
            f"The room keeps it, with the offset {offset}: sessions that come with an earlier "
            "position get it."
        )
    elif history.fan_out(message)["state"] == "done":
        yield "The room has kept it, and does not any more."
    else:
        yield "The room will keep it. It has no offset yet."


def _is_in_history(room: str, offset: int) -> bool:
    """Return whether the policy still covers a message whose row exists."""
    around = {"since": offset - 1, "before": offset + 1}
    return bool(streams.read_history(room, **around, limit=1, newest=True))


def _sent(delivery: Delivery) -> Iterator[str]:
    for session, at in delivery.sent:
        yield f"It was sent to session {session} at {_time(at)}."


def _end(delivery: Delivery, message: Message) -> str:
    at = _time(delivery.at) if delivery.at else ""
    sentences = {
        "acknowledged client": f"The client of session {delivery.session} acknowledged it at {at}.",
        "acknowledged kernel": (
            f"The client of session {delivery.session} does not acknowledge messages. The server's "
            f"kernel took all bytes of this one at {at}, which counts as received."
        ),
        "expired": f"It expired at {at}, before a session of the key received it.",
        "dropped offline_max": (
            f"It was dropped at {at}: the key had more than OFFLINE_MAX ({conf.OFFLINE_MAX}) "
            "pending messages. The oldest are dropped first."
        ),
        "dropped device_forgotten": (
            f"It was dropped at {at}: the device was forgotten, because it had no session for "
            "DEVICE_TTL, or because the key got more than DEVICES_MAX devices."
        ),
        "dropped cancelled": (
            f"It was cancelled at {at}, before a session of the key had acknowledged it."
        ),
        "dropped replaced": (
            f"It was replaced at {at}: a newer push with the collapse key "
            f"{message.collapse_key!r} was accepted."
        ),
        "dropped stale": (
            f"It was dropped at {at}: its version, {message.version}, is lower than that of an "
            f"earlier push with the collapse key {message.collapse_key!r}."
        ),
        "live": "It was not stored: only sessions that were open at that moment could get it.",
        "pending": _pending(delivery, message),
    }
    state = f"{delivery.state} {delivery.how}{delivery.reason}".strip()
    return sentences.get(state, f"It was {state} at {at}.")


def _ends(delivery: Delivery, message: Message) -> Iterator[str]:
    """Yield how the delivery ended, for each device if it was stored for several."""
    if not delivery.devices:
        yield _end(delivery, message)
        return
    for part in delivery.devices:
        end = key_device_states.NOT_STORED if part.state == "live" else _end(part, message)
        yield f"For {key_device_states.name_of(part.device)}: {end}"
    yield key_device_states.of_devices(delivery)


def _pending(delivery: Delivery, message: Message) -> str:
    expires = f"it expires at {_time(message.expires_at)}"
    if (sent := delivery.unacknowledged) is None:
        return f"It is pending, sent to no session yet; {expires}."
    return f"It is pending: {sent}, last at {_time(sent.last)}, and not acknowledged; {expires}."


def _hindrances(message: Message) -> Iterator[str]:
    """Yield sentences about obstacles between the outbox and the nodes."""
    way = history.fan_out(message)
    if way["state"] == "parked":
        yield f"It is parked, because its fan-out failed too often: {way['error']}"
    elif way["state"] == "waiting":
        names = ", ".join(map(str, way["partitions"]))
        yield f"It has not been fanned out yet ({_partitions(way['partitions'])} {names})."
        deaf = [n for n in vitals.deaf_workers() if n in way["partitions"]]
        if deaf:
            yield (
                f"No worker takes tasks for partition {deaf[0]}; a node fans out its messages once "
                f"they are older than SWEEP_AFTER ({conf.SWEEP_AFTER:g} s)."
            )


def _partitions(numbers: list[int]) -> str:
    return "partition" if len(numbers) == 1 else "partitions"


def _connected(key: str, sessions_of: SessionsOf) -> tuple[list[Entry], str]:
    """Return a key's sessions, and the reason why they are not known, "" if they are."""
    try:
        return sessions_of(key), ""
    except ImgoError as error:
        return [], error.message


def _presence(
    key: str, delivery: Delivery, sessions_of: SessionsOf, hooks_of: HooksOf
) -> Iterator[str]:
    sessions, unknown = _connected(key, sessions_of)
    if unknown:
        yield f"Whether the key is connected is not known here: {unknown}"
    elif not sessions:
        who = "A device that it is pending for" if delivery.devices else "The next one"
        later = f" {who} gets it when it connects." if delivery.state == "pending" else ""
        yield f"No session of the key is connected now.{later}"
        yield from session_events(key)
        yield from _token(key)
        yield from failing_hooks(hooks_of)
    sent_to = {name for name, _ in delivery.sent}
    for entry in sessions:
        state = "was sent it and has not acknowledged it" if entry.id in sent_to else "is connected"
        yield f"{_session(entry)} {state}."


def _session(entry: Entry) -> str:
    since = datetime.fromtimestamp(entry.since, tz=UTC)
    return (
        f"Session {entry.id} ({entry.transport} from {entry.address} on node {entry.node}, "
        f"since {_time(since)})"
    )


def session_events(key: str) -> list[str]:
    """Return one sentence for each recorded event of a key's last sessions."""
    return records_as_sentences(SessionRecord.objects.of(key))


def records_as_sentences(events: Mapping[str, SessionEvent]) -> list[str]:
    """Return one sentence for each of these session records."""
    if not events:
        return [f"No connection of this key in the last {_kept()}."]
    return [_event(name, event) for name, event in sorted(events.items(), key=_time_of)]


def key_events(state: OnlineState | None) -> list[str]:
    """Return a sentence about the last online or offline event of a key, if it has one."""
    if state is None:
        return []
    name = "online" if state.is_online else "offline"
    return [f"Its last event is key.{name}, number {state.number}, of {_time(state.at)}."]


def _time_of(item: tuple[str, SessionEvent]) -> float:
    return item[1].at


def _event(name: str, event: SessionEvent) -> str:
    at, where = _time(event.time), f"{event.transport} from {event.address} on node {event.node}"
    if name == "opened":
        return f"Session {event.session} was opened at {at} ({where})."
    why = (f"{event.code} {event.reason}" if event.code else event.reason).rstrip(".")
    if name == "refused":
        return f"A session was refused at {at} ({where}): {why}."
    lasted = f"after {event.seconds:.1f} s"
    return f"Session {event.session} was closed at {at}, {lasted} ({where}): {why}."


def _token(key: str) -> Iterator[str]:
    token = Token.objects.filter(key=key).first()
    if token is None:
        yield "The key has no stored token (a JWT or a login may still let it in)."
    elif token.is_expired(timezone.now()):
        yield f"The key's stored token expired at {_time(token.expires_at)}."


def failing_hooks(hooks_of: HooksOf = hook_states.of_nodes) -> list[str]:
    """Return a sentence for each hook that kept failing. Clients may not get in without it."""
    try:
        return hook_states.obstacles(hooks_of())
    except ImgoError as error:
        return [f"Whether your backend answers the hooks is not known here: {error.message}"]


@from_replica
def of_key(
    key: str,
    limit: int,
    sessions_of: SessionsOf = registered_sessions,
    hooks_of: HooksOf = hook_states.of_nodes,
) -> list[str]:
    """Return lines about a key: its sessions, pending messages, and at most `limit` messages."""
    pending = f"{counted(Pending.objects.unexpired(key).count(), 'pending message')}."
    sessions, unknown = _connected(key, sessions_of)
    if unknown:
        lines = [f"{key!r} has {pending}", f"Whether it is connected is not known here: {unknown}"]
    else:
        lines = [f"{key!r} has {counted(len(sessions), 'session')} and {pending}"]
    lines += [f"  {_session(entry)}" for entry in sessions]
    lines += key_device_states.of_key(key)
    lines += session_events(key) + key_events(OnlineState.objects.filter(pk=key).first())
    if not sessions:
        lines += _token(key)
    if not sessions and not unknown:
        lines += failing_hooks(hooks_of)
    latest = history.latest_of(key, limit)
    if not latest:
        lines.append(f"No message was pushed to it in the last {_kept()}.")
    for message, delivery in latest:
        end = (
            key_device_states.of_devices(delivery) if delivery.devices else _end(delivery, message)
        )
        lines.append(f"{message.pk}  {_time(message.created_at)}  {end}")
    if deaf := vitals.deaf_workers():
        names = ", ".join(map(str, deaf))
        lines.append(f"No worker takes tasks for {_partitions(deaf)} {names}.")
    return [*lines, *_source()]


@from_replica
def as_data(
    key: str,
    message_id: int | None,
    limit: int,
    sessions_of: SessionsOf = registered_sessions,
    hooks_of: HooksOf = hook_states.of_nodes,
) -> dict[str, Any]:
    """Return the explanation, and the messages' states, as data.

    `message_id`: None for the key's last messages, at most `limit`.
    """
    if message_id is not None:
        message = history.find(message_id)
        messages = [] if message is None else [message]
        lines = of_message(key, message_id, sessions_of, hooks_of)
    else:
        messages = [message for message, _ in history.latest_of(key, limit)]
        lines = of_key(key, limit, sessions_of, hooks_of)
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
    return "" if moment is None else utc_text(moment, "milliseconds")
