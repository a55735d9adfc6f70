"""GOAWAY frames are taken out, wherever the network cuts the bytes."""

import pytest
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, PingFrame

from push.devices.providers.goaway import PAYLOAD_MAX, FrameSplitter

OTHERS: list[Frame] = [PingFrame(0, b"12345678"), DataFrame(3, b""), DataFrame(5, b"\x07" * 40)]
GOAWAYS: list[Frame] = [
    GoAwayFrame(0, last_stream_id=2**31 - 1),
    GoAwayFrame(0, last_stream_id=7, additional_data=b"because"),
]
MIXED = [OTHERS[0], GOAWAYS[0], *OTHERS[1:], GOAWAYS[1]]


@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_goaway_frames_are_taken_out_of_any_pieces(size):
    data = b"".join(frame.serialize() for frame in MIXED)
    splitter = FrameSplitter()
    pieces = [splitter.split(data[start : start + size]) for start in range(0, len(data), size)]
    kept = b"".join(frames for frames, _ in pieces)
    assert kept == b"".join(frame.serialize() for frame in OTHERS)
    assert [stream for _, found in pieces for stream in found] == [2**31 - 1, 7]


@pytest.mark.parametrize("payload", [b"", b"1234567"])
def test_goaway_frame_that_is_too_short_is_left_to_h2(payload):
    frame = len(payload).to_bytes(3) + bytes([7, 0, 0, 0, 0, 0]) + payload
    assert FrameSplitter().split(frame) == (frame, [])


def test_frame_that_is_too_long_is_not_held_back():
    head = (PAYLOAD_MAX + 1).to_bytes(3) + bytes(6)
    assert FrameSplitter().split(head) == (head, [])
