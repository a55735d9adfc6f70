"""What an auth frame's body says: imgo's bare token, objects of ours, goim's and others'."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from accounts.auth_body import AuthBody, parse_auth_body
from tests.longer_proofs import examples


def parse(value: object) -> AuthBody:
    return parse_auth_body(json.dumps(value).encode())


@pytest.mark.parametrize(
    ("body", "token"),
    [
        (b"abc", "abc"),
        (b'"abc"', "abc"),
        (b'"a\\"b"', 'a"b'),
        (b"12345", "12345"),
        (b"1.50", "1.50"),
        (b"null", "null"),
        (b"[1]", "[1]"),
        ("ä".encode(), "ä"),
        (b"{not json", "{not json"),
        (b"1" * 8192, "1" * 8192),
        (b"[" * 8192, "[" * 8192),
        (b'"' + b"x" * 8190 + b'"', "x" * 8190),
        (b"", ""),
    ],
)
def test_anything_but_an_object_is_the_token(body, token):
    assert parse_auth_body(body) == AuthBody(token=token)


def test_an_object_says_more():
    assert parse(
        {
            "token": "t",
            "rooms": ["a", "b", "a"],
            "ack": True,
            "since": "7",
            "platform": "web",
            "device": "d",
            "something": "else",
        }
    ) == AuthBody("t", ("a", "b"), "", True, 7, "web", "d")


def test_goims_object_names_its_room():
    body = parse({"mid": 123, "token": "t", "room_id": "live://1000", "accepts": [1000]})
    told = AuthBody("t", ("live://1000",), "live://1000", accepts=(1000,), is_goim=True, mid=123)
    assert body == told


@pytest.mark.parametrize(("accepts", "expected"), [([], ()), (None, ()), ([1000, 5], (1000, 5))])
def test_goims_client_without_ops_takes_no_own_ones(accepts, expected):
    assert parse({"token": "t", "accepts": accepts}).accepts == expected
    assert parse({"token": "t"}).accepts is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"accepts": "1000"},
        {"accepts": [1.5]},
        {"accepts": [-1]},
        {"accepts": [2**31]},
        {"accepts": [True]},
        {"mid": -1},
        {"mid": "x"},
        {"mid": 2**63},
        {"key": 5},
        {"key": "\x00"},
    ],
)
def test_member_of_goims_that_cannot_be_read_is_a_mistake(wrong):
    body = parse({"token": "t", **wrong})
    assert body.mistake
    assert (body.token, body.accepts, body.mid, body.goim_key) == ("t", None, 0, "")


def test_the_one_room_is_the_one_that_op_12_leaves():
    assert parse({"rooms": ["a"]}).change_room == "a"
    assert parse({"rooms": ["a", "b"]}).change_room == ""
    assert parse({"rooms": ["a"], "room_id": "b"}).change_room == ""
    assert parse({}).change_room == ""


def test_empty_and_null_are_as_if_absent():
    names = ("token", "rooms", "since", "platform", "device", "key", "ack", "names", "renew")
    assert parse(dict.fromkeys(names)) == AuthBody()
    texts = ("token", "since", "platform", "device", "key")
    assert parse(dict.fromkeys(texts, "")) == AuthBody()
    assert parse({"room_id": "", "mid": None}) == AuthBody(is_goim=True)
    # A client of goim in Go, without any value.
    zero = {"mid": 0, "key": "", "room_id": "", "platform": "", "accepts": None}
    assert parse(zero) == AuthBody(is_goim=True, accepts=())


@pytest.mark.parametrize("name", ["ack", "names", "renew"])
def test_a_flag_is_true_false_or_null(name):
    for wrong in (1, 0, "true", "", [], {}):
        assert parse({name: wrong}).mistake == f"'{name}' must be true or false."
    said = [parse({name: value}) for value in (True, False, None)]
    assert [body.mistake for body in said] == ["", "", ""]
    assert said[1] == said[2] == AuthBody() != said[0]


def test_long_words_about_the_client_are_cut():
    body = parse({"platform": "p" * 500, "device": "d" * 500})
    assert (len(body.platform), len(body.device)) == (50, 100)


def test_what_cannot_be_shown_of_a_platform_is_a_question_mark():
    body = parse({"platform": "\ud800a\0", "device": "\n\udfff"})
    assert (body.platform, body.device) == ("?a?", "??")


@pytest.mark.parametrize(
    "body",
    [
        b"\xff",
        b'{"token": 1}',
        b'{"rooms": "a"}',
        b'{"rooms": [1]}',
        b'{"rooms": [""]}',
        b'{"rooms": ["a\\u0000"]}',
        b'{"room_id": 7}',
        b'{"since": -1}',
        b'{"since": 1.5}',
        b'{"since": NaN}',
        b'{"since": true}',
        b'{"since": 9223372036854775808}',
        b'{"platform": ["web"]}',
        b'{"device": {"a": 1}}',
        b'{"device": []}',
        b'{"platform": 0}',
        b'{"token": false}',
        b'{"rooms": ""}',
        b'{"since": []}',
        b'{"accepts": 0}',
    ],
)
def test_auth_body_that_cannot_be_read_says_what_is_wrong(body):
    found = parse_auth_body(body)
    assert found.mistake
    assert (found.raw, found.rooms, found.since) == (body, (), 0)


@pytest.mark.parametrize(
    ("body", "is_bare"),
    [(b"t", True), (b'"t"', True), (b"[1]", True), (b"\xff", True), (b"{", True), (b"{}", False)],
)
def test_auth_body_that_is_no_object_is_bare(body, is_bare):
    assert parse_auth_body(body).is_bare is is_bare


def test_a_session_may_not_ask_for_too_many_rooms(imgo):
    imgo(MAX_ROOMS_PER_SESSION=2)
    assert len(parse({"rooms": ["a", "b"]}).rooms) == 2
    body = parse({"rooms": ["a", "b"], "room_id": "c"})
    assert (body.rooms, body.mistake) == ((), "A session may be in 2 rooms at most.")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
objects = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ("token", "rooms", "room_id", "ack", "since", "platform", "device"), json_values
    ),
)


@settings(deadline=None, max_examples=examples(300))
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b"1" * 100_000)
@example(b'{"since": 1' + b"0" * 5000 + b"}")
@given(st.binary() | (objects | json_values).map(lambda value: json.dumps(value).encode()))
def test_auth_body_of_any_bytes_has_members_of_their_types(data):
    body = parse_auth_body(data)
    assert body.raw == data
    assert isinstance(body.token, str)
    assert all(isinstance(room, str) and room for room in body.rooms)
    assert 0 <= body.since < 2**63
