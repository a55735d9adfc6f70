"""Tombstones: kept messages of streams that were replaced or cancelled.

The offset stays, because offsets have no gaps, and counts as delivered. Only the body goes: a
tombstone has an empty one, which no message has.
"""

from collections.abc import Collection
from typing import NamedTuple

from django.db import connection
from django.db.models import F, Sum
from django.db.models.functions import Length

from offline.models import Stream, StreamMessage
from offline.sql import chunks


class TailRange(NamedTuple):
    """The messages of a room's stream from the offset `first` on."""

    room: str
    first: int


def kept_among(message_ids: Collection[int]) -> set[int]:
    """Return those of these messages that a stream keeps."""
    remaining: set[int] = set()
    for chunk in chunks(list(message_ids)):
        rows = StreamMessage.objects.exclude(body=b"").filter(message_id__in=chunk)
        remaining.update(rows.values_list("message_id", flat=True))
    return remaining


def erase(message_ids: Collection[int]) -> int:
    """Turn the kept copies of these messages into tombstones; return how many.

    Call it in a transaction. The streams are locked in the order of their rooms, as in
    `streams.assign`.
    """
    kept = StreamMessage.objects.exclude(body=b"")
    streams: set[tuple[str, int]] = set()
    for chunk in chunks(list(message_ids)):
        rows = kept.filter(message_id__in=chunk)
        streams.update(rows.values_list("stream__room", "stream_id"))
    count = 0
    for _, stream_id in sorted(streams):
        stream = Stream.objects.filter(pk=stream_id)
        list(stream.select_for_update().values_list("pk"))
        for chunk in chunks(list(message_ids)):
            rows = kept.filter(stream_id=stream_id, message_id__in=chunk)
            size = rows.aggregate(size=Sum(Length("body")))["size"]
            if size:
                count += rows.update(body=b"")
                stream.update(size=F("size") - size)
    return count


def read_offsets(ranges: Collection[TailRange]) -> dict[TailRange, set[int]]:
    """Return the offsets of the tombstones in each of these ranges."""
    by_range: dict[TailRange, set[int]] = {tail_range: set() for tail_range in ranges}
    for chunk in chunks(list(ranges)):
        parts = [_OFFSETS.format(place=place) for place in range(len(chunk))]
        with connection.cursor() as cursor:
            cursor.execute(" UNION ALL ".join(parts), [value for row in chunk for value in row])
            for place, offset in cursor.fetchall():
                by_range[chunk[place]].add(offset)
    return by_range


_OFFSETS = """
    SELECT {place}, m."offset"
    FROM offline_stream s JOIN offline_streammessage m ON m.stream_id = s.id
    WHERE s.room = %s AND m."offset" >= %s AND length(m.body) = 0
"""
