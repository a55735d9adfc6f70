"""Reader of frames with the room's name, for the tests' clients.

The body of such a frame is read as the JSON list (room, offset, body); an offset of 0: none.
"""

import json
import struct

from push.session.outgoing import Kind
from push.wire import Frame, Op

PLAIN, WITH_ID = 16, 24  # lengths of headers without a room


def read(kind: Kind, data: bytes) -> list[Frame]:
    """The frames in what was written for a session of this kind."""
    if kind is Kind.TEXT:
        return [_of_object(value) for value in json.loads(data)]
    frames: list[Frame] = []
    while data:
        length, header, ver, op, seq = struct.unpack_from(">ihhii", data)
        body = _body(data[:length], header)
        if op == Op.RAW:
            frames += read(kind, body)
        else:
            message_id = struct.unpack_from(">q", data, PLAIN)[0] if header > PLAIN else 0
            frames.append(Frame(ver, op, seq, body, message_id))
        data = data[length:]
    return frames


def _of_object(value: dict) -> Frame:
    body = value["body"]
    if "room" in value:
        body = [value["room"], value.get("offset", 0), body]
    message_id = int(value.get("id", 0))
    return Frame(value["ver"], value["op"], value["seq"], json.dumps(body).encode(), message_id)


def _body(frame: bytes, header: int) -> bytes:
    body = frame[header:]
    if header <= WITH_ID:
        return body
    offset, size = struct.unpack_from(">qh", frame, WITH_ID)
    room = frame[34 : 34 + size].decode()
    return json.dumps([room, offset, json.loads(body)]).encode()


class StreamDecoder:
    """The frames of a TCP stream; takes the place of `push.wire.Decoder` in a client."""

    def __init__(self, max_body: int) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that these bytes complete."""
        self._rest += data
        end = 0
        while len(self._rest) - end >= 4:
            (length,) = struct.unpack_from(">i", self._rest, end)
            if len(self._rest) - end < length:
                break
            end += length
        whole, self._rest = self._rest[:end], self._rest[end:]
        return read(Kind.TCP, whole)
