"""The frame, the layout of its binary header, and the error for a bad frame."""

import struct
from collections.abc import Sequence
from typing import NamedTuple

from push.wire.close_codes import CloseCode

# Package length, header length, ver, op, seq: big-endian, no padding.
HEADER = struct.Struct(">ihhii")
# Ver 2 appends the message id.
HEADER_V2 = struct.Struct(">ihhiiq")
# Parts of those, for a header that has arrived only in part or is the longer one.
PACKAGE_LENGTH = struct.Struct(">i")
BOTH_LENGTHS = struct.Struct(">ih")
MESSAGE_ID = struct.Struct(">q")

# With the room's name: after the message id the offset in the room's stream, 0 for none, and the
# length of the name in bytes, which follows. Behind the name the length of the sender's key and
# the key, if a client has published the message.
HEADER_ROOM = struct.Struct(">ihhiiqqh")
NAME_LENGTH = struct.Struct(">h")

HEADER_SIZE = HEADER.size  # 16 bytes
HEADER_V2_SIZE = HEADER_V2.size  # 24 bytes
HEADER_ROOM_SIZE = HEADER_ROOM.size  # 34 bytes, and the name


class Frame(NamedTuple):
    """One frame. `id` is the message id, a positive int64; 0 means none."""

    ver: int
    op: int
    seq: int
    body: bytes = b""
    id: int = 0


class FrameError(ValueError):
    """Error for bytes that are not a frame; the caller must close the session with `code`.

    `code`: BAD_FRAME or FRAME_TOO_LARGE.
    `message`: text for the peer, short enough for a WebSocket close frame. It never contains
    bytes that the peer sent.
    `frames`: the good frames before the bad one in the same bytes; handle them, then close.
    """

    def __init__(self, code: CloseCode, message: str = "", frames: Sequence[Frame] = ()) -> None:
        self.code = code
        self.message = message or code.reason
        self.frames = frames
        super().__init__(self.message)
