"""accept_push: the only entry to pushing, for the API, for Python callers and for commands.

One call is one transaction, also for many pushes. The transaction stores each message, a pending
row for each of its keys, and an outbox row for each partition that must fan it out. After the
commit, the workers of those partitions are woken. So an accepted push is stored, and a push that is
rolled back was never sent.
"""

import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from django.db import Error as DatabaseError
from django.db import IntegrityError, transaction

from imgo_site import tracing
from imgo_site.conf import conf
from imgo_site.errors import BadRequest, OutcomeUnknown, TooLarge, Unavailable
from imgo_site.logs import note_push
from imgo_site.names import DASHBOARD_ROOM, INT32_MAX, INT64_MAX, check_name, check_number
from imgo_site.push_origin import current_origin, request_of
from imgo_site.room_policies import policy_of
from offline.models import COLLAPSE_KEY_MAX, EXCLUDE_MAX
from offline.partitions import hashes_of, partitions_of
from offline.values import NewMessage
from push.accept.frame_bodies import is_json
from push.accept.send_times import check_send_at, in_utc
from push.accept.transaction import store
from push.accept.worker_wakeups import wake
from push.devices.content import Notify, check_notify, notify_of
from push.metrics import definitions as metrics
from push.wire import FIRST_OWN_OP, Op

logger = logging.getLogger(__name__)

SESSION_ID = re.compile("[0-9A-Za-z-]{1,40}")
CALLER_MAX = 100  # characters of a caller's name: the width of its column


@dataclass(frozen=True, slots=True)
class Push:
    """One request to deliver a message, valid by construction.

    Exactly one of `keys`, `room` and `to_all` is set. Raises `BadRequest` or `TooLarge` for a push
    that cannot be accepted.

    `body`: bytes as they are sent.
    `is_json`: whether `body` is JSON text.
    `ttl`: seconds; None for the default.
    `store`: store the message for keys that are not connected, or keep it in a room with history.
    `dedupe_id`: "" for none.
    `ensure`: queue the message instead of dropping it if a group is busy.
    `sender`: the key of the client that publishes it to a room; "" for other pushes.
    `exclude`: ids of sessions that do not get it, at most 10; not for a push to everyone. A stored
    message stays pending for the other sessions of its keys.
    `collapse_key`: it replaces older pushes with the same one to the same key or room that are
    pending, scheduled, or kept by the room; "" for none. Not for a push to everyone.
    `version`: a number for its collapse key. A push with a lower one than the last is dropped.
    `send_at`: when it is due, as a time with a zone, or as seconds from now; None for now. A time
    in the past is now. The lifetime counts from when the push is due.
    `notify`: what devices of the keys show if the push is still pending `notify_after` seconds
    after it is due; None for nothing, and for `NOTIFY_AFTER` seconds.
    """

    body: bytes
    keys: tuple[str, ...] = ()
    room: str = ""
    to_all: bool = False
    is_json: bool = True
    op: int = Op.MESSAGE
    ttl: int | None = None
    store: bool = True
    dedupe_id: str = ""
    ensure: bool = False
    speed: int = 0  # sessions that a push to everyone reaches in a second; 0: all at once
    sender: str = ""
    exclude: Sequence[str] = ()
    collapse_key: str = ""
    version: int | None = None
    send_at: datetime | float | None = None
    notify: Notify | None = None
    notify_after: float | None = None

    def __post_init__(self) -> None:
        if bool(self.keys) + bool(self.room) + self.to_all != 1:
            raise BadRequest("A push goes to one key, many keys, a room, or all: name one of them.")
        if len(self.keys) > conf.MAX_KEYS:
            raise TooLarge(f"A push names at most {conf.MAX_KEYS} keys; this one {len(self.keys)}.")
        for key in self.keys:
            check_name(key, "key")
        if self.room:
            _check_room(self.room)
        if not self.body:
            raise BadRequest("The body is missing.")
        if len(self.body) > conf.MAX_BODY:
            raise TooLarge(f"A body has at most {conf.MAX_BODY} bytes; this one {len(self.body)}.")
        self._check_numbers()
        check_exclude(self.exclude, to_all=self.to_all)
        self._check_collapse_key()
        if self.dedupe_id:
            check_name(self.dedupe_id, "dedupe_id")
        if self.notify is not None or self.notify_after is not None:
            check_notify(self.notify, self.notify_after, is_for_keys=bool(self.keys) and self.store)

    def _check_numbers(self) -> None:
        check_op(self.op)
        check_send_at(self.send_at)
        if self.ttl is not None and not 1 <= self.ttl <= conf.MAX_TTL:
            raise BadRequest(f"ttl must be from 1 to {conf.MAX_TTL} seconds, not {self.ttl}.")
        if not 0 <= self.speed <= INT32_MAX or (self.speed and not self.to_all):
            raise BadRequest("speed is a number of sessions a second, for a push to everyone.")

    def _check_collapse_key(self) -> None:
        if self.collapse_key and self.to_all:
            raise BadRequest("collapse_key is for a push to a key, to keys or to a room.")
        if self.collapse_key and len(self.collapse_key) > COLLAPSE_KEY_MAX:
            raise BadRequest(
                f"collapse_key has at most {COLLAPSE_KEY_MAX} characters, not "
                f"{len(self.collapse_key)}."
            )
        if self.collapse_key:
            check_name(self.collapse_key, "collapse_key")
        if self.version is not None:
            if not isinstance(self.version, int):  # "7" and 7.0 do not compare as versions do
                raise BadRequest(f"version must be a whole number, not {self.version!r}.")
            check_number(self.version, "version", lowest=0, highest=INT64_MAX)
            if not self.collapse_key:
                raise BadRequest("version is for a push with a collapse_key.")

    @property
    def is_stored(self) -> bool:
        """Whether those who do not receive the message now can receive it later.

        These are keys, and sessions of a room with history.
        """
        return self.store and (bool(self.keys) or policy_of(self.room).history > 0)


def check_op(op: int, name: str = "op") -> None:
    """Raise `BadRequest` if a push cannot carry this op. `name`: the caller's name for it."""
    if op != Op.MESSAGE and not FIRST_OWN_OP <= op <= INT32_MAX:
        rule = f"{int(Op.MESSAGE)}, or from {FIRST_OWN_OP} to {INT32_MAX}"
        raise BadRequest(f"{name} must be {rule}, not {op}.")


def check_exclude(sessions: object, *, to_all: bool) -> None:
    """Raise `BadRequest` unless these are ids of sessions that a push may exclude."""
    if not isinstance(sessions, list | tuple):
        raise BadRequest("exclude is a list of session ids.")
    if sessions and to_all:
        raise BadRequest("exclude is for a push to a key, to keys or to a room.")
    if len(sessions) > EXCLUDE_MAX:
        raise BadRequest(f"A push excludes at most {EXCLUDE_MAX} sessions, not {len(sessions)}.")
    for name in sessions:
        if not isinstance(name, str) or not SESSION_ID.fullmatch(name):
            raise BadRequest(f"exclude has no session id: {str(name)[:60]!r}; 5938fe7d-12 is one.")


def _check_room(room: str) -> None:
    check_name(room, "room")
    if room == DASHBOARD_ROOM:
        raise BadRequest(f"The room {DASHBOARD_ROOM!r} is the dashboard's own.")


def accept_push(push: Push, by: str = "") -> int:
    """Accept one push and return the message's id. See `accept_pushes`."""
    return accept_pushes([push], by)[0]


def accept_pushes(pushes: Sequence[Push], by: str = "", origins: Sequence[str] = ()) -> list[int]:
    """Accept all of these pushes or none, and return the messages' ids in their order.

    `by`: the caller's name, to which dedupe ids belong; "" for none.
    `origins`: the request and the trace of each push (`imgo_site/push_origin.py`); empty for those
    of this call.

    When this returns, the pushes are committed. Inside a transaction of the caller, they are
    committed with that transaction.

    Raises `Unavailable` if nothing was accepted because the database failed; `BadRequest` for a
    `by` that is too long; `OutcomeUnknown` if it is not known whether the database has committed.
    The last is never raised inside a transaction of the caller, whose own commit decides.
    """
    if len(by) > CALLER_MAX:
        raise BadRequest(f"A caller's name has at most {CALLER_MAX} characters.")
    try:
        with tracing.span("imgo.store", pushes=len(pushes)):
            return _accept(pushes, by, origins or [current_origin()] * len(pushes))
    except OutcomeUnknown:
        raise OutcomeUnknown(all(push.dedupe_id for push in pushes)) from None
    except IntegrityError:
        raise  # a bug: the statement handles all expected collisions
    except DatabaseError as error:
        logger.error("pushes were not accepted, the database failed: %s", error)
        raise Unavailable("The database cannot be reached; nothing was accepted.") from error


def _accept(pushes: Sequence[Push], by: str, origins: Sequence[str]) -> list[int]:
    """Store each dedupe id's first push, and return the ids in the order of `pushes`."""
    places: list[int] = []  # the index in `messages` of each push
    first_places: dict[str, int] = {}
    messages: list[NewMessage] = []
    for push, origin in zip(pushes, origins, strict=True):
        place = first_places.get(push.dedupe_id, -1)
        if place < 0:
            place = len(messages)
            messages.append(_message(push, by, origin))
            if push.dedupe_id:
                first_places[push.dedupe_id] = place
        places.append(place)
    if not messages:
        return []
    stored = store(messages)
    rows = list(zip(messages, stored.ids, stored.is_new, strict=True))
    if new := [(message, message_id) for message, message_id, is_new in rows if is_new]:
        hashes = {number for message, _ in new for number in message.hashes}
        due = partitions_of(hashes, stored.partitions)
        transaction.on_commit(partial(wake, due))
        transaction.on_commit(partial(_record_accepted, new))
    if stored.ended:
        transaction.on_commit(partial(_count_drops, stored.ended))
    return [stored.ids[place] for place in places]


def _message(push: Push, by: str, origin: str) -> NewMessage:
    keys = tuple(dict.fromkeys(push.keys))
    names = keys or (push.room,)  # "" for everyone
    return NewMessage(
        body=push.body,
        ttl=_ttl(push),
        audience="keys" if keys else "room" if push.room else "all",
        keys=keys,
        room=push.room,
        stored=push.is_stored,
        op=push.op,
        is_json=push.is_json,
        by=by,
        ensure=push.ensure,
        speed=push.speed,
        origin=origin,
        hashes=hashes_of(names),
        dedupe_id=push.dedupe_id,
        sender=push.sender,
        exclude=",".join(push.exclude),
        collapse_key=push.collapse_key,
        version=push.version,
        send_at=in_utc(push.send_at) if isinstance(push.send_at, datetime) else None,
        send_in=None if isinstance(push.send_at, datetime) else push.send_at,
        notify=push.notify.text if push.notify else "",
        notify_after=conf.NOTIFY_AFTER if push.notify_after is None else push.notify_after,
    )


def _ttl(push: Push) -> float:
    """Return the lifetime of a message, seconds. A stream keeps its copy by the room's policy."""
    if push.room and push.is_stored:
        return conf.TTL
    return push.ttl or (conf.TTL if push.is_stored else conf.LIVE_TTL)


def _record_accepted(messages: Sequence[tuple[NewMessage, int]]) -> None:
    """Count committed messages, and log them if pushes are logged."""
    for message, message_id in messages:
        metrics.PUSHES.labels("key" if message.audience == "keys" else message.audience).inc()
        note_push(message_id, "accepted", request_of(message.origin))


def _count_drops(ended: Mapping[str, int]) -> None:
    for reason, count in ended.items():
        metrics.DROPS.labels(reason).inc(count)


# The Python calls


def encode_body(body: Any) -> tuple[bytes, bool]:
    """Return (bytes, whether they are JSON) of a body: bytes as they are, other values as JSON.

    Raises `BadRequest` for a value that JSON cannot express.
    """
    if isinstance(body, bytes):
        return body, is_json(body)
    try:
        text = json.dumps(body, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode(), True
    except UnicodeEncodeError:  # half of a surrogate pair: only its escape can be sent
        return json.dumps(body, separators=(",", ":")).encode(), True
    except (TypeError, ValueError, RecursionError) as error:
        raise BadRequest(f"The body cannot be written as JSON: {error}") from None


def push_to_key(key: str, body: Any, **options: Any) -> int:
    """Push to every session of `key`, and store the message if there is none. Return its id.

    `body`: bytes are sent as they are, other values as JSON.
    Options: `ttl` (seconds), `store` (False: only for sessions connected now), `op`, `dedupe_id`,
    `by` (the name that dedupe ids belong to), `send_at` (a datetime with a zone, or seconds from
    now: the push waits until then, and its lifetime counts from then), `exclude` (ids of sessions
    that do not get it), `collapse_key` (it replaces older pushes with the same one), `version` (of
    the collapse key: a push with a lower one than the last is dropped), `notify` (a dictionary with
    title, body, url, icon, tag and data, for devices), `notify_after` (seconds).

    Inside a transaction, nothing is sent before it commits.

    Raises `BadRequest`, `TooLarge`, `Unavailable` (nothing was accepted), `OutcomeUnknown`.
    """
    return push_to_keys([key], body, **options)


def push_to_keys(keys: Iterable[str], body: Any, **options: Any) -> int:
    """Push one message to many keys. Like `push_to_key`."""
    return _push(body, keys=tuple(keys), **options)


def push_to_room(room: str, body: Any, **options: Any) -> int:
    """Push to all sessions that are in `room` now. Like `push_to_key`, but not stored for keys.

    A room with history keeps the message. `store`: False: that room does not keep it either.
    """
    return _push(body, room=room, **options)


def push_to_all(body: Any, **options: Any) -> int:
    """Push to all sessions that are connected now. Like `push_to_key`, but never stored."""
    return _push(body, to_all=True, **options)


def _push(body: Any, *, by: str = "python", notify: object = None, **fields: Any) -> int:
    data, json_text = encode_body(body)
    return accept_push(Push(data, is_json=json_text, notify=notify_of(notify), **fields), by)
