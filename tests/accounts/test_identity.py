"""From an auth body to an identity: parsing, stored tokens, Django's session, rooms."""

import asyncio
import time
from datetime import timedelta

import pytest
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from accounts.auth_body import AuthBody, parse_auth_body
from accounts.identity import (
    REFUSED,
    Facts,
    Identity,
    authenticate,
    authorize_room,
)
from accounts.models import Token, digest
from imgo_site.database_clock import DatabaseClock, Reading, boot_time
from imgo_site.errors import BadRequest, NotAuthenticated
from tests import in_thread

CLOCK = DatabaseClock()
CLOCK.take(Reading(time.time(), boot_time(), boot_time()))
TCP = Facts("tcp", "192.0.2.1", clock=CLOCK)

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
    assert (await identity("t")).expires_at == row.expires_at.timestamp()


async def test_stored_token_query_is_a_reading_of_the_databases_time(transactional_db):
    await in_thread(Token.objects.issue, "u1", token="t")
    clock, before = DatabaseClock(), time.time()
    await identity("t", Facts("tcp", clock=clock))
    assert before - 1 < clock.now() < time.time() + 1


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


async def test_stored_token_with_join_names_the_rooms_of_the_session(transactional_db):
    await in_thread(Token.objects.issue, "u1", token="t", join=["7"])
    assert (await identity("t")).join == ("7",)


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
    facts = Facts("websocket", "192.0.2.1", sent, CLOCK, "https")
    return await authenticate(AuthBody(), facts)


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
        'sessionid="' + '\\"' * 32_000 + '"',  # takes http.cookies 40 s before Python 3.11.10
    ],
)
async def test_a_cookie_that_is_no_session_is_nobody(transactional_db, cookie):
    began = time.process_time()
    with pytest.raises(NotAuthenticated, match="nobody is signed in"):
        await from_browser(cookie)
    assert time.process_time() - began < 0.5


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


@pytest.mark.parametrize("rooms", [(), ("b",), None])
async def test_joined_room_counts_as_permitted(imgo, rooms):
    imgo(ROOMS_OPEN=False)
    assert await authorize_room(Identity("u1", rooms, join=("a",)), "a")
    assert not await authorize_room(Identity("u1", rooms, join=("a",)), "c")


@pytest.mark.parametrize("join", [("a*",), ("",), (7,), ("imgo.dashboard",)])
def test_identity_with_a_room_nobody_can_be_put_into_raises(join):
    with pytest.raises(ValueError, match=r"join|room"):
        Identity("u1", join=join)


@pytest.mark.parametrize("is_open", [True, False])
async def test_who_names_no_rooms_is_up_to_the_setting(imgo, is_open):
    imgo(ROOMS_OPEN=is_open)
    assert await authorize_room(Identity("u1", None), "any") is is_open
    assert not await authorize_room(Identity("u1", ()), "any")


# What the default authenticator refuses


@pytest.mark.parametrize("raw", [b"\xff\x00", b'{"rooms": "a", "token": "t"}'])
async def test_default_authenticator_refuses_a_body_it_cannot_read(transactional_db, raw):
    await in_thread(Token.objects.issue, "u1", token="t")
    with pytest.raises(BadRequest):
        await authenticate(parse_auth_body(raw), TCP)


@pytest.mark.parametrize("raw", [b'{"TypeID":10,"AuthMsg":{}}', b'{"data":{}}', b"{}"])
async def test_default_authenticator_finds_no_token_in_another_object(raw):
    with pytest.raises(NotAuthenticated, match="No token was sent"):
        await authenticate(parse_auth_body(raw), TCP)
