"""docs/frames.json, read by the Python client: what it decodes, what it says, what it refuses."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgo_client.errors import FrameError, ProtocolError
from imgo_client.frames import (
    Decoder,
    Frame,
    Op,
    decode_text,
    encode_batch,
    encode_binary,
    encode_text,
    parse_json,
    to_json,
    value_of,
)
from tests.vectors import MAX, each


def frames_of(vector):
    return [
        Frame(
            frame["op"],
            frame["seq"],
            bytes.fromhex(frame["body"]),
            frame["ver"],
            int(frame.get("id", 0)),
            frame.get("room", ""),
            int(frame.get("offset", 0)),
            frame.get("from", ""),
        )
        for frame in vector["frames"]
    ]


def decoded(pieces, max_body=MAX):
    """(frames, error, unread bytes) of a stream that comes in these pieces."""
    decoder, got = Decoder(max_body), []
    for piece in (*pieces, b""):
        try:
            got += decoder.feed(piece)
        except FrameError as error:
            return got, error, 0
    return got, None, decoder.pending


def both_ways(data):
    return [decoded([data]), decoded([bytes([byte]) for byte in data])]


@each("binary")
def test_binary_frames_mean_what_the_vectors_say(vector):
    data, frames = bytes.fromhex(vector["hex"]), frames_of(vector)
    assert both_ways(data) == [(frames, None, 0)] * 2
    assert b"".join(map(encode_binary, frames)) == data


@each("binary_rooms")
def test_binary_frames_of_rooms_mean_what_the_vectors_say(vector):
    data, frames = bytes.fromhex(vector["hex"]), frames_of(vector)
    assert both_ways(data) == [(frames, None, 0)] * 2
    assert b"".join(map(encode_binary, frames)) == data


@each("binary_rooms")
def test_a_header_that_is_longer_than_known_is_skipped(vector):
    data, frames = bytes.fromhex(vector["hex"]), frames_of(vector)
    length, header = int.from_bytes(data[:4], "big"), int.from_bytes(data[4:6], "big")
    lengths = (length + 7).to_bytes(4, "big") + (header + 7).to_bytes(2, "big")
    longer = lengths + data[6:header] + b"unknown" + data[header:]
    if frames[0].sender:  # else the next bytes would be those of a key
        assert both_ways(longer + data) == [(frames * 2, None, 0)] * 2


def test_a_header_that_is_longer_than_known_may_have_an_empty_key():
    frame = Frame(Op.MESSAGE, 0, b"body", 2, 7, "r", 41)
    data = encode_binary(frame)
    longer = (len(data) + 9).to_bytes(4, "big") + (44).to_bytes(2, "big")
    longer += data[6:35] + b"\0\0unknown" + b"body"
    assert both_ways(longer) == [([frame], None, 0)] * 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ((40, "0003"), "key is longer"),
        ((42, "ff"), "key is not UTF-8"),
        ((4, "0019"), "header length"),  # 25
        ((4, "0021"), "header length"),  # 33
        ((16, "ff"), "message id is negative"),
        ((24, "ff"), "offset is negative"),
        ((32, "000b"), "name is longer"),
        ((34, "ff"), "name is not UTF-8"),
        ((0, "0000002b"), "smaller than the header"),
    ],
)
def test_a_bad_header_of_a_room_is_refused(change, reason):
    frame = Frame(Op.MESSAGE, 0, b"body", 2, 7, "chat-1", 41, "u1")
    data, (start, text) = bytearray(encode_binary(frame)), change
    data[start : start + len(text) // 2] = bytes.fromhex(text)
    got, error, _ = decoded([bytes(data)])
    assert (got, error and error.code) == ([], 4500)
    assert reason in str(error)


@each("binary_batches")
def test_the_frames_of_a_batch_come_instead_of_it(vector):
    data, frames = bytes.fromhex(vector["hex"]), frames_of(vector)
    assert both_ways(data) == [(frames, None, 0)] * 2
    assert encode_batch(frames) == data


@each("binary_incomplete")
def test_a_stream_waits_for_the_rest_of_a_frame(vector):
    data = bytes.fromhex(vector["hex"])
    assert both_ways(data) == [([], None, len(data))] * 2


@each("binary_bad")
def test_bad_binary_frames_are_refused_after_the_good_ones_before_them(vector):
    for got, error, _ in both_ways(bytes.fromhex(vector["hex"])):
        assert (got, error and error.code) == (frames_of(vector), vector["code"])


def test_a_batch_holds_whole_frames_and_no_batch():
    whole = encode_binary(Frame(Op.MESSAGE, body=b"1"))
    for inside in (whole[:-1], encode_batch([]), encode_batch([Frame(Op.MESSAGE)])):
        got, error, _ = decoded([encode_binary(Frame(Op.RAW, body=inside))])
        assert (got, error and error.code) == ([], 4500)


@each("client_text")
def test_what_the_client_says_is_what_the_vectors_say(vector):
    frame = vector["frame"]
    body = parse_json(frame["body"]) if frame["body"] else None
    said = json.loads(encode_text(Frame(frame["op"], frame["seq"], body, frame["ver"])))
    theirs = {"ver": 1, "seq": 0, "body": None, **json.loads(vector["text"])}
    assert said == {name: theirs[name] for name in ("ver", "op", "seq", "body")}


@each("server_text")
def test_the_servers_text_means_what_the_vectors_say(vector):
    expected = [
        Frame(frame["op"], frame["seq"], frame["body"], frame["ver"], int(frame.get("id", 0)))
        for frame in vector["frames"]
    ]
    assert decode_text(vector["text"]) == expected
    assert decode_text(vector["text"].encode()) == expected


@each("server_rooms")
def test_the_servers_text_of_rooms_means_what_the_vectors_say(vector):
    expected = [
        Frame(
            frame["op"],
            frame["seq"],
            frame["body"],
            frame["ver"],
            int(frame["id"]),
            frame["room"],
            frame.get("offset", 0),
            frame.get("from", ""),
        )
        for frame in vector["frames"]
    ]
    assert decode_text(vector["text"]) == expected


@each("server_text_bad")
def test_text_that_is_no_list_of_frames_is_a_protocol_error(vector):
    with pytest.raises(ProtocolError):
        decode_text(vector["text"])


@pytest.mark.parametrize(
    "member",
    [
        '"id":7',
        '"id":"-7"',
        '"id":"seven"',
        '"id":"99999999999999999999"',
        '"id":"9223372036854775808"',
        '"room":7',
        '"offset":"7"',
        '"offset":-1',
        '"seq":null',
        '"ver":true',
        '"body":NaN',
        '"body":' + "[" * 100_000,
    ],
    ids=lambda member: member[:20],
)
def test_a_bad_member_of_a_text_frame_is_a_protocol_error(member):
    with pytest.raises(ProtocolError):
        decode_text('[{"op":5,' + member + "}]")


@given(st.binary(max_size=80), st.integers(1, 80))
def test_random_bytes_are_frames_or_an_error_however_they_are_cut(data, size):
    whole = decoded([data])
    cut = decoded([data[start : start + size] for start in range(0, len(data), size)])
    assert (cut[0], str(cut[1])) == (whole[0], str(whole[1]))


@given(st.text(max_size=80))
def test_random_text_is_frames_or_a_protocol_error(text):
    try:
        frames = decode_text(text)
    except ProtocolError:
        return
    assert all(isinstance(frame, Frame) for frame in frames)


def test_a_body_in_binary_is_json_or_text_or_bytes():
    bodies = [b"", b'{"a":1}', b'"x"', b"x y", b"\xff\x00", b"null", b"[" * 100_000]
    values = [{}, {"a": 1}, "x", "x y", b"\xff\x00", None, "[" * 100_000]
    assert list(map(value_of, bodies)) == values


def test_numbers_longer_than_python_reads_are_read():
    assert value_of(b"[" + b"9" * 5_000 + b",7]") == [float("inf"), 7]


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, b"bytes"], ids=str)
def test_what_json_cannot_express_is_refused(value):
    with pytest.raises((TypeError, ValueError)):
        to_json(value)


def test_half_of_a_surrogate_pair_stays_escaped():
    assert to_json("\ud800ż") == '"\\ud800\\u017c"'


def test_a_number_that_no_frame_can_carry_is_refused():
    with pytest.raises(ValueError, match="no frame"):
        encode_binary(Frame(2**31))
