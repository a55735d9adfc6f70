"""The stream of one room on a node: its last delivered offset, and its tail."""

import asyncio
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Any

from push.bus.group_names import room_group
from push.session.outgoing import OutgoingMessage
from push.wire import compact_json


class RoomStream:
    """The stream of one room on this node.

    `last`: the highest offset that was handed to the room's sessions. `seen`: the highest that has
    arrived. `tail`: the latest messages up to `last`, without gaps; `size` counts their bytes.
    `has_collapse_keys`: whether a message of the tail may have a collapse key.
    """

    __slots__ = (
        "epoch",
        "group",
        "has_collapse_keys",
        "last",
        "must_read_again",
        "reading",
        "room",
        "seen",
        "size",
        "tail",
    )

    def __init__(self, room: str, epoch: str, last: int) -> None:
        self.room = room
        self.group = room_group(room)
        self.epoch = epoch
        self.last = self.seen = last
        # The task that reads missing messages from the database; None while none is missing.
        self.reading: asyncio.Task[None] | None = None
        # Something is missing that the query under way may not have seen.
        self.must_read_again = False
        self.tail: deque[OutgoingMessage] = deque()
        self.size = 0
        self.has_collapse_keys = False

    @property
    def tail_start(self) -> int:
        """Return the offset of the first message in the tail; `last` + 1 if it is empty."""
        return self.tail[0].offset if self.tail else self.last + 1

    def after(self, offset: int) -> Iterator[OutgoingMessage]:
        """Yield the messages of the tail above an offset that the tail covers."""
        return islice(self.tail, max(0, offset + 1 - self.tail_start), None)


def written_up_to(hub: Any, stream: RoomStream) -> int:
    """Return the highest offset that was written to the room's sessions, or is being written.

    Higher ones wait in the coalescer. A session that enters the group now gets them from there.
    """
    coalescer = hub.coalescers.get(stream.group)
    waiting = 0 if coalescer is None else coalescer.first_waiting_offset()
    return waiting - 1 if waiting else stream.last


def written_for_sure(hub: Any, stream: RoomStream) -> int:
    """Return the highest offset that all sessions in the room's group were written.

    It is lower than `written_up_to` while a batch is being written in slices.
    """
    coalescer = hub.coalescers.get(stream.group)
    under_way = 0 if coalescer is None else coalescer.first_offset_under_way
    return under_way - 1 if under_way else written_up_to(hub, stream)


def gap_body(room: str, epoch: str, offset: int) -> bytes:
    """Return the body of op 29: of this room's stream, nothing more up to `offset` comes."""
    return compact_json({"room": room, "epoch": epoch, "offset": offset})
