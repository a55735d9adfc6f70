"""The calls that push: each writes one outbox row in the caller's transaction.

Order: pushes to one key are delivered in the order of the calls, unless their transactions overlap,
and so are pushes to one room. A push to many keys is in order with other pushes whose list begins
with the same key, and with those to that key alone. Pushes to everyone are in order among
themselves. Nothing else is promised, because relays send different lanes at the same time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

from django.core.exceptions import ImproperlyConfigured
from django.db import connections, router, transaction
from django.db.transaction import TransactionManagementError

from imgo_client.django.conf import options
from imgo_client.frames import parse_json, to_json
from imgo_client.pushes import Push

NAME_MAX = 255  # characters of a key, a room or a dedupe id, as the server has it
OWN_OPS = range(1000, 2**31)  # ops for applications' own use; the others are 5 and the protocol's
MESSAGE_OP = 5
COLLAPSE_KEY_MAX = 64  # characters, as the server has it
VERSION_END = 2**63
EXCLUDE_MAX = 10  # sessions, as the server has it
NOTIFY_MEMBERS = {"title", "body", "url", "icon", "tag", "data"}
SECONDS_MAX = 10**9  # above any server's MAX_DELAY, and below what a datetime can express
OTHER_OUTBOX = "give {!r} an outbox: see DATABASES in imgo_client/django/conf.py."
# As on the server: control characters and lone surrogates.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_SESSION_ID = re.compile("[0-9A-Za-z-]{1,40}")  # as on the server
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")  # an escape of half of a pair, or of a whole one


def push_to_key(
    key: str,
    body: Any,
    *,
    ttl: int | None = None,
    store: bool = True,
    op: int = MESSAGE_OP,
    dedupe_id: str = "",
    send_at: datetime | float | None = None,
    exclude: Sequence[str] = (),
    collapse_key: str = "",
    version: int | None = None,
    notify: Mapping[str, Any] | None = None,
    notify_after: float | None = None,
    using: str = "",
) -> UUID:
    """Push to every session of `key` after the caller's commit. Return the push's id.

    `body`: any JSON value; bytes are JSON text and are sent as they are.
    `ttl`: seconds that the message may wait for the key; None: the server's default.
    `store`: False: only for sessions that are connected when it arrives.
    `op`: 5, or from 1000 on for clients that tell messages apart by it.
    `dedupe_id`: the server takes a second push with the same one for the first; "": the id that
    is returned.
    `send_at`: when it is due, a datetime with a zone or seconds from this call; None: now. `ttl`
    counts from then. A time that is past when the push reaches the server is now.
    `exclude`: ids of sessions that do not get it, at most 10.
    `collapse_key`: it replaces older pushes with the same one to the same key or room, as far as
    they wait or are kept. `version`: a number for it; a push with a lower one than the last is
    dropped.
    `notify`: what devices of the key show if the push is still pending `notify_after` seconds after
    it is due: a dictionary with `title`, and `body`, `url`, `icon`, `tag`, `data` if wanted.
    `notify_after`: None: the server's default.
    `using`: the database whose transaction decides; "": the router's.

    The call makes one query and no request. A rollback discards the push. After the commit it is
    delivered once, also if the server is unavailable for as long as the server remembers dedupe
    ids (its `DEDUPE_WINDOW`, a day). An outage above that, or an API key that is replaced between
    two attempts, can double it.

    Raises ValueError or TypeError for what the server would refuse, TransactionManagementError
    inside a transaction of only another database.
    """
    _check_options(ttl, op)
    to = {"key": _checked(key, "key")}
    options: dict[str, Any] = {"ttl": ttl, "store": store, "op": op, "exclude": _sessions(exclude)}
    options |= _collapse(collapse_key, version)
    options |= _notification(notify, notify_after, store=store)
    return _save(body, dedupe_id, using, send_at=send_at, **options, **to)


def push_to_keys(
    keys: Iterable[str],
    body: Any,
    *,
    ttl: int | None = None,
    store: bool = True,
    op: int = MESSAGE_OP,
    dedupe_id: str = "",
    send_at: datetime | float | None = None,
    exclude: Sequence[str] = (),
    collapse_key: str = "",
    version: int | None = None,
    notify: Mapping[str, Any] | None = None,
    notify_after: float | None = None,
    using: str = "",
) -> UUID:
    """Push one message to many keys. Like `push_to_key`."""
    if isinstance(keys, str):
        raise TypeError("keys is a list of strings; for one there is push_to_key")
    names = [_checked(key, "key") for key in dict.fromkeys(keys)]
    if not names:
        raise ValueError("keys is empty: name at least one.")
    _check_options(ttl, op)
    to: dict[str, Any] = {"key": names[0]} if len(names) == 1 else {"keys": names}
    options: dict[str, Any] = {"ttl": ttl, "store": store, "op": op, "exclude": _sessions(exclude)}
    options |= _collapse(collapse_key, version)
    options |= _notification(notify, notify_after, store=store)
    return _save(body, dedupe_id, using, send_at=send_at, **options, **to)


def push_to_room(
    room: str,
    body: Any,
    *,
    ttl: int | None = None,
    store: bool = True,
    op: int = MESSAGE_OP,
    ensure: bool = False,
    dedupe_id: str = "",
    send_at: datetime | float | None = None,
    exclude: Sequence[str] = (),
    collapse_key: str = "",
    version: int | None = None,
    using: str = "",
) -> UUID:
    """Push to all sessions in `room`. Like `push_to_key`, but it is not stored for keys.

    A room with history keeps the message. `store`: False: that room does not keep it either.
    `ensure`: the message waits for a busy node instead of being dropped there.
    """
    _check_options(ttl, op)
    to = {"room": _checked(room, "room")}
    options: dict[str, Any] = {"ttl": ttl, "store": store, "op": op, "exclude": _sessions(exclude)}
    options |= _collapse(collapse_key, version)
    return _save(body, dedupe_id, using, send_at=send_at, ensure=ensure, **options, **to)


def push_to_all(
    body: Any,
    *,
    ttl: int | None = None,
    op: int = MESSAGE_OP,
    ensure: bool = False,
    dedupe_id: str = "",
    send_at: datetime | float | None = None,
    using: str = "",
) -> UUID:
    """Push to all connected sessions. Like `push_to_room`, but no room keeps it."""
    _check_options(ttl, op)
    return _save(body, dedupe_id, using, send_at=send_at, ttl=ttl, op=op, ensure=ensure, all=True)


def cancel(push_id: UUID | str, *, dedupe_id: str = "", using: str = "") -> None:
    """Cancel a push that one of the calls above has returned, after the caller's commit.

    What is still scheduled or pending ends, and clients that have shown the message are told to
    take it back. `dedupe_id`: that of the push, if the call named one. `using`: as for the push.

    The call writes a row to the outbox, which the relay delivers behind the push. A push of longer
    ago than the server's `DEDUPE_WINDOW` (a day), or of another API key, is not cancelled.

    Raises ValueError for what is no id, TransactionManagementError as `push_to_key` does.
    """
    from imgo_client.django.models import Outbox, lane_of

    alias = _alias_of(using)
    name = UUID(str(push_id)).hex
    waiting = Outbox.objects.using(alias).filter(push_id=name).first()
    if dedupe_id:
        dedupe_id = _checked(dedupe_id, "dedupe_id")
    elif waiting is not None:
        dedupe_id = waiting.options.get("dedupe_id", "")
    row = Outbox(
        push_id=uuid4().hex,
        lane=lane_of(name) if waiting is None else waiting.lane,
        target=Outbox.Target.CANCEL,
        name=dedupe_id or name,
        body=b"null",
    )
    _add(row, alias)


def outbox_databases() -> tuple[str, ...]:
    """Return the aliases of the databases that have an outbox."""
    from imgo_client.django.models import Outbox

    return options().DATABASES or (router.db_for_write(Outbox),)


def _save(
    body: Any, dedupe_id: str, using: str, send_at: datetime | float | None, **push: Any
) -> UUID:
    """Write the outbox row of a push; `push`: arguments of `imgo_client.Push`."""
    from imgo_client.django.models import Outbox

    alias = _alias_of(using)
    push_id = uuid4()
    dedupe_id = _checked(dedupe_id, "dedupe_id") if dedupe_id else push_id.hex
    push["send_at"] = _absolute(send_at)
    row = Outbox.of(Push(_encoded(body), dedupe_id=dedupe_id, **push), push_id.hex)
    _add(row, alias)
    return push_id


def _alias_of(using: str) -> str:
    """Return the alias of the outbox's database. Raises if the open transaction is another's."""
    databases = outbox_databases()
    alias = using or databases[0]
    if alias not in databases:
        raise ImproperlyConfigured(
            f"No relay serves the outbox of the database {alias!r}, only {', '.join(databases)}: "
            "add it to IMGO_CLIENT['DATABASES']."
        )
    _check_transaction(alias)
    return alias


def _add(row: Any, alias: str) -> None:
    """Insert an outbox row, and wake the relay after the commit."""
    from imgo_client.django.waking import wake

    row.save(using=alias, force_insert=True)
    # One call a transaction. A savepoint that is rolled back takes its own out of the list.
    if all(function is not wake for _, function, *_ in connections[alias].run_on_commit):
        transaction.on_commit(wake, using=alias, robust=True)


def _check_transaction(alias: str) -> None:
    """Raise TransactionManagementError if only transactions of other databases are open."""
    if connections[alias].in_atomic_block:
        return
    for other in connections.all(initialized_only=True):
        if not other.in_atomic_block:
            continue
        has_outbox = other.alias in outbox_databases()
        raise TransactionManagementError(
            f"This push would be written to the database {alias!r}, but the open transaction is of "
            f"{other.alias!r}, whose rollback would not discard it. Open a transaction of "
            f"{alias!r} around the push if it may be sent nevertheless. For a push that the "
            f"rollback discards, "
            + (f"name using={other.alias!r}." if has_outbox else OTHER_OUTBOX.format(other.alias))
        )


def _check_options(ttl: int | None, op: int) -> None:
    """Raise ValueError for what the server would refuse, whatever its limits are."""
    if ttl is not None and ttl < 1:
        raise ValueError(f"ttl must be at least 1 second, not {ttl}.")
    if op != MESSAGE_OP and op not in OWN_OPS:
        raise ValueError(
            f"op must be {MESSAGE_OP}, or from {OWN_OPS[0]} to {OWN_OPS[-1]}, not {op}."
        )


def _collapse(collapse_key: str, version: int | None) -> dict[str, Any]:
    """Return both as arguments. Raises ValueError or TypeError if the server would refuse them."""
    if collapse_key and len(_checked(collapse_key, "collapse_key")) > COLLAPSE_KEY_MAX:
        raise ValueError(
            f"A collapse_key has at most {COLLAPSE_KEY_MAX} characters, not {len(collapse_key)}."
        )
    if version is not None and not collapse_key:
        raise ValueError("version is for a push with a collapse_key.")
    if version is not None and not 0 <= version < VERSION_END:
        raise ValueError(f"version must be at least 0 and below 2**63, not {version}.")
    return {"collapse_key": collapse_key, "version": version}


def _sessions(exclude: Sequence[Any]) -> list[str]:
    """Return ids of sessions. Raises ValueError or TypeError if the server would refuse them."""
    if isinstance(exclude, str):
        raise TypeError("exclude is a list of session ids.")
    if len(exclude) > EXCLUDE_MAX:
        raise ValueError(f"A push excludes at most {EXCLUDE_MAX} sessions, not {len(exclude)}.")
    for name in exclude:
        if not isinstance(name, str) or not _SESSION_ID.fullmatch(name):
            raise ValueError(f"exclude has no session id: {name!r}; 5938fe7d-12 is one.")
    return list(exclude)


def _notification(
    notify: Mapping[str, Any] | None, after: float | None, *, store: bool
) -> dict[str, Any]:
    """Return both as arguments. Raises ValueError or TypeError for what the server would refuse."""
    if notify is None:
        if after is not None:
            raise ValueError("notify_after is for a push with notify.")
        return {}
    if not store:
        raise ValueError("notify is for a push that is stored.")
    title = notify.get("title")
    if not isinstance(title, str) or not title:
        raise ValueError("notify needs a title, a text that is not empty.")
    if unknown := set(notify) - NOTIFY_MEMBERS:
        names = ", ".join(sorted(NOTIFY_MEMBERS))
        raise ValueError(f"notify has no member {min(unknown)!r}; there are: {names}.")
    to_json(dict(notify))
    if after is not None and not 0 <= after < SECONDS_MAX:
        raise ValueError(f"notify_after must be at least 0 seconds, not {after}.")
    return {"notify": dict(notify), "notify_after": after}


def _absolute(send_at: datetime | float | None) -> str | None:
    """Return the time at which a push is due, in ISO form.

    The row may wait for the relay, so seconds count from the call and not from the server's
    acceptance. Raises ValueError or TypeError for what is no time.
    """
    if send_at is None:
        return None
    if isinstance(send_at, datetime):
        if send_at.tzinfo is None:
            raise ValueError(f"send_at must have a time zone, which {send_at} has not.")
        return send_at.isoformat()
    if isinstance(send_at, bool) or not isinstance(send_at, (int, float)):
        raise TypeError(f"send_at is a datetime or a number, not {type(send_at).__name__}.")
    if not 0 <= send_at < SECONDS_MAX:
        raise ValueError(f"send_at must be at least 0 seconds from now, not {send_at}.")
    return (datetime.now(tz=timezone.utc) + timedelta(seconds=send_at)).isoformat()


def _encoded(body: Any) -> bytes:
    """Return the body as JSON text.

    Raises ValueError or TypeError if JSON cannot express it, or if the server cannot read it.
    """
    text = bytes(body) if isinstance(body, (bytes, bytearray)) else to_json(body).encode()
    if _SURROGATE.search(text):
        try:
            json.dumps(parse_json(text), ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError(
                "The body has half of a surrogate pair, which is no character: remove it, such as "
                "by text.encode(errors='ignore').decode()."
            ) from None
    return text


def _checked(name: Any, what: str) -> str:
    """Return a key, room or dedupe id. Raises ValueError or TypeError if the server refuses it."""
    if not isinstance(name, str):
        raise TypeError(f"A {what} must be a string, not {type(name).__name__}.")
    if not name or len(name) > NAME_MAX:
        raise ValueError(f"A {what} has 1 to {NAME_MAX} characters, not {len(name)}.")
    if _FORBIDDEN.search(name):
        raise ValueError(f"A {what} must not contain control characters.")
    return name
