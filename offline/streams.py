"""Streams: the kept messages of rooms with history, their offsets, and positions in them.

The drain of a room's partition assigns offsets, under the partition's lock, and commits them before
it publishes the messages. A drain that is cut off in between publishes the same offsets again. A
message that is committed late, with a lower id, gets the next offset. So offsets, not ids, are the
order of a stream.

A message's time is that of its offset, not of its acceptance: a transaction that commits late was
accepted before messages with lower offsets. The time never decreases from one offset to the next,
whatever the database's clock does. So the window of a policy has no holes.

A position is an epoch and an offset. The epoch changes when offsets may have lost their meaning:
when the database is another one than that which assigned them (a restored backup, a standby that
was promoted and may lack the latest messages).
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from django.db import connection, transaction
from django.db.models import F
from django.db.models.functions import Now

from imgo_site.conf import conf
from imgo_site.room_policies import policy_of
from offline.models import Message, Stream, StreamMessage
from offline.sql import chunks, dialect
from offline.stream_epochs import random_epoch, valid_epoch
from offline.stream_retention import delete_messages
from offline.values import OutboxMessage, OutboxRow

TRIM_EVERY = 100  # messages from one trimming of a stream to the next, at most


class StreamState(NamedTuple):
    """A stream at the moment of a query.

    `top`: offset of the newest message, 0 before the first one. `first`: that of the oldest
    message in the window of the room's policy; `top` + 1 if there is none.
    """

    room: str
    epoch: str
    top: int
    first: int


class KeptMessage(NamedTuple):
    """One message of a stream.

    `at`: when it got its offset, Unix time in seconds. `sender`: the key of the client that has
    published it; "" for none. An empty body is a tombstone, of a message that was replaced or
    cancelled.
    """

    offset: int
    id: int
    op: int
    body: bytes
    is_json: bool
    at: float
    sender: str = ""
    collapse_key: str = ""


class StreamPage(NamedTuple):
    """Which messages to read: those of `room` with offsets above `after`, at most `size`."""

    room: str
    after: int
    size: int


class Place(NamedTuple):
    """Where a message is in its stream."""

    epoch: str
    offset: int


def is_kept(message: Message | OutboxMessage) -> bool:
    """Return whether the message belongs to its room's stream."""
    return message.stored and message.audience == Message.Audience.ROOM


def places_of(rows: Sequence[OutboxRow]) -> dict[int, Place]:
    """Return message id → place, for those of these messages that have an offset."""
    places: dict[int, Place] = {}
    for chunk in chunks([row.message_id for row in rows if is_kept(row.message)]):
        query = StreamMessage.objects.filter(message_id__in=chunk)
        for message_id, epoch, offset in query.values_list("message_id", "stream__epoch", "offset"):
            places[message_id] = Place(epoch, offset)
    return places


def assign(messages: Sequence[OutboxMessage]) -> None:
    """Give each of these messages the next offset of its room's stream, in this order.

    Call it under the lock of the rooms' partition; the messages must have no offset yet.
    """
    if not messages:
        return
    by_room: dict[str, list[OutboxMessage]] = {}
    for message in messages:
        by_room.setdefault(message.room, []).append(message)
    with transaction.atomic():
        sums = {
            room: (len(added), sum(len(message.body) for message in added))
            for room, added in by_room.items()
        }
        for room, stream in _raise_tops(sums).items():
            added = by_room[room]
            StreamMessage.objects.bulk_create(
                StreamMessage(
                    stream_id=stream.pk,
                    offset=offset,
                    message_id=message.pk,
                    op=message.op,
                    body=message.body,
                    is_json=message.is_json,
                    sender=message.sender,
                    collapse_key=message.collapse_key,
                    at=stream.used_at,
                )
                for offset, message in enumerate(added, stream.top - len(added) + 1)
            )
            _trim(stream, len(added))


def _trim(stream: Stream, added: int) -> None:
    """Delete the messages above the room's limit, once in `TRIM_EVERY` messages."""
    history = policy_of(stream.room).history
    every = min(TRIM_EVERY, max(1, history))
    if (stream.top - added) // every != stream.top // every:
        delete_messages(stream, StreamMessage.objects.filter(offset__lte=stream.top - history))


def ensure(rooms: Iterable[str]) -> None:
    """Create the missing streams of these rooms, and record that the rooms are used.

    A stream whose offsets another database has assigned gets a new epoch.
    """
    for chunk in chunks(sorted(set(rooms))):
        _raise_tops(dict.fromkeys(chunk, (0, 0)))


def _raise_tops(sums: Mapping[str, tuple[int, int]]) -> dict[str, Stream]:
    """Add new messages to `top` and `size` of streams; return the streams with their new values.

    `sums`: room → (number of messages, bytes of their bodies). Missing streams are created.
    `used_at` becomes the present, but never an earlier time than before. The rows stay locked until
    the transaction ends; all callers lock them in the same order.
    """
    epoch = f"CASE WHEN s.cluster = excluded.cluster THEN s.epoch ELSE '{random_epoch()}' END"
    if conf.STREAMS_TRUST_FAILOVER:
        epoch = "s.epoch"
    row = f"(%s, {_EPOCH}, %s, %s, {dialect().cluster_identity()}, {dialect().now()})"
    params: list[Any] = []
    for room in sorted(sums):
        params += [room, random_epoch(), *sums[room]]
    with connection.cursor() as cursor:
        rows = ", ".join([row] * len(sums))
        cursor.execute(_RAISE.format(chosen=valid_epoch(), rows=rows, epoch=epoch), params)
        return {
            room: Stream(pk=pk, room=room, top=top, used_at=dialect().read_time(used_at))
            for pk, room, top, used_at in cursor.fetchall()
        }


_EPOCH = "COALESCE((SELECT * FROM chosen), %s)"
_RAISE = """ WITH chosen AS {chosen}
    INSERT INTO offline_stream AS s (room, epoch, top, size, cluster, used_at) VALUES {rows}
    ON CONFLICT (room) DO UPDATE SET
        epoch = {epoch}, top = s.top + excluded.top, size = s.size + excluded.size,
        cluster = excluded.cluster,
        used_at = CASE WHEN s.used_at > excluded.used_at THEN s.used_at ELSE excluded.used_at END
    RETURNING id, room, top, used_at
"""


def cluster_identity() -> str:
    """Return SQL for a text that names the database and its timeline; see `Dialect`."""
    return dialect().cluster_identity()


def find_states(rooms: Iterable[str]) -> dict[str, StreamState]:
    """Return the state of each room's stream; rooms that have none are missing.

    It takes one query for any number of rooms, and more if the database is another one than that
    which has assigned the offsets: the stream then gets a new epoch first.
    """
    names = sorted(set(rooms))
    states, foreign = _read_states(names)
    if foreign:
        ensure(foreign)
        states |= _read_states(foreign)[0]
    return states


def read_states(rooms: Iterable[str]) -> dict[str, StreamState]:
    """Return `find_states`'s result, and create the streams of rooms that have none."""
    names = set(rooms)
    states = find_states(names)
    if missing := names - states.keys():
        ensure(missing)
        states |= find_states(missing)
    return states


def _read_states(rooms: Sequence[str]) -> tuple[dict[str, StreamState], list[str]]:
    """Return the states of streams, and the rooms whose offsets another database has assigned."""
    states: dict[str, StreamState] = {}
    foreign: list[str] = []
    is_own = f"s.cluster = {dialect().cluster_identity()}"
    for chunk in chunks(rooms):
        params: list[Any] = []
        parts = []
        for room in chunk:
            policy = policy_of(room)
            since = dialect().time_before(policy.history_ttl)
            parts.append(_STATE.format(since=since, is_own=is_own))
            params += [policy.history, room]
        with connection.cursor() as cursor:
            cursor.execute(" UNION ALL ".join(parts), params)
            for room, epoch, top, first, is_same in cursor.fetchall():
                if is_same or conf.STREAMS_TRUST_FAILOVER:
                    states[room] = StreamState(room, epoch, top, first or top + 1)
                else:
                    foreign.append(room)
    return states, foreign


_STATE = """
    SELECT s.room, s.epoch, s.top, (
        SELECT m."offset" FROM offline_streammessage m
        WHERE m.stream_id = s.id AND m."offset" > s.top - %s AND m.at > {since}
        ORDER BY m."offset" LIMIT 1
    ), {is_own}
    FROM offline_stream s WHERE s.room = %s
"""


def read_pages(pages: Iterable[StreamPage]) -> dict[StreamPage, list[KeptMessage]]:
    """Return the messages of each page, in order of offset, in one query for any number of them.

    They are those in the window of the room's policy: the first one's offset says whether any is
    missing.
    """
    listed = list(pages)
    by_page: dict[StreamPage, list[KeptMessage]] = {page: [] for page in listed}
    for chunk in chunks(listed):
        parts: list[str] = []
        params: list[Any] = []
        for place, page in enumerate(chunk):
            policy = policy_of(page.room)
            since = dialect().time_before(policy.history_ttl)
            parts.append(_PAGE.format(place=place, since=since, order="ASC"))
            params += [page.room, page.after, policy.history, page.size]
        with connection.cursor() as cursor:
            cursor.execute(f"{' UNION ALL '.join(parts)} ORDER BY 1, 2", params)
            for place, *columns in cursor.fetchall():
                by_page[chunk[place]].append(_kept_message(columns))
    return by_page


_PAGE = """
    SELECT * FROM (
        SELECT {place} AS place, m."offset" AS offset_, m.message_id, m.op, m.body, m.is_json, m.at,
               m.sender, m.collapse_key
        FROM offline_stream s JOIN offline_streammessage m ON m.stream_id = s.id
        WHERE s.room = %s AND m."offset" > %s AND m."offset" > s.top - %s AND m.at > {since}
        ORDER BY m."offset" {order} LIMIT %s
    ) AS page_{place}
"""


def _kept_message(columns: Sequence[Any]) -> KeptMessage:
    offset, message_id, op, body, is_json, at, *names = columns
    time = dialect().read_time(at).timestamp()
    return KeptMessage(offset, message_id, op, bytes(body), bool(is_json), time, *names)


def read_history(
    room: str, *, since: int | None = None, before: int | None = None, limit: int, newest: bool
) -> list[KeptMessage]:
    """Return kept messages with `since` < offset < `before`, at most `limit`, without tombstones.

    `newest`: the newest first, else the oldest.
    """
    policy = policy_of(room)
    rows = StreamMessage.objects.filter(
        stream__room=room,
        offset__gt=F("stream__top") - policy.history,
        at__gt=Now() - timedelta(seconds=policy.history_ttl),
    ).exclude(body=b"")
    if since is not None:
        rows = rows.filter(offset__gt=since)
    if before is not None:
        rows = rows.filter(offset__lt=before)
    rows = rows.order_by("-offset" if newest else "offset")[:limit]
    return [
        KeptMessage(
            row.offset,
            row.message_id,
            row.op,
            bytes(row.body),
            row.is_json,
            row.at.timestamp(),
            row.sender,
        )
        for row in rows
    ]
