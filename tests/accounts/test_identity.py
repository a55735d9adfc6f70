"""From an auth body to an identity: parsing, stored tokens, Django's session, rooms."""

import asyncio
import json
from datetime import timedelta

import pytest
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from hypothesis import example, given, settings
from hypothesis import strategies as st

from accounts.identity import (
    REFUSED,
    AuthBody,
    Facts,
    Identity,
    authenticate,
    authorize_room,
    parse_auth_body,
)
from accounts.models import Token, digest
from imgo_site.errors import BadRequest, NotAuthenticated
from tests import in_thread

TCP = Facts("tcp", "192.0.2.1")

# Parsing


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
        (b"1" * 4096, "1" * 4096),
        (b"[" * 4096, "[" * 4096),
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
def test_what_goims_client_may_not_say_is_refused(wrong):
    with pytest.raises(BadRequest):
        parse(wrong)


def test_the_one_room_is_the_one_that_op_12_leaves():
    assert parse({"rooms": ["a"]}).change_room == "a"
    assert parse({"rooms": ["a", "b"]}).change_room == ""
    assert parse({"rooms": ["a"], "room_id": "b"}).change_room == ""
    assert parse({}).change_room == ""


def test_empty_and_null_are_as_if_absent():
    absent = {"token": None, "rooms": None, "since": None, "platform": None, "key": None}
    assert parse(absent) == AuthBody()
    assert parse({"room_id": "", "mid": None}) == AuthBody(is_goim=True)


@pytest.mark.parametrize("ack", [1, "true", [], None])
def test_ack_is_true_or_nothing(ack):
    assert parse({"ack": ack}).ack is False


def test_long_words_about_the_client_are_cut():
    body = parse({"platform": "p" * 500, "device": "d" * 500})
    assert (len(body.platform), len(body.device)) == (50, 100)


@pytest.mark.parametrize(
    "body",
    [
        b"\xff",
        b"x" * 4097,
        b'"' + b"x" * 4097 + b'"',
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
    ],
)
def test_a_bad_auth_body_is_a_bad_request(body):
    with pytest.raises(BadRequest):
        parse_auth_body(body)


def test_a_session_may_not_ask_for_too_many_rooms(imgo):
    imgo(MAX_ROOMS_PER_SESSION=2)
    assert len(parse({"rooms": ["a", "b"]}).rooms) == 2
    with pytest.raises(BadRequest, match="2 rooms at most"):
        parse({"rooms": ["a", "b"], "room_id": "c"})


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


@settings(deadline=None, max_examples=300)
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b"1" * 100_000)
@example(b'{"since": 1' + b"0" * 5000 + b"}")
@given(st.binary() | (objects | json_values).map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_an_auth_body_or_a_bad_request(data):
    try:
        body = parse_auth_body(data)
    except BadRequest:
        return
    assert isinstance(body.token, str)
    assert all(isinstance(room, str) and room for room in body.rooms)
    assert 0 <= body.since < 2**63


# Stored tokens


async def identity(token: str, facts: Facts = TCP) -> Identity:
    return await authenticate(AuthBody(token=token), facts)


async def test_a_stored_token_is_its_keys(transactional_db):
    await in_thread(Token.objects.issue, "u1", token="t", rooms=["a"])
    proof = bytes.fromhex(digest("t")[:32])
    assert await identity("t") == Identity("u1", ("a",), None, "token", proof)


async def test_a_stored_token_without_rooms_leaves_them_to_the_setting(transactional_db):
    await in_thread(Token.objects.issue, "u1", token="t")
    assert (await identity("t")).rooms is None
    await in_thread(Token.objects.issue, "u1", token="t", rooms=[])
    assert (await identity("t")).rooms == ()


async def test_a_session_ends_with_its_token(transactional_db):
    row, _ = await in_thread(Token.objects.issue, "u1", token="t", expires_in=60)
    # By the database's clock, told in this process's time.
    expected = pytest.approx(row.expires_at.timestamp(), abs=20)
    assert (await identity("t")).expires_at == expected


async def test_wrong_expired_and_replaced_tokens_get_the_same_answer(transactional_db):
    await in_thread(Token.objects.issue, "u1", token="replaced")
    await in_thread(Token.objects.issue, "u1", token="right")
    await in_thread(Token.objects.issue, "u2", token="expired", expires_in=-1)
    for token in ("wrong", "replaced", "expired", "right ", "Right", "\ud800", "a\0b", "a.b.c"):
        with pytest.raises(NotAuthenticated) as refusal:
            await identity(token)
        assert refusal.value.message == REFUSED
    assert (await identity("right")).key == "u1"


async def test_a_storm_of_tokens_is_one_query(transactional_db, thread_queries):
    def issue_all() -> None:
        for n in range(30):
            Token.objects.issue(f"u{n}", token=f"t{n}")

    await in_thread(issue_all)
    queries = await thread_queries()
    found = await asyncio.gather(*(identity(f"t{n}") for n in range(30)))
    assert [one.key for one in found] == [f"u{n}" for n in range(30)]
    assert len(queries) == 1


async def test_no_token_is_nobody():
    with pytest.raises(NotAuthenticated, match="No token was sent"):
        await identity("")


# Django's session


async def sign_in(user: User) -> str:
    """The Cookie header of a browser in which `user` has signed in."""

    def session_key() -> str:
        client = Client()
        client.force_login(user)
        return client.cookies[django_settings.SESSION_COOKIE_NAME].value

    return f"theme=dark; {django_settings.SESSION_COOKIE_NAME}={await in_thread(session_key)}"


async def from_browser(cookie: str, **headers: str) -> Identity:
    known = {"host": "push.example", "origin": "https://push.example", "cookie": cookie}
    sent = {name: value for name, value in (known | headers).items() if value}
    return await authenticate(AuthBody(), Facts("websocket", "192.0.2.1", sent))


@pytest.fixture
async def user(transactional_db):
    return await in_thread(User.objects.create_user, "ann")


async def test_a_signed_in_user_of_our_own_page(user):
    found = await from_browser(await sign_in(user))
    assert (found.key, found.rooms, found.source) == (str(user.pk), None, "session")
    limit = timezone.now() + timedelta(seconds=django_settings.SESSION_COOKIE_AGE)
    assert abs(found.expires_at - limit.timestamp()) < 60


async def test_the_key_of_a_user_is_a_setting(user, imgo):
    imgo(SESSION_KEY="tests.accounts.test_identity.name_of")
    assert (await from_browser(await sign_in(user))).key == "ann"


def name_of(user: User) -> str:
    return user.get_username()


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "https://evil.example",
        "https://push.example.evil.example",
        "https://push.example:8443",
        "https://evil.example/push.example",
        "https://user@push.example",
        "push.example",
        "https://",
    ],
)
async def test_a_cookie_from_another_origin_is_refused(user, origin):
    cookie = await sign_in(user)
    with pytest.raises(NotAuthenticated, match="own pages only"):
        await from_browser(cookie, origin=origin)


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "https://\u2100.example"])
async def test_an_origin_that_is_no_url_is_refused(user, origin):
    cookie = await sign_in(user)
    with pytest.raises(NotAuthenticated):
        await from_browser(cookie, origin=origin)


@pytest.mark.parametrize(
    ("origin", "accepted"),
    [
        ("https://shop.example", True),
        ("https://app.wild.example", True),
        ("http://shop.example", False),
        ("https://sub.shop.example", False),
        ("https://notwild.example", False),
    ],
)
async def test_trusted_origins_are_our_own(user, settings, origin, accepted):
    settings.CSRF_TRUSTED_ORIGINS = ["https://shop.example", "https://*.wild.example"]
    cookie = await sign_in(user)
    if accepted:
        assert (await from_browser(cookie, origin=origin)).key == str(user.pk)
    else:
        with pytest.raises(NotAuthenticated):
            await from_browser(cookie, origin=origin)


async def test_a_user_who_signed_out_is_nobody(user):
    cookie = await sign_in(user)

    def sign_out() -> None:
        name, _, value = cookie.partition("; ")[2].partition("=")
        client = Client()
        client.cookies[name] = value
        client.logout()

    await in_thread(sign_out)
    with pytest.raises(NotAuthenticated, match="nobody is signed in"):
        await from_browser(cookie)


async def test_a_user_who_was_disabled_is_nobody(user):
    cookie = await sign_in(user)
    user.is_active = False
    await in_thread(user.save)
    with pytest.raises(NotAuthenticated, match="nobody is signed in"):
        await from_browser(cookie)


async def test_a_user_with_a_new_password_has_to_sign_in_again(user):
    cookie = await sign_in(user)
    user.set_password("new")
    await in_thread(user.save)
    with pytest.raises(NotAuthenticated, match="nobody is signed in"):
        await from_browser(cookie)


@pytest.mark.parametrize(
    "cookie",
    [
        "sessionid=wrong-wrong-wrong",
        "sessionid=",
        "theme=dark",
        "sessionid",
        ";;=;",
        "a[b]=1; sessionid=x",
        'sessionid="' + "\\000" * 10 + '"',
        "sessionid=" + "x" * 5000,
    ],
)
async def test_a_cookie_that_is_no_session_is_nobody(transactional_db, cookie):
    with pytest.raises(NotAuthenticated, match="nobody is signed in"):
        await from_browser(cookie)


async def test_the_cookie_counts_in_browsers_alone(user):
    headers = {"host": "a", "origin": "http://a", "cookie": await sign_in(user)}
    with pytest.raises(NotAuthenticated):
        await authenticate(AuthBody(), Facts("tcp", "192.0.2.1", headers))


async def test_the_cookie_can_be_turned_off(user, imgo):
    imgo(SESSION_AUTH=False)
    cookie = await sign_in(user)
    with pytest.raises(NotAuthenticated):
        await from_browser(cookie)


async def test_a_wrong_token_is_not_saved_by_the_cookie(user):
    cookie = await sign_in(user)
    headers = {"host": "a", "origin": "http://a", "cookie": cookie}
    with pytest.raises(NotAuthenticated):
        await authenticate(AuthBody(token="wrong"), Facts("websocket", "192.0.2.1", headers))


# Rooms


@pytest.mark.parametrize(
    ("patterns", "room", "allowed"),
    [
        (("a",), "a", True),
        (("a",), "A", False),
        (("a",), "ab", False),
        (("a", "b"), "b", True),
        ((), "a", False),
        (("*",), "anything at all", True),
        (("live.*",), "live.7", True),
        (("live.*",), "live.", True),
        (("live.*",), "livex7", False),
        (("*.live",), "7.live", True),
        (("a*c",), "abbc", True),
        (("a*c",), "abcd", False),
        (("[ab]+",), "ab", False),
        (("[ab]+",), "[ab]+", True),
        (("a*b*c",), "a-b-c", True),
    ],
)
async def test_an_identity_joins_the_rooms_it_names(patterns, room, allowed):
    assert await authorize_room(Identity("u1", patterns), room) is allowed


@pytest.mark.parametrize("is_open", [True, False])
async def test_who_names_no_rooms_is_up_to_the_setting(imgo, is_open):
    imgo(ROOMS_OPEN=is_open)
    assert await authorize_room(Identity("u1", None), "any") is is_open
    assert not await authorize_room(Identity("u1", ()), "any")
