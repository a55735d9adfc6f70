"""Encoder: frames → bytes and text for a client.

Each function returns the bytes of one WebSocket message or one TCP write. They contain no
session data, so a hub encodes once and writes the same bytes to all its sessions.

Numbers out of range raise struct.error or produce a frame that no client can read. Such
numbers are the caller's bug, because they come from the server.
"""

import json

from push.wire.frame import (
    HEADER,
    HEADER_ROOM,
    HEADER_ROOM_SIZE,
    HEADER_SIZE,
    HEADER_V2,
    HEADER_V2_SIZE,
    NAME_LENGTH,
)
from push.wire.ops import Op

_TEXT = b'[{"ver":%d,"op":%d,"seq":%d,"body":%b}]'
_TEXT_WITH_ID = b'[{"ver":%d,"op":%d,"seq":%d,"id":"%d","body":%b}]'
_TEXT_OF_ROOM = b'[{"ver":2,"op":%d,"seq":0,"id":"%d","room":%b%b%b,"body":%b}]'

_write_json = json.JSONEncoder(ensure_ascii=False).encode
_write_compact = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


# The arguments have the names of the fields of Frame.
def encode_binary(
    op: int,
    seq: int,
    body: bytes = b"",
    ver: int = 1,
    id: int = 0,  # noqa: A002
) -> bytes:
    """Return a frame for raw TCP or a binary WebSocket.

    `id`: the message id, which needs the longer header; 0 for none.
    """
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
    """Return a frame for a text WebSocket: a JSON array of one object, in UTF-8.

    `body`: JSON text (see json_body), inserted byte for byte; an empty body becomes `{}`.
    """
    if id:
        # A string: JavaScript's numbers are exact only up to 2**53.
        return _TEXT_WITH_ID % (ver, op, seq, id, body or b"{}")
    return _TEXT % (ver, op, seq, body or b"{}")


def encode_room_binary(
    op: int,
    body: bytes,
    id: int,  # noqa: A002
    room: str,
    offset: int,
    *,
    sender: str = "",
) -> bytes:
    """Return a message with its room's name, for raw TCP or a binary WebSocket.

    `id`: the message id, 0 for none. `offset`: that in the room's stream, 0 for none.
    `sender`: the key of the client that has published it; "" for none.
    """
    name = room.encode()
    names = name
    if sender:
        key = sender.encode()
        names += NAME_LENGTH.pack(len(key)) + key
    header_size = HEADER_ROOM_SIZE + len(names)
    header = HEADER_ROOM.pack(header_size + len(body), header_size, 2, op, 0, id, offset, len(name))
    return header + names + body


def encode_room_text(
    op: int,
    body: bytes,
    id: int,  # noqa: A002
    room: str,
    offset: int,
    *,
    sender: str = "",
) -> bytes:
    """Return a message with its room's name, for a text WebSocket. See `encode_room_binary`."""
    name = _write_json(room).encode()
    place = b',"offset":%d' % offset if offset else b""
    key = b',"from":%b' % _write_json(sender).encode() if sender else b""
    return _TEXT_OF_ROOM % (op, id, name, place, key, body or b"{}")


def encode_event(frame: bytes, name: bytes = b"", id: bytes = b"") -> bytes:  # noqa: A002
    """Return a frame of `encode_text` or `encode_room_text` as an event of a stream of events.

    `name`: the event's type; b"" for the default, `message`. `id`: what the client sends back as
    its Last-Event-ID; b"" to leave that as it is.
    """
    # Line ends may stand between the tokens of JSON only, where a space means the same. In an
    # event they would end the line of its data.
    data = frame[1:-1].replace(b"\r", b" ").replace(b"\n", b" ")
    head = b"id: %b\n" % id if id else b""
    if name:
        head += b"event: %b\n" % name
    return b"%bdata: %b\n\n" % (head, data)


def compact_json(value: object) -> bytes:
    """Return JSON without white space, in UTF-8. Raises what the encoder raises."""
    return _write_compact(value).encode()


def json_body(body: bytes, is_json: bool) -> bytes:
    """Return `body` as JSON for a text frame: unchanged if `is_json`, else a JSON string.

    Bytes that are not UTF-8 become U+FFFD in that string.
    """
    if is_json:
        return body
    return _write_json(body.decode(errors="replace")).encode()


def encode_raw(frames: list[bytes]) -> bytes:
    """Return a batch for a binary WebSocket: one RAW frame around frames of encode_binary."""
    return encode_binary(Op.RAW, 0, b"".join(frames))


def encode_text_batch(objects: list[bytes]) -> bytes:
    """Return a batch for a text WebSocket: the results of encode_text as one array."""
    # Cutting off the brackets needs no parsing; this runs once a batch and kind.
    return b"[%b]" % b",".join([text[1:-1] for text in objects])
