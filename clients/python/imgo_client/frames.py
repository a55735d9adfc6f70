"""Codec of frames: bytes and text to frames and back, without I/O.

The server's page "The wire protocol" describes the formats.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import Any, NamedTuple, NoReturn

from imgo_client.errors import FrameError, ProtocolError


class Op(IntEnum):
    """Operations that a client sends or receives. The reply to `n` is `n + 1`."""

    HEARTBEAT = 2
    SEND = 4
    MESSAGE = 5
    DISCONNECT = 6
    AUTH = 7
    AUTH_REPLY = 8
    RAW = 9  # a batch: frames inside of a frame
    CHANGE_ROOM = 12
    JOIN = 18
    LEAVE = 20
    ACK = 22
    HISTORY = 24
    PRESENCE = 26
    PRESENCE_CHANGE = 28
    GAP = 29
    RETRACTION = 30
    READ = 31
    PUBLISH = 32
    OWN = 1000  # from here on: messages with an application's own number


BAD_FRAME = 4500
FRAME_TOO_LARGE = 4502

# Package length, header length, ver, op, seq: big-endian, no padding; a message id may follow.
_HEADER = struct.Struct(">ihhii")
_HEADER_WITH_ID = struct.Struct(">ihhiiq")
# Behind the id: the offset, and the bytes of the room's name, which follows. Behind the name may be
# the bytes of the sender's key, and the key. A later server may have more in its header after that.
_HEADER_WITH_ROOM = struct.Struct(">ihhiiqqH")
_KEY_SIZE = struct.Struct(">H")
_HEADER_MAX = 2**15 - 1  # bytes: its length is an int16
_INT16 = range(-(2**15), 2**15)
_INT32 = range(-(2**31), 2**31)
_INT64_MAX = 2**63 - 1
_ID = re.compile("[0-9]{1,19}")


class Frame(NamedTuple):
    """One frame. `body`: bytes in binary, a JSON value in text. `id`: of a message; 0: none.

    `room`, `offset`: the room that a message was pushed to, and its offset in that room's stream;
    "" and 0: none. `sender`: the key of the client that has published the message; "": none.
    """

    op: int
    seq: int = 0
    body: Any = b""
    ver: int = 1
    id: int = 0
    room: str = ""
    offset: int = 0
    sender: str = ""


# Binary


def encode_binary(frame: Frame) -> bytes:
    """Return the bytes of a frame for raw TCP. Raises ValueError for numbers out of range."""
    body: bytes = frame.body
    numbers = frame.ver, frame.op, frame.seq
    try:
        if frame.room:
            name, key = frame.room.encode(), frame.sender.encode()
            names = name + _KEY_SIZE.pack(len(key)) + key if key else name
            size = _HEADER_WITH_ROOM.size + len(names)
            lengths = size + len(body), size
            place = frame.id, frame.offset, len(name)
            return _HEADER_WITH_ROOM.pack(*lengths, *numbers, *place) + names + body
        if frame.id:
            size = _HEADER_WITH_ID.size
            return _HEADER_WITH_ID.pack(size + len(body), size, *numbers, frame.id) + body
        return _HEADER.pack(_HEADER.size + len(body), _HEADER.size, *numbers) + body
    except struct.error as error:
        raise ValueError(f"no frame can carry this: {error}") from None


def encode_batch(frames: Iterable[Frame]) -> bytes:
    """Return one frame that contains several frames."""
    return encode_binary(Frame(Op.RAW, body=b"".join(map(encode_binary, frames))))


class Decoder:
    """Decoder of a stream of bytes that may be cut anywhere.

    `max_body`: bytes. A larger body is refused as soon as its length has arrived.
    """

    def __init__(self, max_body: int, *, is_batch: bool = False) -> None:
        self._max_body = max_body
        self._is_batch = is_batch  # what is in a batch holds no other
        self._data = bytearray()
        self.error: FrameError | None = None  # what ended it: nothing is found after that

    @property
    def pending(self) -> int:
        """Number of bytes of an unfinished frame."""
        return len(self._data)

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that `data` completes, and the frames of a batch instead of the batch.

        Raises `FrameError` for bytes that are not a frame. If good frames precede them, the next
        call raises it, so that no good frame is lost.
        """
        frames: list[Frame] = []
        if self.error is None:
            self._data += data
            try:
                self._scan(frames)
            except FrameError as error:
                self._data.clear()
                self.error = error
        if self.error is not None and not frames:
            raise self.error
        return frames

    def _scan(self, frames: list[Frame]) -> None:
        start = 0
        try:
            while (end := self._end_of(start)) is not None:
                _, header, ver, op, seq = _HEADER.unpack_from(self._data, start)
                rest = self._rest_of_header(start, header)
                body = bytes(self._data[start + header : end])
                start = end
                frame = Frame(op, seq, body, ver, *rest)
                frames += self._inside(frame) if op == Op.RAW else [frame]
        finally:
            del self._data[:start]

    def _rest_of_header(self, start: int, header: int) -> tuple[int, str, int, str]:
        """Return the id, the room, the offset and the sender of a message; 0 and "" for none."""
        message_id, room, offset, sender = 0, "", 0, ""
        if header >= _HEADER_WITH_ROOM.size:
            *_, message_id, offset, size = _HEADER_WITH_ROOM.unpack_from(self._data, start)
            name, end = start + _HEADER_WITH_ROOM.size, start + header
            room = self._text(name, size, end, "the room's name")
            key = name + size
            if end - key >= _KEY_SIZE.size:
                (size,) = _KEY_SIZE.unpack_from(self._data, key)
                sender = self._text(key + _KEY_SIZE.size, size, end, "the sender's key")
        elif header == _HEADER_WITH_ID.size:
            *_, message_id = _HEADER_WITH_ID.unpack_from(self._data, start)
        if message_id < 0:
            raise FrameError(BAD_FRAME, "message id is negative")
        if offset < 0:
            raise FrameError(BAD_FRAME, "offset is negative")
        return message_id, room, offset, sender

    def _text(self, start: int, size: int, end: int, part: str) -> str:
        """Return the text in the header that ends at `end`."""
        if start + size > end:
            raise FrameError(BAD_FRAME, f"{part} is longer than the header")
        try:
            return self._data[start : start + size].decode()
        except UnicodeDecodeError:
            raise FrameError(BAD_FRAME, f"{part} is not UTF-8") from None

    def _end_of(self, start: int) -> int | None:
        """Return the end of the frame that begins at `start`; None if it is incomplete."""
        have = len(self._data) - start
        if have >= 4:
            length = int.from_bytes(self._data[start : start + 4], "big", signed=True)
            if length < _HEADER.size:
                raise FrameError(BAD_FRAME, "package length is smaller than the header")
            if length > _HEADER_MAX + self._max_body:
                raise FrameError(FRAME_TOO_LARGE, "frame too large")
        if have < 6:
            return None
        header = int.from_bytes(self._data[start + 4 : start + 6], "big", signed=True)
        is_known = header in (_HEADER.size, _HEADER_WITH_ID.size)
        if not is_known and header < _HEADER_WITH_ROOM.size:
            raise FrameError(BAD_FRAME, "header length must be 16, 24, or 34 and more")
        if length < header:
            raise FrameError(BAD_FRAME, "package length is smaller than the header")
        if length - header > self._max_body:
            raise FrameError(FRAME_TOO_LARGE, "frame too large")
        return start + length if have >= length else None

    def _inside(self, batch: Frame) -> list[Frame]:
        if self._is_batch:
            raise FrameError(BAD_FRAME, "a batch in a batch")
        inner = Decoder(self._max_body, is_batch=True)
        frames = inner.feed(batch.body)
        if inner.error is not None:
            raise inner.error
        if inner.pending:
            raise FrameError(BAD_FRAME, "a batch must hold whole frames")
        return frames


def value_of(body: bytes) -> Any:
    """Return the value of a binary body: the JSON value if it is JSON, else text, else the bytes.

    An empty body is `{}`, as in text frames.
    """
    if not body:
        return {}
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return body
    try:
        return parse_json(text)
    except ValueError:
        return text


# Text


def encode_text(frame: Frame) -> str:
    """Return a client's text frame: a JSON object with a JSON value as its body. Raises like
    `to_json`.
    """
    members = {"ver": frame.ver, "op": int(frame.op), "seq": frame.seq, "body": frame.body}
    return to_json(members)


def decode_text(text: str | bytes) -> list[Frame]:
    """Return the frames of a server's text message, a JSON array of objects. Raises
    `ProtocolError`.
    """
    try:
        frames = parse_json(text if isinstance(text, str) else text.decode())
    except ValueError:
        frames = None
    if not isinstance(frames, list):
        raise ProtocolError("the server sent no list of frames")
    return [_frame(members) for members in frames]


def decode_event(text: str) -> Frame:
    """Return the frame of a Server-Sent Event, a JSON object. Raises `ProtocolError`."""
    try:
        members = parse_json(text)
    except ValueError:
        members = None
    return _frame(members)


def _frame(members: Any) -> Frame:
    if not isinstance(members, dict):
        raise ProtocolError("the server sent what is no frame")
    message_id = members.get("id", "0")
    if not isinstance(message_id, str) or not _ID.fullmatch(message_id):
        raise ProtocolError("a message id must be a string of digits")
    return Frame(
        _integer(members.get("op"), _INT32, "op"),
        _integer(members.get("seq", 0), _INT32, "seq"),
        members.get("body"),
        _integer(members.get("ver", 1), _INT16, "ver"),
        _integer(int(message_id), range(_INT64_MAX + 1), "id"),
        _text(members.get("room", ""), "room"),
        _integer(members.get("offset", 0), range(_INT64_MAX + 1), "offset"),
        _text(members.get("from", ""), "sender"),
    )


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise ProtocolError(f"the {name} of a frame must be a string")
    return value


def _integer(value: object, allowed: range, name: str) -> int:
    # Not isinstance: true is an int to Python, and not to JSON.
    if type(value) is not int or value not in allowed:
        raise ProtocolError(f"the {name} of a frame is not what it may be")
    return value


# JSON


def to_json(value: Any) -> str:
    """Return compact JSON. Raises TypeError or ValueError for a value that JSON cannot express."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair: only its escape can be sent
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    except RecursionError:
        raise ValueError("the value is nested too deeply") from None
    return text


def size_of(value: Any) -> int:
    """Return the bytes of the JSON of a value. Raises like `to_json`."""
    return len(to_json(value).encode())


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text. Raises ValueError, also for a text that is nested too
    deeply.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except json.JSONDecodeError:
        raise
    except ValueError:
        # JSON has no largest number; Python reads no integer of more than 4,300 digits.
        return json.loads(text, parse_constant=_refuse_constant, parse_int=_any_integer)


def _any_integer(text: str) -> int | float:
    return int(text) if len(text) < 1_000 else float(text)


def _refuse_constant(name: str) -> NoReturn:
    """Raise for NaN and Infinity, which Python's parser accepts although they are not JSON."""
    raise ValueError(f"{name} is not JSON")
