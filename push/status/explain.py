"""Explanation why a key did not get a message, from the records, the registry and the workers."""

from collections.abc import Callable, Iterator
from typing import Any

from accounts.callers import caller_name
from imgo_site.conf import conf
from imgo_site.errors import ImgoError
from imgo_site.replica import current_source, from_primary, from_replica
from offline import history, streams
from offline.history import Delivery
from offline.models import STALE, Message, Pending, ScheduledPush, StreamMessage
from push.hooks.figures import HookRow
from push.models import OnlineState
from push.status import device_states, hook_states, key_device_states, key_sessions, vitals
from push.status.key_sessions import SessionsOf
from push.status.phrases import counted, kept_for, time_text
from push.webhooks import backlogs as webhook_backlogs

# Returns the state of the hooks. Raises an `ImgoError` if it is not known.
HooksOf = Callable[[], list[HookRow]]


@from_replica
def of_message(
    key: str,
    message_id: int,
    sessions_of: SessionsOf = key_sessions.registered,
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
            f"older than {kept_for()} and was deleted."
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
    yield f"Push {push.pk} was accepted{by} for {_target(push)} at {time_text(push.created_at)}."
    if push.audience == Message.Audience.KEYS and key not in (push.keys or []):
        yield f"It was not pushed to {key!r}."
    yield f"It is scheduled for {time_text(push.due_at)}. No session gets it before."
    yield from _exclusion(push)


def _was_scheduled(message: Message) -> Iterator[str]:
    if due := history.schedule_of(message):
        yield (
            f"It was scheduled for {time_text(due.due_at)}, as push {due.pk}, at "
            f"{time_text(due.created_at)}."
        )


def _exclusion(push: Message | ScheduledPush) -> Iterator[str]:
    if names := push.exclude.replace(",", ", "):
        yield f"It excludes these sessions: {names}. Only other sessions get it."


def _acceptance(message: Message) -> str:
    target = _target(message)
    by = f" by {caller_name(message.by)}" if message.by else ""
    if message.sender:
        by += f" with the key {message.sender!r}"
    return f"Message {message.pk} was accepted{by} for {target} at {time_text(message.created_at)}."


def _body(key: str, message: Message, sessions_of: SessionsOf, hooks_of: HooksOf) -> Iterator[str]:
    if message.audience != Message.Audience.KEYS:
        yield "Such a message goes to the sessions that are open; there is no record for each key."
        if message.cancelled_at:
            yield _cancelled(message, time_text(message.cancelled_at))
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
        yield f"It was sent to session {session} at {time_text(at)}."


def _end(delivery: Delivery, message: Message) -> str:
    at = time_text(delivery.at) if delivery.at else ""
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
    expires = f"it expires at {time_text(message.expires_at)}"
    if (sent := delivery.unacknowledged) is None:
        return f"It is pending, sent to no session yet; {expires}."
    return (
        f"It is pending: {sent}, last at {time_text(sent.last)}, and not acknowledged; {expires}."
    )


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


def _presence(
    key: str, delivery: Delivery, sessions_of: SessionsOf, hooks_of: HooksOf
) -> Iterator[str]:
    sessions, unknown = key_sessions.connected(key, sessions_of)
    if unknown:
        yield f"Whether the key is connected is not known here: {unknown}"
    elif not sessions:
        receiver = "A device that it is pending for" if delivery.devices else "The next one"
        later = f" {receiver} gets it when it connects." if delivery.state == "pending" else ""
        yield f"No session of the key is connected now.{later}"
        yield from key_sessions.recorded_events(key)
        yield from key_sessions.token(key)
        yield from failing_hooks(hooks_of)
    sent_to = {name for name, _ in delivery.sent}
    for entry in sessions:
        state = "was sent it and has not acknowledged it" if entry.id in sent_to else "is connected"
        yield f"{key_sessions.described(entry)} {state}."


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
    sessions_of: SessionsOf = key_sessions.registered,
    hooks_of: HooksOf = hook_states.of_nodes,
) -> list[str]:
    """Return lines about a key: its sessions, pending messages, and at most `limit` messages."""
    pending = f"{counted(Pending.objects.unexpired(key).count(), 'pending message')}."
    sessions, unknown = key_sessions.connected(key, sessions_of)
    if unknown:
        lines = [f"{key!r} has {pending}", f"Whether it is connected is not known here: {unknown}"]
    else:
        lines = [f"{key!r} has {counted(len(sessions), 'session')} and {pending}"]
    lines += [f"  {key_sessions.described(entry)}" for entry in sessions]
    lines += key_device_states.of_key(key)
    lines += key_sessions.recorded_events(key) + key_sessions.last_event(
        OnlineState.objects.filter(pk=key).first()
    )
    if not sessions:
        lines += key_sessions.token(key)
    if not sessions and not unknown:
        lines += failing_hooks(hooks_of)
    latest = history.latest_of(key, limit)
    if not latest:
        lines.append(f"No message was pushed to it in the last {kept_for()}.")
    for message, delivery in latest:
        end = (
            key_device_states.of_devices(delivery) if delivery.devices else _end(delivery, message)
        )
        lines.append(f"{message.pk}  {time_text(message.created_at)}  {end}")
    if deaf := vitals.deaf_workers():
        names = ", ".join(map(str, deaf))
        lines.append(f"No worker takes tasks for {_partitions(deaf)} {names}.")
    return [*lines, *_source()]


@from_replica
def as_data(
    key: str,
    message_id: int | None,
    limit: int,
    sessions_of: SessionsOf = key_sessions.registered,
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
