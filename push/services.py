"""accept_push: the only door to pushing, for the API, for Python callers and for commands.

One call is one transaction, also for many pushes. It stores each message, a pending row for every
key that it is for, and an outbox row for every partition that has to fan it out; when it commits,
those partitions are woken. So what is answered is stored, and what is rolled back was never sent.
"""

import json
import logging
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.db import Error as DatabaseError
from django.db import IntegrityError, transaction

from imgo_site import tracing
from imgo_site.conf import conf
from imgo_site.errors import BadRequest, TooLarge, Unavailable
from imgo_site.logs import note_push
from imgo_site.names import DASHBOARD_ROOM, INT32_MAX, check_name
from imgo_site.origin import current_origin, request_of
from offline.models import Message, NewMessage
from push import metrics
from push.groups import partition_of
from push.models import Dedupe
from push.waker import wake
from push.wire import FIRST_OWN_OP, Op

logger = logging.getLogger(__name__)

DEDUPE_ATTEMPTS = 3  # a parallel push with the same dedupe id makes the first attempt fail
CALLER_MAX = 100  # characters of a caller's name: the width of its column


@dataclass(frozen=True, slots=True)
class Push:
    """One request to deliver a message. Exactly one of `keys`, `room` and `to_all` is set.

    `body`: bytes as they are sent; `is_json` says whether they are JSON text. `ttl`: seconds,
    None for the default. `store`: keep it for keys that are not there; rooms are live only.
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
    origin: str = ""  # what it came with, for logs and traces: see `imgo_site/origin.py`

    def check(self) -> None:
        """Raises `BadRequest` or `TooLarge` when this cannot be accepted."""
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
        if self.dedupe_id:
            check_name(self.dedupe_id, "dedupe_id")

    def _check_numbers(self) -> None:
        check_op(self.op)
        if self.ttl is not None and not 1 <= self.ttl <= conf.MAX_TTL:
            raise BadRequest(f"ttl must be from 1 to {conf.MAX_TTL} seconds, not {self.ttl}.")
        if not 0 <= self.speed <= INT32_MAX or (self.speed and not self.to_all):
            raise BadRequest("speed is a number of sessions a second, for a push to everyone.")

    @property
    def is_stored(self) -> bool:
        """Whether keys that do not get it now get it later."""
        return self.store and bool(self.keys)


def check_op(op: int, name: str = "op") -> None:
    """Raise `BadRequest` if a push cannot carry this op. `name`: the caller's word for it."""
    if op != Op.MESSAGE and not FIRST_OWN_OP <= op <= INT32_MAX:
        rule = f"{int(Op.MESSAGE)}, or from {FIRST_OWN_OP} to {INT32_MAX}"
        raise BadRequest(f"{name} must be {rule}, not {op}.")


def _check_room(room: str) -> None:
    check_name(room, "room")
    if room == DASHBOARD_ROOM:
        raise BadRequest(f"The room {DASHBOARD_ROOM!r} is the dashboard's own.")


def accept_push(push: Push, by: str = "") -> int:
    """Accept one push; returns the message's id. See `accept_pushes`."""
    return accept_pushes([push], by)[0]


def accept_pushes(pushes: Sequence[Push], by: str = "") -> list[int]:
    """Accept all of these pushes or none, and return the messages' ids in their order.

    `by` names the caller: dedupe ids are its own. When this returns outside of a transaction,
    everything is committed; inside of one, when that commits. Raises `BadRequest` or `TooLarge`
    for a push that cannot be accepted, and `Unavailable` when the database cannot be reached:
    then nothing was accepted.
    """
    if len(by) > CALLER_MAX:
        raise BadRequest(f"A caller's name has at most {CALLER_MAX} characters.")
    for push in pushes:
        push.check()
    try:
        with tracing.span("imgo.store", pushes=len(pushes)):
            return _store_once(pushes, by)
    except IntegrityError:
        raise  # a bug: what may collide was handled below
    except DatabaseError as error:
        logger.error("pushes were not accepted, the database failed: %s", error)
        raise Unavailable("The database cannot be reached; nothing was accepted.") from error


def _store_once(pushes: Sequence[Push], by: str) -> list[int]:
    """Store what was not pushed before under the same dedupe id; ids in the order of `pushes`."""
    wanted = list({push.dedupe_id for push in pushes if push.dedupe_id})
    for attempt in range(1, DEDUPE_ATTEMPTS + 1):
        try:
            with _transaction(wanted):
                known = Dedupe.objects.known(by, wanted)
                fresh = _without_known(pushes, known)
                stored = _store(fresh, by)
                for push, message_id in zip(fresh, stored, strict=True):
                    if push.dedupe_id:
                        known[push.dedupe_id] = message_id
                # In one order for all: two arrays at once must not wait for each other.
                if new := sorted({push.dedupe_id for push in fresh} - {""}):
                    Dedupe.objects.bulk_create(
                        Dedupe(by=by, dedupe_id=dedupe_id, message_id=known[dedupe_id])
                        for dedupe_id in new
                    )
            break
        except IntegrityError:
            # Another push with the same dedupe id committed first; now it can be seen.
            if not wanted or attempt == DEDUPE_ATTEMPTS:
                raise
    plain = iter(stored[i] for i, push in enumerate(fresh) if not push.dedupe_id)
    return [known[push.dedupe_id] if push.dedupe_id else next(plain) for push in pushes]


def _transaction(dedupe_ids: list[str]) -> AbstractContextManager[None]:
    """What makes storing atomic, if it is not one statement and so is by itself."""
    if Message.objects.is_one_statement and not dedupe_ids:
        return nullcontext()
    return transaction.atomic()


def _without_known(pushes: Sequence[Push], known: dict[str, int]) -> list[Push]:
    """The pushes whose dedupe id is neither known nor named by an earlier one of them."""
    seen = set(known)
    fresh = []
    for push in pushes:
        if not push.dedupe_id or push.dedupe_id not in seen:
            fresh.append(push)
            seen.add(push.dedupe_id)
    return fresh


def _store(pushes: Sequence[Push], by: str) -> list[int]:
    """Store pushes; when that is committed, their partitions are woken."""
    if not pushes:
        return []
    count, origin = conf.PARTITIONS, current_origin()
    messages = []
    for push in pushes:
        keys = tuple(dict.fromkeys(push.keys))
        names = keys or (push.room,)  # "" for everyone
        messages.append(
            NewMessage(
                body=push.body,
                ttl=push.ttl or (conf.TTL if push.is_stored else conf.LIVE_TTL),
                audience="keys" if keys else "room" if push.room else "all",
                keys=keys,
                room=push.room,
                stored=push.is_stored,
                op=push.op,
                is_json=push.is_json,
                by=by,
                ensure=push.ensure,
                speed=push.speed,
                origin=push.origin or origin,
                partitions=tuple({partition_of(name, count) for name in names}),
            )
        )
    ids = Message.objects.store(messages, count)
    due = {partition for message in messages for partition in message.partitions}
    transaction.on_commit(partial(wake, due))
    transaction.on_commit(partial(_note, messages, ids))
    return ids


def _note(messages: Sequence[NewMessage], ids: Sequence[int]) -> None:
    """These messages are committed: count them, and say so."""
    for message, message_id in zip(messages, ids, strict=True):
        metrics.PUSHES.labels("key" if message.audience == "keys" else message.audience).inc()
        note_push(message_id, "accepted", request_of(message.origin))


# The Python calls


def encode_body(body: Any) -> tuple[bytes, bool]:
    """(bytes, is it JSON) of a body: bytes as they are, anything else as JSON.

    Raises `BadRequest` for what JSON cannot express.
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


def is_json(body: bytes) -> bool:
    """Whether these bytes are JSON text that every client can read."""
    try:
        json.loads(body.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def push_to_key(key: str, body: Any, **options: Any) -> int:
    """Push to every session of `key`; kept for it when there is none. Returns the id.

    `body`: bytes as they are, anything else as JSON. Options: `ttl` (seconds), `store` (False:
    only for who is connected now), `op`, `dedupe_id`, `by` (the name that dedupe ids belong to).
    Inside a transaction nothing leaves before it commits. Raises `BadRequest`, `TooLarge`,
    `Unavailable`.
    """
    return push_to_keys([key], body, **options)


def push_to_keys(keys: Iterable[str], body: Any, **options: Any) -> int:
    """Push one message to many keys. Like `push_to_key`."""
    return _push(body, keys=tuple(keys), **options)


def push_to_room(room: str, body: Any, **options: Any) -> int:
    """Push to the sessions that are in `room` now. Like `push_to_key`, but never stored."""
    return _push(body, room=room, **options)


def push_to_all(body: Any, **options: Any) -> int:
    """Push to every session that is connected now. Like `push_to_key`, but never stored."""
    return _push(body, to_all=True, **options)


def _push(body: Any, *, by: str = "python", **fields: Any) -> int:
    data, json_text = encode_body(body)
    return accept_push(Push(data, is_json=json_text, **fields), by)
