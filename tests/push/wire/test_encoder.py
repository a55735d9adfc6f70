"""What is encoded is what the protocol page shows, and what the decoder reads."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from push.wire import (
    CloseCode,
    Frame,
    Op,
    decode_binary,
    decode_text,
    disconnect_body,
    encode_binary,
    encode_raw,
    encode_text,
    encode_text_batch,
    json_body,
)

from .strategies import MAX_BODY, encoded, frames, ids, int16, int32, json_values, proves


def test_the_vector_of_the_protocol_page_encodes():
    assert encode_binary(Op.AUTH, 1, b"abc").hex() == "00000013001000010000000700000001616263"


def test_an_id_gives_the_longer_header():
    expected = bytes.fromhex("0000001a 0018 0002 00000005 00000000 0000000000000102 6869")
    assert encode_binary(Op.MESSAGE, 0, b"hi", ver=2, id=0x102) == expected


@proves
@given(frames)
def test_a_binary_frame_comes_back_the_same(frame):
    assert decode_binary(encoded(frame), MAX_BODY) == [frame]


def test_the_text_example_of_the_protocol_page_encodes():
    assert encode_text(Op.AUTH_REPLY, 1) == b'[{"ver":1,"op":8,"seq":1,"body":{}}]'


def test_an_id_is_a_string_after_seq():
    assert encode_text(Op.MESSAGE, 0, b'"hi"', ver=2, id=2**63 - 1) == (
        b'[{"ver":2,"op":5,"seq":0,"id":"9223372036854775807","body":"hi"}]'
    )


@pytest.mark.parametrize("message_id", [0, 9])
def test_a_json_body_goes_in_byte_for_byte(message_id):
    # Spaces, repeated names, a number no float holds, a percent sign: all kept.
    body = b' {"a": 1.000, "a":12345678901234567890123, "%d": "\xc3\xa9"} '
    assert body in encode_text(5, 0, body, id=message_id)


@proves
@given(int16, int32, int32, json_values, ids)
def test_a_text_frame_comes_back_the_same(ver, op, seq, content, message_id):
    body = json.dumps(content).encode()
    text = encode_text(op, seq, body, ver, message_id)
    (member,) = json.loads(text)
    expected = {"ver": ver, "op": op, "seq": seq, "body": json.loads(body)}
    assert member == (expected | {"id": str(message_id)} if message_id else expected)
    assert decode_text(text[1:-1].decode(), 10_000)[:3] == (ver, op, seq)


def test_json_body_leaves_json_alone():
    assert json_body(b'{"a": 1}', is_json=True) == b'{"a": 1}'


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"hello", b'"hello"'),
        (b'say "hi"\n', rb'"say \"hi\"\n"'),
        ("é😀".encode(), '"é😀"'.encode()),
        (b"a\xffb", '"a\ufffdb"'.encode()),
        (b"\xed\xa0\x80", '"\ufffd\ufffd\ufffd"'.encode()),
        (b"", b'""'),
    ],
)
def test_json_body_makes_a_string_of_what_is_not_json(body, expected):
    assert json_body(body, is_json=False) == expected


@proves
@given(st.binary(max_size=100))
def test_json_body_makes_json_of_any_bytes(body):
    (member,) = json.loads(encode_text(5, 0, json_body(body, is_json=False)))
    assert member["body"] == body.decode(errors="replace")


@proves
@given(st.lists(frames, min_size=1, max_size=6))
def test_a_raw_frame_holds_the_frames_of_its_batch(sent):
    (outer,) = decode_binary(encode_raw([encoded(frame) for frame in sent]), 10_000)
    assert outer[:3] == (1, Op.RAW, 0)
    assert decode_binary(outer.body, MAX_BODY) == sent


@proves
@given(st.lists(st.tuples(int32, int32, ids), max_size=6))
def test_a_text_batch_is_one_array_of_the_same_objects(sent):
    texts = [encode_text(op, seq, b'"],["', id=message_id) for op, seq, message_id in sent]
    assert json.loads(encode_text_batch(texts)) == [json.loads(text)[0] for text in texts]


def test_a_text_batch_of_one_is_the_frame_itself():
    text = encode_text(5, 0, b'"hi"')
    assert encode_text_batch([text]) == text


def test_a_disconnect_frame_reads_the_same_in_both_kinds():
    body = disconnect_body(CloseCode.UNAUTHORIZED)
    assert decode_binary(encode_binary(Op.DISCONNECT, 0, body), 1024) == [Frame(1, 6, 0, body)]
    assert json.loads(encode_text(Op.DISCONNECT, 0, body))[0]["body"] == {
        "code": 4401,
        "reason": "authentication failed",
        "reconnect": True,
    }
