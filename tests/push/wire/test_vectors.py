"""docs/frames.json, which the clients' tests read too: bytes and the fields they stand for."""

import json

import pytest

from push.wire import (
    Decoder,
    Frame,
    FrameError,
    Op,
    compact_json,
    decode_binary,
    decode_text,
    encode_binary,
    encode_raw,
    encode_room_binary,
    encode_room_text,
    encode_text,
    encode_text_batch,
)
from tests.vectors import MAX, VECTORS, each


def frames_of(vector):
    return [
        Frame(
            frame["ver"],
            frame["op"],
            frame["seq"],
            bytes.fromhex(frame["body"]),
            int(frame.get("id", 0)),
        )
        for frame in vector["frames"]
    ]


def encoded(frame):
    return encode_binary(frame.op, frame.seq, frame.body, frame.ver, frame.id)


def bytewise(data, max_body=MAX):
    """(frames, error, unread bytes) of a stream that comes a byte at a time."""
    decoder, got = Decoder(max_body), []
    for byte in data:
        try:
            got += decoder.feed(bytes([byte]))
        except FrameError as error:
            return got, error, 0
    return got, None, decoder.pending


def test_every_part_has_vectors_and_no_name_stands_twice():
    parts = [part for part in VECTORS.values() if isinstance(part, list)]
    assert len(parts) == 10
    for part in parts:
        names = [vector["name"] for vector in part]
        assert names
        assert len(set(names)) == len(names)


def test_every_operation_has_a_vector():
    parts = (VECTORS["binary"], VECTORS["binary_batches"])
    vectors = [vector for part in parts for vector in part]
    seen = {frame.op for vector in vectors for frame in frames_of(vector)}
    assert set(Op) - seen == {Op.RAW}  # around the frames of `binary_batches`


@each("binary")
def test_binary_frames_mean_what_the_vectors_say(vector):
    data, frames = bytes.fromhex(vector["hex"]), frames_of(vector)
    assert decode_binary(data, MAX) == frames
    assert bytewise(data) == (frames, None, 0)
    assert b"".join(map(encoded, frames)) == data


@each("binary_batches")
def test_a_batch_is_one_frame_around_the_frames(vector):
    data, frames = bytes.fromhex(vector["hex"]), frames_of(vector)
    assert encode_raw(list(map(encoded, frames))) == data
    (outer,) = decode_binary(data, MAX)
    assert outer.op == Op.RAW
    assert decode_binary(outer.body, MAX) == frames


@each("binary_rooms")
def test_a_message_with_its_room_is_what_the_vectors_say(vector):
    texts = []
    for frame in vector["frames"]:
        body, place = bytes.fromhex(frame["body"]), (frame["room"], int(frame["offset"]))
        sender = frame.get("from", "")
        data = encode_room_binary(frame["op"], body, int(frame["id"]), *place, sender=sender)
        texts.append(data.hex())
    assert "".join(texts) == vector["hex"]


@each("server_rooms")
def test_a_text_message_with_its_room_is_what_the_vectors_say(vector):
    assert json.loads(vector["text"]) == vector["frames"]
    texts = []
    for frame in vector["frames"]:
        body, place = compact_json(frame["body"]), (frame["room"], frame.get("offset", 0))
        sender = frame.get("from", "")
        texts.append(encode_room_text(frame["op"], body, int(frame["id"]), *place, sender=sender))
    assert encode_text_batch(texts).decode() == vector["text"]


@each("binary_incomplete")
def test_a_stream_waits_for_the_rest_of_a_frame_and_a_message_must_have_it(vector):
    data = bytes.fromhex(vector["hex"])
    assert bytewise(data) == ([], None, len(data))
    with pytest.raises(FrameError) as caught:
        decode_binary(data, MAX)
    assert caught.value.code == 4500


@each("binary_bad")
def test_bad_binary_frames_are_refused_with_the_code_of_the_vectors(vector):
    data, frames = bytes.fromhex(vector["hex"]), frames_of(vector)
    with pytest.raises(FrameError) as caught:
        decode_binary(data, MAX)
    assert (caught.value.code, list(caught.value.frames)) == (vector["code"], frames)
    got, error, _ = bytewise(data)
    assert (got, error and error.code) == (frames, vector["code"])


@each("client_text")
def test_a_clients_text_means_what_the_vectors_say(vector):
    frame = vector["frame"]
    expected = Frame(frame["ver"], frame["op"], frame["seq"], frame["body"].encode())
    assert decode_text(vector["text"], MAX) == expected


@each("client_text_bad")
def test_bad_text_is_refused_with_the_code_of_the_vectors(vector):
    with pytest.raises(FrameError) as caught:
        decode_text(vector["text"], MAX)
    assert caught.value.code == vector["code"]


@each("server_text")
def test_the_servers_text_is_what_the_vectors_say(vector):
    assert json.loads(vector["text"]) == vector["frames"]
    texts = []
    for frame in vector["frames"]:
        body = json.dumps(frame["body"], separators=(",", ":")).encode()
        message_id = int(frame.get("id", 0))
        texts.append(encode_text(frame["op"], frame["seq"], body, frame["ver"], message_id))
    assert encode_text_batch(texts).decode() == vector["text"]
