"""Frames → bytes and text for a client.

Each function gives the bytes of one WebSocket message or one TCP write, with
nothing of a session in them: a hub encodes once and writes them to everyone.
Numbers out of range raise struct.error or give a frame no client can read; they
come from the server, so that is a bug of the caller's.
"""

import json

from push.wire.frame import HEADER, HEADER_SIZE, HEADER_V2, HEADER_V2_SIZE
from push.wire.ops import Op

_TEXT = b'[{"ver":%d,"op":%d,"seq":%d,"body":%b}]'
_TEXT_WITH_ID = b'[{"ver":%d,"op":%d,"seq":%d,"id":"%d","body":%b}]'

_write_json = json.JSONEncoder(ensure_ascii=False).encode


# The arguments have the names of the fields of Frame.
def encode_binary(
    op: int,
    seq: int,
    body: bytes = b"",
    ver: int = 1,
    id: int = 0,  # noqa: A002
) -> bytes:
    """A frame for raw TCP or a binary WebSocket; an `id` gives it the longer header."""
    if id:
        length = HEADER_V2_SIZE + len(body)
        return HEADER_V2.pack(length, HEADER_V2_SIZE, ver, op, seq, id) + body
    return HEADER.pack(HEADER_SIZE + len(body), HEADER_SIZE, ver, op, seq) + body


def encode_text(
    op: int,
    seq: int,
    body: bytes = b"",
    ver: int = 1,
    id: int = 0,  # noqa: A002
) -> bytes:
    """A frame for a text WebSocket: a JSON array of one object, in UTF-8.

    `body` must be JSON text already (see json_body), and goes in byte for byte;
    an empty one becomes `{}`.
    """
    if id:
        # A string: JavaScript's numbers are exact up to 2**53 only.
        return _TEXT_WITH_ID % (ver, op, seq, id, body or b"{}")
    return _TEXT % (ver, op, seq, body or b"{}")


def json_body(body: bytes, is_json: bool) -> bytes:
    """What stands for `body` in a text frame: itself when it is JSON, else a JSON string.

    Bytes that are not UTF-8 become U+FFFD in that string.
    """
    if is_json:
        return body
    return _write_json(body.decode(errors="replace")).encode()


def encode_raw(frames: list[bytes]) -> bytes:
    """A batch for a binary WebSocket: one RAW frame around frames from encode_binary."""
    return encode_binary(Op.RAW, 0, b"".join(frames))


def encode_text_batch(objects: list[bytes]) -> bytes:
    """A batch for a text WebSocket: one array of what encode_text put in an array each."""
    # The brackets are cut off and nothing is parsed: this runs once a batch and kind.
    return b"[%b]" % b",".join([text[1:-1] for text in objects])
