"""A text WebSocket message is one JSON object; whatever else it is, it is a FrameError."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from push.wire import CloseCode, Frame, FrameError, decode_text

from .strategies import (
    MAX_BODY,
    any_text,
    attempt,
    int16,
    int32,
    json_values,
    nearly_json_values,
    proves,
)

LIMIT = 1024  # bytes of body


def refusal(message: str, max_body: int = LIMIT) -> CloseCode:
    with pytest.raises(FrameError) as raised:
        decode_text(message, max_body)
    return raised.value.code


def test_the_example_of_the_protocol_page_decodes():
    message = '{"ver":1,"op":7,"seq":1,"body":"abc"}'
    assert decode_text(message, LIMIT) == Frame(1, 7, 1, b'"abc"')


def test_ver_and_seq_and_body_have_defaults():
    assert decode_text('{"op":2}', LIMIT) == Frame(1, 2, 0, b"", 0)


def test_a_null_body_is_empty():
    assert decode_text('{"op":2,"body":null}', LIMIT).body == b""


def test_unknown_members_are_ignored_and_id_is_one():
    assert decode_text('{"op":2,"id":"5","x":[1]}', LIMIT) == Frame(1, 2, 0, b"", 0)


def test_the_last_of_two_members_with_one_name_counts():
    assert decode_text('{"op":2,"op":7,"body":1,"body":2}', LIMIT) == Frame(1, 7, 0, b"2")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{ "token" : "abc", "rooms" : [ "a", "b" ] }', '{"token":"abc","rooms":["a","b"]}'),
        ('""', '""'),
        ("{}", "{}"),
        ("0", "0"),
        ("false", "false"),
        ("1.5", "1.5"),
        ('"\\u00e9\\n"', '"é\\n"'),
        ('"\\ud83d\\ude00"', '"😀"'),
    ],
)
def test_a_body_is_its_compact_json_text(body, expected):
    assert decode_text(f'{{"op":4,"body":{body}}}', LIMIT).body == expected.encode()


@pytest.mark.parametrize("body", [r'"\ud800"', r'"é\udfff"', '"\ud800"', r'{"\ud800":1}'])
def test_a_lone_surrogate_stays_escaped(body):
    got = decode_text(f'{{"op":4,"body":{body}}}', LIMIT).body
    assert got.isascii()
    assert json.loads(got) == json.loads(body)


@proves
@given(int16, int32, int32, json_values)
def test_what_json_can_say_comes_through(ver, op, seq, content):
    message = json.dumps({"ver": ver, "op": op, "seq": seq, "body": content})
    frame = decode_text(message, 10_000)
    assert frame[:3] == (ver, op, seq)
    expected = json.loads(message)["body"]
    assert (json.loads(frame.body) if frame.body else None) == expected


@pytest.mark.parametrize("name", ["ver", "op", "seq"])
@pytest.mark.parametrize(
    "value", ["true", "false", "null", "1.0", "1e0", '"1"', '""', "[]", "[1]", "{}", "1e999", "NaN"]
)
def test_a_number_of_the_wrong_type_is_refused(name, value):
    members = {"ver": "1", "op": "7", "seq": "1"} | {name: value}
    message = "{" + ",".join(f'"{key}":{text}' for key, text in members.items()) + "}"
    assert refusal(message) == CloseCode.BAD_FRAME


@pytest.mark.parametrize(("name", "bits"), [("ver", 16), ("op", 32), ("seq", 32)])
def test_a_number_is_taken_up_to_its_limits_and_not_past_them(name, bits):
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    for value in (low, high):
        assert getattr(decode_text(json.dumps({"op": 7, name: value}), LIMIT), name) == value
    for value in (low - 1, high + 1, 10**400):
        assert refusal(json.dumps({"op": 7, name: value})) == CloseCode.BAD_FRAME


@pytest.mark.parametrize(
    "message",
    [
        pytest.param("", id="empty"),
        pytest.param(" ", id="blank"),
        pytest.param("\ufeff{}", id="byte order mark"),
        pytest.param("{", id="unfinished"),
        pytest.param('{"op":7}{"op":7}', id="two objects"),
        pytest.param('[{"op":7}]', id="array"),
        pytest.param('"op"', id="string"),
        pytest.param("7", id="number"),
        pytest.param("null", id="null"),
        pytest.param("{}", id="no op"),
        pytest.param("{'op':7}", id="single quotes"),
        pytest.param('{"op":7,}', id="trailing comma"),
        pytest.param('{"op":07}', id="leading zero"),
        pytest.param('{"op":7,"body":"\n"}', id="bare newline in a string"),
        pytest.param('{"op":7,"body":"\\x"}', id="bad escape"),
        pytest.param('{"op":7,"body":NaN}', id="NaN"),
        pytest.param('{"op":7,"body":[-Infinity]}', id="Infinity"),
        pytest.param('{"op":7,"other":NaN}', id="NaN in an unknown member"),
        pytest.param('{"op":7,"body":1e999}', id="overflow"),
        pytest.param('{"op":7,"body":[-1e999]}', id="negative overflow"),
        pytest.param('{"op":7,"body":%s}' % ("9" * 5000), id="integer of 5000 digits"),
        pytest.param('{"op":%s}' % ("9" * 5000), id="op of 5000 digits"),
    ],
)
def test_what_is_not_a_json_object_with_an_op_is_refused(message):
    assert refusal(message) == CloseCode.BAD_FRAME


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
@pytest.mark.parametrize("depth", [900, 990, 1000, 5000, 100_000])
@pytest.mark.parametrize("name", ["body", "other"])
def test_deep_nesting_decodes_or_is_refused_as_a_bad_frame(opening, closing, depth, name):
    # The depths around Python's recursion limit matter: there the parser may get through
    # and the writer not.
    content = opening * depth + "1" + closing * depth
    frame, error = attempt(decode_text, f'{{"op":7,"{name}":{content}}}', 10_000_000)
    if error is not None:
        assert error.code == CloseCode.BAD_FRAME
    else:
        assert depth <= 1000
        assert frame.body == (content.encode() if name == "body" else b"")


def test_deep_nesting_far_past_the_recursion_limit_is_refused():
    assert refusal('{"op":7,"body":' + "[" * 9000) == CloseCode.BAD_FRAME


@pytest.mark.parametrize("body", ["x" * 6, "é" * 3, '"' * 3])
def test_a_body_is_measured_in_bytes_of_its_json_text(body):
    # Six bytes and two quotes, each time.
    message = json.dumps({"op": 4, "body": body})
    assert len(decode_text(message, 8).body) == 8
    assert refusal(message, 7) == CloseCode.FRAME_TOO_LARGE


def test_a_lone_surrogate_is_measured_as_it_is_escaped():
    assert decode_text(r'{"op":4,"body":"\ud800"}', 8).body == rb'"\ud800"'
    assert refusal(r'{"op":4,"body":"\ud800"}', 7) == CloseCode.FRAME_TOO_LARGE


def test_a_body_of_escapes_fits_although_its_message_is_far_longer():
    message = '{"op":4,"body":"%s"}' % (r"\u0061" * 1022)
    assert decode_text(message, 1024).body == b'"' + b"a" * 1022 + b'"'


def test_a_message_that_is_too_long_is_refused_before_it_is_parsed():
    longest = '{"op":2}'.ljust(8 * MAX_BODY + 1024)
    assert decode_text(longest, MAX_BODY).op == 2
    assert refusal(longest + " ", MAX_BODY) == CloseCode.FRAME_TOO_LARGE
    # Not parsed: as JSON it would be malformed.
    assert refusal("{" * (8 * MAX_BODY + 1025), MAX_BODY) == CloseCode.FRAME_TOO_LARGE


def decodes_or_raises_frame_error(message: str) -> None:
    frame, error = attempt(decode_text, message, MAX_BODY)
    if error is not None:
        assert error.code in (CloseCode.BAD_FRAME, CloseCode.FRAME_TOO_LARGE)
        assert error.frames == ()
    else:
        assert len(frame.body) <= MAX_BODY
        assert frame.id == 0
        assert not frame.body or json.dumps(json.loads(frame.body), allow_nan=False)


@proves
@given(any_text | st.text('{}[]":,\\u0123456789eE+-.opverseqbodynultrfasNI ', max_size=60))
def test_any_text_decodes_or_raises_frame_error(message):
    decodes_or_raises_frame_error(message)


names = st.sampled_from(["ver", "op", "seq", "body"]) | any_text


@proves
@given(nearly_json_values | st.dictionaries(names, nearly_json_values, max_size=6), st.booleans())
def test_any_json_decodes_or_raises_frame_error(content, ensure_ascii):
    decodes_or_raises_frame_error(json.dumps(content, ensure_ascii=ensure_ascii))


def test_no_refusal_repeats_what_the_peer_sent_or_outgrows_a_close_frame():
    for message in ('{"op":"secret"}', "secret", '["secret"]', '{"op":7,"body":"secret"'):
        with pytest.raises(FrameError) as raised:
            decode_text(message, LIMIT)
        assert "secret" not in raised.value.message
        assert raised.value.message == str(raised.value)
        assert 0 < len(raised.value.message.encode()) <= 123
        assert raised.value.__cause__ is None
