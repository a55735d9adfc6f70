"""Decoder: bytes and text from a client → frames."""

import json
from typing import Any, NoReturn

from push.wire.close_codes import CloseCode
from push.wire.frame import (
    BOTH_LENGTHS,
    HEADER,
    HEADER_SIZE,
    HEADER_V2_SIZE,
    MESSAGE_ID,
    PACKAGE_LENGTH,
    Frame,
    FrameError,
)
from push.wire.ops import Op
from push.wire.proxy_protocol import V1_START, V2_START

INT16 = range(-(2**15), 2**15)
INT32 = range(-(2**31), 2**31)

# A text message may be longer than its body. One character may be written as six (\u0041),
# and names, numbers and white space surround the body. Longer messages are refused unparsed.
TEXT_PER_BODY_BYTE = 8
TEXT_AROUND_BODY = 1024

# The first four bytes of a PROXY protocol header, as the package length that they would be.
PROXY_STARTS = (V1_START[: PACKAGE_LENGTH.size], V2_START[: PACKAGE_LENGTH.size])
UNEXPECTED_PROXY = (
    "a PROXY header, and PROXY_PROTOCOL does not name tcp, or TRUSTED_PROXIES not its sender"
)


class Decoder:
    """Incremental decoder of a raw TCP stream; chunks may end anywhere in a frame.

    Each session has one, so an idle decoder holds no buffer.
    """

    __slots__ = ("_buffer", "_bytes_needed", "_limits", "_refusal")

    def __init__(self, max_body: int) -> None:
        self._limits = (max_body, 0)  # bytes of a body, and of that of op 7 if that is more
        self._buffer: bytearray | None = None
        # Bytes that the buffer must hold before the next scan. Without this, a frame that
        # arrives byte by byte would be scanned once a byte.
        self._bytes_needed = 0
        # Not the error itself: its traceback refers to this decoder, a reference cycle.
        self._refusal: tuple[CloseCode, str] | None = None

    def limit(self, max_body: int, auth_max: int) -> None:
        """Refuse frames with longer bodies from now on.

        `max_body`: bytes. `auth_max`: bytes of the body of op 7 (AUTH), if that is more.
        """
        self._limits = (max_body, auth_max)

    @property
    def pending(self) -> int:
        """Return the number of buffered bytes of an unfinished frame.

        It never exceeds the size of a header plus the largest body of its op.
        """
        return 0 if self._buffer is None else len(self._buffer)

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that `data` completes.

        Raises FrameError as soon as the bytes received prove a frame bad. Its `frames` are the
        good frames before it; no other call returns them. Every later call raises the same
        error again: in a broken stream the start of the next frame is unknown.
        """
        if self._refusal is not None:
            raise FrameError(*self._refusal)
        if self._buffer is not None:
            self._buffer += data
            if len(self._buffer) < self._bytes_needed:
                return []
            data = bytes(self._buffer)
            self._buffer = None
        try:
            frames, end, bytes_needed = _scan(data, *self._limits)
        except FrameError as error:
            self._refusal = error.code, error.message
            raise
        if end < len(data):
            self._buffer = bytearray(data[end:])
            self._bytes_needed = bytes_needed
        return frames


def decode_binary(message: bytes, max_body: int, auth_max: int = 0) -> list[Frame]:
    """Return the frames of one binary WebSocket message: one or more, all whole.

    `max_body`, `auth_max`: as in `Decoder.limit`.

    Raises FrameError, with the good frames before the bad one in its `frames`.
    """
    frames, end, _ = _scan(message, max_body, auth_max)
    if end < len(message):
        raise FrameError(CloseCode.BAD_FRAME, "a message must hold whole frames", frames)
    if not frames:
        raise FrameError(CloseCode.BAD_FRAME, "empty message")
    return frames


def decode_text(message: str, max_body: int, auth_max: int = 0) -> Frame:
    """Return the frame of one text WebSocket message: a JSON object.

    `max_body`, `auth_max`: as in `Decoder.limit`. A token has no characters that are written as
    six, so `auth_max` allows no longer message for these.

    The frame's body is compact JSON text in UTF-8; a string keeps its quotes. An absent or
    null body is empty. Of members with the same name the last counts, as in JavaScript.

    Raises only FrameError.
    """
    if len(message) > max(TEXT_PER_BODY_BYTE * max_body, auth_max) + TEXT_AROUND_BODY:
        raise FrameError(CloseCode.FRAME_TOO_LARGE)
    try:
        members = _parse_json(message)
        content = members.get("body") if isinstance(members, dict) else None
        body = b"" if content is None else _json_bytes(content)
    except (ValueError, RecursionError):
        # ValueError: not JSON, or a number that Python refuses to read or write.
        # RecursionError: the parser and the writer both recurse.
        raise FrameError(CloseCode.BAD_FRAME, "malformed JSON") from None
    if not isinstance(members, dict):
        raise FrameError(CloseCode.BAD_FRAME, "a text frame must be a JSON object")
    if len(body) > _body_max(members.get("op"), max_body, auth_max):
        raise FrameError(CloseCode.FRAME_TOO_LARGE)
    return Frame(
        _integer(members.get("ver", 1), INT16, "ver must be an int16"),
        _integer(members.get("op"), INT32, "op must be an int32"),
        _integer(members.get("seq", 0), INT32, "seq must be an int32"),
        body,
    )


def _body_max(op: object, max_body: int, auth_max: int) -> int:
    """Return the largest body of a frame with this op, bytes."""
    return max(max_body, auth_max) if op == Op.AUTH else max_body


def _scan(data: bytes, max_body: int, auth_max: int) -> tuple[list[Frame], int, int]:
    """Return the whole frames at the start of `data`, and the rest's offset and need.

    The second value is the offset of the first unfinished frame. The third is the number of
    bytes that this frame needs before the next scan, 0 if there is none.
    """
    frames: list[Frame] = []
    start, size, longest = 0, len(data), HEADER_SIZE + max_body
    try:
        while size - start >= HEADER_SIZE:
            length, header_length, ver, op, seq = HEADER.unpack_from(data, start)
            # Nearly every frame passes this check, so it costs no function call.
            if header_length != HEADER_SIZE or not HEADER_SIZE <= length <= longest:
                _check_header(length, header_length, op, max_body, auth_max)
            end = start + length
            if end > size:
                return frames, start, length
            message_id = 0 if header_length == HEADER_SIZE else _message_id(data, start)
            body = data[start + header_length : end]
            frames.append(Frame(ver, op, seq, body, message_id))
            start = end
        needed = _bytes_needed(data, start, max_body, auth_max) if start < size else 0
        return frames, start, needed
    except FrameError as error:
        error.frames = frames
        raise


def _bytes_needed(data: bytes, start: int, max_body: int, auth_max: int) -> int:
    """Return the bytes that a frame with part of a header needs before the next scan.

    Checks the lengths received so far: a bad length is refused before its frame arrives. A length
    that only op 7 may have needs the whole header, which has the op.
    Raises FrameError.
    """
    have, longest = len(data) - start, max(max_body, auth_max)
    if have < PACKAGE_LENGTH.size:
        return PACKAGE_LENGTH.size
    (length,) = PACKAGE_LENGTH.unpack_from(data, start)
    _check_package_length(length, longest)
    if have < BOTH_LENGTHS.size:
        return BOTH_LENGTHS.size
    length, header_length = BOTH_LENGTHS.unpack_from(data, start)
    _check_lengths(length, header_length, longest)
    return HEADER_SIZE if length - header_length > max_body else int(length)


def _check_header(length: int, header_length: int, op: int, max_body: int, auth_max: int) -> None:
    """Raise FrameError unless the lengths are valid for this op.

    The lengths alone come first, as when the header arrives in parts: the reason of a refusal
    does not depend on how the bytes were cut.
    """
    _check_lengths(length, header_length, max(max_body, auth_max))
    if length - header_length > _body_max(op, max_body, auth_max):
        raise FrameError(CloseCode.FRAME_TOO_LARGE)


def _check_package_length(length: int, max_body: int) -> None:
    """Raise FrameError if this package length is invalid with either header length."""
    if length < HEADER_SIZE:
        raise FrameError(CloseCode.BAD_FRAME, "package length is smaller than the header")
    if length > HEADER_V2_SIZE + max_body:
        reason = UNEXPECTED_PROXY if PACKAGE_LENGTH.pack(length) in PROXY_STARTS else ""
        raise FrameError(CloseCode.FRAME_TOO_LARGE, reason)


def _check_lengths(length: int, header_length: int, max_body: int) -> None:
    """Raise FrameError unless both lengths are valid."""
    _check_package_length(length, max_body)
    if header_length not in (HEADER_SIZE, HEADER_V2_SIZE):
        raise FrameError(CloseCode.BAD_FRAME, "header length must be 16 or 24")
    if length < header_length:
        raise FrameError(CloseCode.BAD_FRAME, "package length is smaller than the header")
    if length - header_length > max_body:
        raise FrameError(CloseCode.FRAME_TOO_LARGE)


def _message_id(data: bytes, start: int) -> int:
    (message_id,) = MESSAGE_ID.unpack_from(data, start + HEADER_SIZE)
    if message_id < 0:
        raise FrameError(CloseCode.BAD_FRAME, "message id is negative")
    return int(message_id)


def _refuse_constant(name: str) -> NoReturn:
    """Raise ValueError for NaN and Infinity: Python's parser accepts them, JSON does not."""
    raise ValueError(name)


# Created once: json.loads and json.dumps create one for each call with options.
_parse_json = json.JSONDecoder(parse_constant=_refuse_constant).decode
# 1e999 is JSON, but parses to infinity; allow_nan=False refuses to write infinity.
# A parsed value holds no cycles, so check_circular is off.
_write_json = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
).encode
_write_ascii_json = json.JSONEncoder(
    allow_nan=False, check_circular=False, separators=(",", ":")
).encode


def _json_bytes(content: Any) -> bytes:
    """Return compact JSON in UTF-8. Raises ValueError and RecursionError."""
    try:
        return _write_json(content).encode()
    except UnicodeEncodeError:
        # A lone surrogate has no UTF-8 form, so it must stay escaped.
        return _write_ascii_json(content).encode()


def _integer(value: object, allowed: range, message: str) -> int:
    # Not isinstance: Python's True is an int, JSON's true is not.
    if type(value) is not int or value not in allowed:
        raise FrameError(CloseCode.BAD_FRAME, message)
    return value
