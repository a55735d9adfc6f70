"""Ids of events: the position of a session in its sources, as one text.

A client that reconnects sends the id of its last event, and gets the messages that it missed. The
id is `1,<time>,<room>.<epoch>.<offset>,...`: the version of this format, a time, and the position
in each stream. A room is written as a hash of its name, because names may have any length and any
character.

The time is the position in the messages to the key, in milliseconds by the database's clock: all
messages sent to the session before that time precede the id. A message's own id cannot be used: a
message with a lower id may be sent later, and all sessions of a room get its events with the same
bytes, although their last messages differ.
"""

import re
from base64 import urlsafe_b64encode
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

VERSION = "1"
HASH_BYTES = 6  # of a room's name
ID_MAX = 16_384  # characters of an id that is read; one of 100 rooms has about 3,000
NUMBER_MAX = 2**63 - 1

_ID = re.compile(r"1,(\d{1,19})((?:,[\w-]{1,16}\.[\w-]{1,64}\.\d{1,19})*)", re.ASCII)


class Position(NamedTuple):
    """A place in a stream: that of the last message that a client has."""

    epoch: str
    offset: int


class SourcePositions(NamedTuple):
    """Positions in one id. `at`: Unix time, seconds. `rooms`: position by hash of the name."""

    at: float
    rooms: dict[str, Position]

    def of(self, room: str) -> Position | None:
        """Return the position in a room's stream; None if the id has none."""
        return self.rooms.get(room_hash(room))


class EventIds:
    """Position of one session.

    `rooms`: its position in each stream that it has requested. If the session is in the room's
    group, the node's stream has a later position.
    `is_inline`: whether the events of its one stream have ids themselves. Sessions share these
    bytes, too. With more streams the ids are in blocks of their own.
    """

    __slots__ = ("is_inline", "rooms")

    def __init__(self) -> None:
        self.rooms: dict[str, Position] = {}
        self.is_inline = False

    def text(self, at: float) -> bytes:
        """Return the id. `at`: Unix time by the database's clock, seconds."""
        parts = [f"{VERSION},{at * 1000:.0f}"]
        parts += [f"{room_hash(room)}.{at.epoch}.{at.offset}" for room, at in self.rooms.items()]
        return ",".join(parts).encode()


@lru_cache(maxsize=10_000)
def room_hash(room: str) -> str:
    """Return the short form of a room's name in ids."""
    digest = blake2b(room.encode("utf-8", "surrogatepass"), digest_size=HASH_BYTES).digest()
    return urlsafe_b64encode(digest).decode()


def event_id(room: str, epoch: str, offset: int, at: float) -> bytes:
    """Return the id of sessions with one stream, behind this message of it.

    `at`: no later than the moment in which it is written: Unix time, seconds.
    """
    return f"{VERSION},{at * 1000:.0f},{room_hash(room)}.{epoch}.{offset}".encode()


def parse_event_id(text: str) -> SourcePositions | None:
    """Return the positions in an id; None if it is not one of this version."""
    match = _ID.fullmatch(text) if len(text) <= ID_MAX else None
    if match is None:
        return None
    rooms: dict[str, Position] = {}
    for part in match[2].split(",")[1:]:
        room, epoch, offset = part.split(".")
        rooms[room] = Position(epoch, int(offset))
    numbers = [int(match[1]), *(at.offset for at in rooms.values())]
    return SourcePositions(numbers[0] / 1000, rooms) if max(numbers) <= NUMBER_MAX else None
