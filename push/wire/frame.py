"""What a frame is, how its binary header is laid out, and what a wrong one raises."""

import struct
from collections.abc import Sequence
from typing import NamedTuple

from push.wire.codes import CloseCode

# Package length, header length, ver, op, seq: big-endian, no padding.
HEADER = struct.Struct(">ihhii")
# Ver 2 puts the message id after them.
HEADER_V2 = struct.Struct(">ihhiiq")
# Parts of those, for a header that has not all arrived or that goes on.
PACKAGE_LENGTH = struct.Struct(">i")
BOTH_LENGTHS = struct.Struct(">ih")
MESSAGE_ID = struct.Struct(">q")

HEADER_SIZE = HEADER.size  # 16 bytes
HEADER_V2_SIZE = HEADER_V2.size  # 24 bytes


class Frame(NamedTuple):
    """One frame. `id` is the message id, a positive int64; 0 means none."""

    ver: int
    op: int
    seq: int
    body: bytes = b""
    id: int = 0


class FrameError(ValueError):
    """The peer sent what is not a frame; its session must be closed with `code`.

    `code` is BAD_FRAME or FRAME_TOO_LARGE. `message` is for the peer: short
    enough for a WebSocket close frame, and never made of what the peer sent.
    `frames` are the good frames that came before the bad one in the same bytes:
    handle them, then close.
    """

    def __init__(self, code: CloseCode, message: str = "", frames: Sequence[Frame] = ()) -> None:
        self.code = code
        self.message = message or code.reason
        self.frames = frames
        super().__init__(self.message)
