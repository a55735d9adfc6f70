"""The raw TCP decoder: any cut of any bytes, a bound on memory, refusal on the first byte that
shows a bad frame."""

import struct
import sys
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from push.wire import CloseCode, Decoder, Frame, FrameError, Op, encode_binary

from .strategies import MAX_BODY, attempt, bytes_until_refused, cut, encoded, frames, proves

VECTOR = bytes.fromhex("00000013 0010 0001 00000007 00000001 616263")
INT32_MAX = 2**31 - 1


def header(length: int, header_length: int = 16) -> bytes:
    """The start of a frame with these lengths, and some of what they promise."""
    return struct.pack(">ihhii", length, header_length, 1, Op.AUTH, 1) + bytes(64)


def test_the_vector_of_the_protocol_page_decodes():
    assert Decoder(1024).feed(VECTOR) == [Frame(1, Op.AUTH, 1, b"abc")]


def test_a_longer_header_carries_the_message_id():
    data = bytes.fromhex("0000001a 0018 0002 00000005 00000000 0000000000000102 6869")
    assert Decoder(1024).feed(data) == [Frame(2, Op.MESSAGE, 0, b"hi", 0x102)]


@proves
@given(st.lists(frames, max_size=6), st.lists(st.integers(0), max_size=12))
def test_any_cut_of_any_frames_decodes_to_the_same_frames(sent, places):
    decoder = Decoder(MAX_BODY)
    got = []
    for piece in cut(b"".join(map(encoded, sent)), places):
        got += decoder.feed(piece)
        assert decoder.pending < 24 + MAX_BODY
    assert got == sent
    assert decoder.pending == 0


@proves
@given(st.lists(frames, min_size=1, max_size=3))
def test_a_frame_is_handed_out_on_its_last_byte(sent):
    decoder = Decoder(MAX_BODY)
    for frame in sent:
        *most, last = (bytes([byte]) for byte in encoded(frame))
        assert [decoder.feed(byte) for byte in most] == [[]] * len(most)
        assert decoder.pending == len(most)
        assert decoder.feed(last) == [frame]


# Lengths near the right ones, so that random bytes get past the first four.
near_lengths = st.builds(
    lambda length, header_length, rest: struct.pack(">ih", length, header_length) + rest,
    st.integers(-2, MAX_BODY + 30) | st.sampled_from([-(2**31), INT32_MAX]),
    st.sampled_from([16, 24]) | st.integers(-(2**15), 2**15 - 1),
    st.binary(max_size=MAX_BODY + 40),
)
any_bytes = st.lists(st.binary(max_size=100) | near_lengths | frames.map(encoded), max_size=6)


@proves
@given(any_bytes, st.lists(st.integers(0), max_size=12))
def test_any_bytes_decode_or_raise_frame_error_in_bounded_memory(parts, places):
    decoder = Decoder(MAX_BODY)
    for piece in cut(b"".join(parts), places):
        got, error = attempt(decoder.feed, piece)
        if error is not None:
            assert error.code in (CloseCode.BAD_FRAME, CloseCode.FRAME_TOO_LARGE)
            assert decoder.pending == 0
            got = error.frames
        assert decoder.pending < 24 + MAX_BODY
        assert all(len(frame.body) <= MAX_BODY and frame.id >= 0 for frame in got)


@proves
@given(any_bytes, st.lists(st.integers(0), max_size=12), st.sampled_from([0, MAX_BODY + 20]))
# Too long for its op, and a header length that no op may have.
@example([struct.pack(">ihhii", MAX_BODY + 25, 0, 1, Op.HEARTBEAT, 1)], [6], MAX_BODY + 20)
def test_the_cut_changes_neither_the_frames_nor_the_refusal(parts, places, auth_max):
    data = b"".join(parts)

    def outcome(pieces):
        decoder, got = Decoder(MAX_BODY), []
        decoder.limit(MAX_BODY, auth_max)
        for piece in pieces:
            frames, error = attempt(decoder.feed, piece)
            if error is not None:
                return [*got, *error.frames], error.code, error.message
            got += frames
        return got, decoder.pending

    assert outcome(cut(data, places)) == outcome([data])


@pytest.mark.parametrize("op", [Op.AUTH, Op.JOIN])
def test_a_token_may_be_longer_and_other_bodies_are_refused_by_their_header(op):
    decoder = Decoder(MAX_BODY)
    decoder.limit(MAX_BODY, 2 * MAX_BODY)
    data = encode_binary(op, 1, b"x" * 2 * MAX_BODY)
    if op == Op.AUTH:
        assert [frame for byte in data for frame in decoder.feed(bytes([byte]))] == [
            Frame(1, op, 1, b"x" * 2 * MAX_BODY)
        ]
        data = encode_binary(op, 1, b"x" * (2 * MAX_BODY + 1))
    count, error = bytes_until_refused(decoder.feed, data)
    assert (count, error.code) == (6 if op == Op.AUTH else 16, CloseCode.FRAME_TOO_LARGE)
    assert decoder.pending == 0


BAD, LARGE = CloseCode.BAD_FRAME, CloseCode.FRAME_TOO_LARGE


@pytest.mark.parametrize(
    ("length", "header_length", "refused_at", "code"),
    [
        pytest.param(-1, 16, 4, BAD, id="negative"),
        pytest.param(-(2**31), 16, 4, BAD, id="most negative"),
        pytest.param(0, 16, 4, BAD, id="zero"),
        pytest.param(15, 16, 4, BAD, id="smaller than any header"),
        pytest.param(INT32_MAX, 16, 4, LARGE, id="largest int32"),
        pytest.param(24 + MAX_BODY + 1, 24, 4, LARGE, id="too large for any header"),
        pytest.param(16 + MAX_BODY + 1, 16, 6, LARGE, id="too large for its header"),
        pytest.param(23, 24, 6, BAD, id="smaller than its header"),
        pytest.param(30, 0, 6, BAD, id="no header"),
        pytest.param(30, -16, 6, BAD, id="negative header"),
        pytest.param(30, 15, 6, BAD, id="header of 15"),
        pytest.param(30, 17, 6, BAD, id="header of 17"),
        pytest.param(60, 32, 6, BAD, id="header of 32"),
    ],
)
def test_a_bad_length_is_refused_on_the_byte_that_shows_it(length, header_length, refused_at, code):
    decoder = Decoder(MAX_BODY)
    count, error = bytes_until_refused(decoder.feed, header(length, header_length))
    assert (count, error.code) == (refused_at, code)
    assert decoder.pending == 0
    # The same when it all comes at once.
    with pytest.raises(FrameError) as raised:
        Decoder(MAX_BODY).feed(header(length, header_length))
    assert raised.value.code == code


@pytest.mark.parametrize("message_id", [0, 7])
def test_a_body_of_exactly_the_limit_is_taken_and_one_byte_more_is_not(message_id):
    body = bytes(MAX_BODY)
    assert Decoder(MAX_BODY).feed(encode_binary(4, 1, body, id=message_id))[0].body == body
    with pytest.raises(FrameError) as raised:
        Decoder(MAX_BODY).feed(encode_binary(4, 1, body + b"x", id=message_id))
    assert raised.value.code == CloseCode.FRAME_TOO_LARGE


def test_a_negative_message_id_is_refused():
    with pytest.raises(FrameError) as raised:
        Decoder(MAX_BODY).feed(encode_binary(5, 1, ver=2, id=-1))
    assert raised.value.code == CloseCode.BAD_FRAME


@proves
@given(st.lists(frames, min_size=1, max_size=5), st.integers(0))
@example([Frame(1, 7, 1, b"abc")], 20)
def test_good_frames_before_a_bad_one_are_handed_out(sent, place):
    data = b"".join(map(encoded, sent)) + header(-1)
    decoder = Decoder(MAX_BODY)
    got, errors = [], []
    for piece in cut(data, [place]):
        frames, error = attempt(decoder.feed, piece)
        got += frames if error is None else error.frames
        errors.append(error)
    assert got == sent
    assert errors[-1] is not None


def test_a_broken_stream_stays_broken_and_hands_frames_out_once():
    decoder = Decoder(MAX_BODY)
    with pytest.raises(FrameError) as raised:
        decoder.feed(VECTOR + header(INT32_MAX))
    assert len(raised.value.frames) == 1
    for data in (VECTOR, b"", VECTOR):
        with pytest.raises(FrameError) as again:
            decoder.feed(data)
        assert (again.value.code, again.value.message) == (
            raised.value.code,
            raised.value.message,
        )
        assert again.value.frames == ()
        assert decoder.pending == 0


def test_an_idle_decoder_holds_no_buffer():
    decoder = Decoder(MAX_BODY)
    new = sys.getsizeof(decoder)
    decoder.feed(VECTOR[:-1])
    decoder.feed(VECTOR[-1:])
    assert decoder._buffer is None
    assert sys.getsizeof(decoder) == new
    assert not hasattr(decoder, "__dict__")


def test_a_large_frame_a_byte_at_a_time_costs_linear_time():
    # Linear takes a tenth of a second; copying the buffer on each byte took minutes.
    body = bytes(2**20)
    decoder = Decoder(len(body))
    data = encode_binary(4, 1, body)
    started = time.process_time()
    got = [frame for at in range(len(data)) for frame in decoder.feed(data[at : at + 1])]
    assert time.process_time() - started < 10
    assert [frame.body for frame in got] == [body]


def test_64_kib_of_tiny_frames_in_one_feed_cost_linear_time():
    # Linear takes a few milliseconds.
    count = 2**16 // 16
    data = encode_binary(Op.HEARTBEAT, 1) * count
    started = time.process_time()
    assert len(Decoder(MAX_BODY).feed(data)) == count
    assert time.process_time() - started < 1


@pytest.mark.parametrize("start", [b"PROXY TCP4 192.0.2.7 10.0.0.1 5 80", b"\r\n\r\n\0\r\nQUIT"])
@pytest.mark.parametrize("size", [0, 3])
def test_proxy_header_that_no_setting_names_is_refused_with_its_reason(start, size):
    decoder = Decoder(1024)
    assert decoder.feed(start[:size]) == []
    for data in (start[size:], VECTOR):
        with pytest.raises(FrameError, match="PROXY_PROTOCOL does not name tcp"):
            decoder.feed(data)
