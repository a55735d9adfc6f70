"""GOAWAY frames are taken out, wherever the network cuts the bytes."""

import pytest

from push.devices.providers.goaway import PAYLOAD_MAX, FrameSplitter

DATA, PING, GOAWAY = 0, 6, 7  # types of frames (RFC 9113, section 6)


def frame(kind: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, 0]) + stream.to_bytes(4) + payload


OTHERS = [frame(PING, 0, b"12345678"), frame(DATA, 3, b""), frame(DATA, 5, b"\x07" * 40)]
GOAWAYS = [
    frame(GOAWAY, 0, (2**31 - 1).to_bytes(4) + bytes(4)),
    frame(GOAWAY, 0, (7).to_bytes(4) + bytes(4) + b"because"),
]
MIXED = [OTHERS[0], GOAWAYS[0], *OTHERS[1:], GOAWAYS[1]]


@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_goaway_frames_are_taken_out_of_any_pieces(size):
    data = b"".join(MIXED)
    splitter = FrameSplitter()
    pieces = [splitter.split(data[start : start + size]) for start in range(0, len(data), size)]
    kept = b"".join(frames for frames, _ in pieces)
    assert kept == b"".join(OTHERS)
    assert [stream for _, found in pieces for stream in found] == [2**31 - 1, 7]


@pytest.mark.parametrize("payload", [b"", b"1234567"])
def test_goaway_frame_that_is_too_short_is_left_to_h2(payload):
    short = frame(GOAWAY, 0, payload)
    assert FrameSplitter().split(short) == (short, [])


def test_frame_that_is_too_long_is_not_held_back():
    head = (PAYLOAD_MAX + 1).to_bytes(3) + bytes(6)
    assert FrameSplitter().split(head) == (head, [])
