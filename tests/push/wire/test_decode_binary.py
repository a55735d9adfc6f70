"""A binary WebSocket message is one or more whole frames, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from push.wire import CloseCode, FrameError, decode_binary, encode_binary

from .strategies import MAX_BODY, attempt, encoded, frames, proves


@proves
@given(st.lists(frames, min_size=1, max_size=6))
def test_whole_frames_decode_to_the_same_frames(sent):
    assert decode_binary(b"".join(map(encoded, sent)), MAX_BODY) == sent


@proves
@given(
    st.binary(max_size=200) | st.lists(frames, max_size=3).map(lambda f: b"".join(map(encoded, f)))
)
def test_any_bytes_decode_or_raise_frame_error(message):
    got, error = attempt(decode_binary, message, MAX_BODY)
    if error is not None:
        assert error.code in (CloseCode.BAD_FRAME, CloseCode.FRAME_TOO_LARGE)
    else:
        assert b"".join(map(encoded, got)) == message


def test_an_empty_message_is_refused():
    with pytest.raises(FrameError) as raised:
        decode_binary(b"", MAX_BODY)
    assert raised.value.code == CloseCode.BAD_FRAME


@proves
@given(st.lists(frames, max_size=3), frames, st.data())
def test_a_frame_cut_short_is_refused_with_the_good_ones_handed_out(good, last, data):
    whole = encoded(last)
    part = whole[: data.draw(st.integers(1, len(whole) - 1))]
    with pytest.raises(FrameError) as raised:
        decode_binary(b"".join(map(encoded, good)) + part, MAX_BODY)
    assert raised.value.code == CloseCode.BAD_FRAME
    assert raised.value.frames == good


def test_a_body_over_the_limit_is_refused():
    with pytest.raises(FrameError) as raised:
        decode_binary(encode_binary(4, 1, bytes(MAX_BODY + 1)), MAX_BODY)
    assert raised.value.code == CloseCode.FRAME_TOO_LARGE
