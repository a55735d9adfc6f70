"""Lists of rooms with history, for operators. They include rooms without sessions."""

from datetime import datetime
from typing import NamedTuple

from offline.models import Stream

EXAMINED_MAX = 10_000  # names that one search compares: some 50 ms


class StreamRow(NamedTuple):
    """A room's stream. `top`: offset of the newest message. `size`: bytes of the kept bodies."""

    room: str
    top: int
    size: int
    used_at: datetime


class StreamList(NamedTuple):
    """Streams in the order of their rooms' names.

    `examined`: how many names were compared. `cursor`: the last of them; "" if none follows.
    """

    rows: list[StreamRow]
    examined: int
    cursor: str


def list_streams(part: str, after: str, limit: int) -> StreamList:
    """Return streams whose rooms have `part` in their names, at most `limit`.

    The list begins behind the room `after`, "" for the first one. The index of the names is read
    in its order, so the cost does not depend on how many streams there are.
    """
    count = EXAMINED_MAX if part else limit
    streams = Stream.objects.filter(room__gt=after) if after else Stream.objects.all()
    names = streams.order_by("room").values_list("room", "top", "size", "used_at")[: count + 1]
    rows: list[StreamRow] = []
    examined, cursor = 0, ""
    for row in names:
        if examined == count or len(rows) == limit:
            return StreamList(rows, examined, cursor)
        examined, cursor = examined + 1, row[0]
        if part in cursor:
            rows.append(StreamRow(*row))
    return StreamList(rows, examined, "")
