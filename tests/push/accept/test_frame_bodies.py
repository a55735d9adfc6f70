"""Bodies of clients' frames as values, and values as bodies of replies."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgo_site.errors import BadRequest, NotFound
from push.accept.frame_bodies import body_value, error_body, reply_body, room_name


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": [1, null]}', {"a": [1, None]}),
        (b'"text"', "text"),
        (b"text", "text"),
        ("ä".encode(), "ä"),
        (b"\xff", b"\xff"),
        (b"", ""),
        (b"1" * 5000, "1" * 5000),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_body_is_json_or_text_or_bytes(body, value):
    assert body_value(body) == value


@given(st.binary() | st.integers(500, 3000).map(lambda n: b"[" * n))
def test_any_body_has_a_value(body):
    assert body_value(body) is not None or body.strip() == b"null"


@pytest.mark.parametrize(
    ("body", "room"),
    [
        (b"lobby", "lobby"),
        (b'"lobby"', "lobby"),
        (b"7", "7"),
        (b'"7"', "7"),
        (b"live://1000", "live://1000"),
        (b"", ""),
        (b"{}", ""),
        (b"null", ""),
        (b'""', ""),
    ],
)
def test_a_room_may_be_named_in_many_ways(body, room):
    assert room_name(body) == room


@pytest.mark.parametrize("body", [b"true", b"1.5", b"[]", b'{"a":1}', b"\xff", b'["a"]'])
def test_what_names_no_room_is_a_bad_request(body):
    with pytest.raises(BadRequest):
        room_name(body)


@given(st.binary(max_size=50))
def test_any_body_names_a_room_or_is_a_bad_request(body):
    with suppress(BadRequest):
        assert isinstance(room_name(body), str)


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (None, b"{}"),
        ({"a": 1}, b'{"a":1}'),
        ("ä", b'"\\u00e4"'),
        (b'{"a": 1}', b'{"a": 1}'),
        (b"text", b'"text"'),
        (b"\xff", '"\ufffd"'.encode()),
        (b"", b'""'),
        (0, b"0"),
        (False, b"false"),
    ],
)
def test_an_answer_is_json(answer, body):
    assert reply_body(answer) == body
    json.loads(body)


def test_an_error_says_what_was_wrong():
    value = json.loads(error_body(NotFound("gone")))
    assert value == {"error": {"code": "not_found", "message": "gone"}}
