"""Bytes ↔ frames: the protocol without I/O. It imports only the standard library.

- `Op`, `FIRST_OWN_OP`, `CloseCode`: the operations, and the one table of close codes.
- `Frame`, `FrameError`: the result of decoding, and the only error that decoding raises.
- `Decoder` for a raw TCP stream; `decode_binary`, `decode_text` for one WebSocket message.
- `encode_binary`, `encode_text` for one frame; `encode_room_binary`, `encode_room_text` for a
  message with its room's name; `encode_raw`, `encode_text_batch` for a batch
  of encoded frames; `encode_event` for a text frame as a Server-Sent Event.
- `compact_json` for a body that the server makes; `json_body` for the body of a text frame;
  `disconnect_body` for the body of op 6.

On a FrameError: handle the good frames in its `frames`, send a DISCONNECT frame with
`disconnect_body(error.code, error.message)`, close.
"""

from push.wire.close_codes import CloseCode, disconnect_body
from push.wire.decoder import Decoder, decode_binary, decode_text
from push.wire.encoder import (
    compact_json,
    encode_binary,
    encode_event,
    encode_raw,
    encode_room_binary,
    encode_room_text,
    encode_text,
    encode_text_batch,
    json_body,
)
from push.wire.frame import Frame, FrameError
from push.wire.ops import FIRST_OWN_OP, Op

__all__ = [
    "FIRST_OWN_OP",
    "CloseCode",
    "Decoder",
    "Frame",
    "FrameError",
    "Op",
    "compact_json",
    "decode_binary",
    "decode_text",
    "disconnect_body",
    "encode_binary",
    "encode_event",
    "encode_raw",
    "encode_room_binary",
    "encode_room_text",
    "encode_text",
    "encode_text_batch",
    "json_body",
]
