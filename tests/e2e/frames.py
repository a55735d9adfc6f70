"""Frames, written and read from the protocol's description alone: nothing of the server is used."""

import json
import struct
from typing import Any, NamedTuple

import msgspec

HEADER = struct.Struct(">ihhii")  # package length, header length, ver, op, seq
PLACE = struct.Struct(">qh")  # behind the message id: offset, and the length of the room's name
MESSAGE_ID = struct.Struct(">q")  # what a version 2 header has behind that
HANDSHAKE, HANDSHAKE_REPLY = 0, 1
HEARTBEAT, HEARTBEAT_REPLY = 2, 3
SEND, MESSAGE, DISCONNECT = 4, 5, 6
AUTH, AUTH_REPLY, RAW = 7, 8, 9
CHANGE_ROOM, CHANGE_ROOM_REPLY = 12, 13
JOIN, JOIN_REPLY, LEAVE, LEAVE_REPLY = 18, 19, 20, 21
ACK = 22
HISTORY, HISTORY_REPLY, STREAM_GAP = 24, 25, 29
PUBLISH, PUBLISH_REPLY = 32, 33
TEST, TEST_REPLY = 254, 255


class Frame(NamedTuple):
    """One frame from the server. `body` is as it was on the wire; `id` 0 means none.

    `room`, `offset`: of a message of a room, for a session that asked for them. `sender`: the key
    of the client that has published it.
    """

    ver: int
    op: int
    seq: int
    body: bytes = b""
    id: int = 0
    room: str = ""
    offset: int = 0
    sender: str = ""

    @property
    def value(self) -> Any:
        """The body as JSON; nothing is an empty object."""
        return json.loads(self.body or b"{}")


def pack(op: int, seq: int, body: bytes = b"", ver: int = 1) -> bytes:
    """A frame as it is on raw TCP and in binary WebSocket messages."""
    return HEADER.pack(HEADER.size + len(body), HEADER.size, ver, op, seq) + body


def unpack(data: bytes) -> tuple[list[Frame], bytes]:
    """The whole frames in `data`, and what is left."""
    frames = []
    while len(data) >= HEADER.size:
        length, header_length, ver, op, seq = HEADER.unpack_from(data)
        is_known = header_length in (16, 24) or header_length >= 34
        assert is_known, f"a header of {header_length} bytes"
        assert length >= header_length, f"a package of {length} bytes"
        if len(data) < length:
            break
        (message_id,) = MESSAGE_ID.unpack_from(data, 16) if header_length > 16 else (0,)
        place = _place(data[:header_length]) if header_length >= 34 else ("", 0, "")
        body = data[header_length:length]
        frames.append(Frame(ver, op, seq, body, message_id, *place))
        data = data[length:]
    return frames, data


class TextFrame(msgspec.Struct, forbid_unknown_fields=True, rename={"sender": "from"}):
    """One object of a text message. A version 2 frame has an id, a string of digits."""

    ver: int
    op: int
    seq: int
    body: msgspec.Raw
    id: str = ""
    room: str = ""
    offset: int = 0
    sender: str = ""


def _place(header: bytes) -> tuple[str, int, str]:
    """The room, the offset and the sender, "" for none, in a header with a room."""
    offset, size = PLACE.unpack_from(header, 24)
    room, key = header[34 : 34 + size], header[34 + size :]
    assert not key or int.from_bytes(key[:2], "big") == len(key) - 2
    return room.decode(), offset, key[2:].decode()


def parse_text(message: str | bytes) -> list[Frame]:
    """The frames of a text message: a JSON array of objects."""
    objects = msgspec.json.decode(message, type=list[TextFrame])
    assert objects, "an empty array"
    return [
        Frame(f.ver, f.op, f.seq, bytes(f.body), int(f.id or 0), f.room, f.offset, f.sender)
        for f in objects
    ]
