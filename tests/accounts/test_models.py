"""Tokens and API keys: made, replaced, found, revoked; only their hashes are kept."""

from datetime import timedelta

import pytest
from django.core.exceptions import ValidationError
from django.db import connection
from django.utils import timezone

from accounts.auth_body import parse_auth_body
from accounts.models import SCOPES, TOKEN_MAX, ApiKey, FoundToken, Token, digest
from imgo_site.errors import BadRequest

pytestmark = [pytest.mark.django_db, pytest.mark.any_database]


def everything_in(table: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {table}")
        return repr(cursor.fetchall())


def by_text(text: str) -> FoundToken | None:
    return Token.objects.by_digest([digest(text)]).get(digest(text))


def test_a_token_is_found_by_its_text():
    row, text = Token.objects.issue("u1", rooms=["a", "b.*"])
    assert len(text) >= 32
    found = by_text(text)
    assert (found.key, found.rooms, found.expires_at) == ("u1", ["a", "b.*"], None)
    assert (row.key, row.rooms, row.expires_at) == ("u1", ["a", "b.*"], None)


def test_token_issue_with_join_keeps_the_rooms():
    row, text = Token.objects.issue("u1", join=["7", "lobby"])
    assert (row.join, by_text(text).join) == (["7", "lobby"], ["7", "lobby"])
    assert Token.objects.issue("u1")[0].join == []


@pytest.mark.parametrize("join", ["7", [7], [""], ["team-*"], ["a\0"], {}, ["imgo.dashboard"]])
def test_token_issue_with_a_room_nobody_can_be_put_into_raises(join):
    with pytest.raises(BadRequest):
        Token.objects.issue("u1", join=join)
    assert not Token.objects.exists()


def test_token_row_of_the_release_before_joins_nothing():
    """Processes of the release before insert rows that do not name the column."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO accounts_token (key, digest, created_at) VALUES (%s, %s, %s)",
            ["u1", digest("t"), timezone.now()],
        )
    assert by_text("t").join == []


def test_a_token_may_be_chosen():
    assert Token.objects.issue("u1", token="my own")[1] == "my own"
    assert by_text("my own").key == "u1"


def test_two_tokens_differ():
    assert Token.objects.issue("u1")[1] != Token.objects.issue("u2")[1]


def test_a_new_token_replaces_the_old_one_with_all_that_belongs_to_it():
    Token.objects.issue("u1", token="old", expires_in=60, rooms=["a"])
    Token.objects.update(created_at=timezone.now() - timedelta(minutes=1))
    old = Token.objects.get()
    new, _ = Token.objects.issue("u1", token="new")
    assert by_text("old") is None
    assert by_text("new").digest == new.digest
    assert new == Token.objects.get()
    assert (new.rooms, new.expires_at) == (None, None)
    assert new.created_at > old.created_at


def test_the_same_text_for_another_key_moves():
    Token.objects.issue("u1", token="shared")
    Token.objects.issue("u2", token="shared")
    assert by_text("shared").key == "u2"
    assert [token.key for token in Token.objects.all()] == ["u2"]


def test_a_key_can_move_to_a_text_that_another_key_has():
    Token.objects.issue("u1", token="one")
    Token.objects.issue("u2", token="two")
    Token.objects.issue("u2", token="one")
    assert [token.key for token in Token.objects.all()] == ["u2"]
    assert by_text("two") is None


def test_a_token_expires_at_its_time_and_not_before():
    row, _ = Token.objects.issue("u1", expires_in=60)
    assert abs(row.expires_at - timezone.now() - timedelta(seconds=60)) < timedelta(seconds=10)
    assert not row.is_expired(row.expires_at - timedelta(microseconds=1))
    assert row.is_expired(row.expires_at)


def test_a_token_without_a_time_never_expires():
    row, _ = Token.objects.issue("u1")
    assert not row.is_expired(timezone.now() + timedelta(days=365_000))


@pytest.mark.parametrize("key", ["", "a\0", "x" * 256, "\ud800", "a\nb"])
def test_a_bad_key_gets_no_token(key):
    with pytest.raises(BadRequest):
        Token.objects.issue(key)
    assert not Token.objects.exists()


@pytest.mark.parametrize("text", ["a\0", "a\nb", "\ud800", "\x7f", "x" * (TOKEN_MAX + 1)])
def test_a_bad_text_is_no_token(text):
    with pytest.raises(BadRequest):
        Token.objects.issue("u1", token=text)


@pytest.mark.parametrize("rooms", [[""], ["a", "b\0"], ["x" * 256]])
def test_a_token_names_no_bad_rooms(rooms):
    with pytest.raises(BadRequest):
        Token.objects.issue("u1", rooms=rooms)


def test_a_time_beyond_all_calendars_is_refused():
    with pytest.raises(BadRequest):
        Token.objects.issue("u1", expires_in=10**12)


def test_a_token_of_the_longest_text_for_the_longest_key():
    Token.objects.issue("k" * 255, token="ä" * TOKEN_MAX)
    assert by_text("ä" * TOKEN_MAX).key == "k" * 255


def test_only_the_hash_of_a_token_is_in_the_database():
    _, text = Token.objects.issue("u1")
    stored = everything_in("accounts_token")
    assert digest(text) in stored
    assert text not in stored


def test_many_tokens_are_found_by_one_query(django_assert_num_queries):
    digests = [digest(Token.objects.issue(f"u{n}")[1]) for n in range(5)]
    with django_assert_num_queries(1):
        found = Token.objects.by_digest([*digests, digest("unknown")])
    assert {name: token.key for name, token in found.items()} == {
        name: f"u{n}" for n, name in enumerate(digests)
    }


def test_a_digest_of_half_a_character_is_none_of_a_whole_one():
    assert len({digest("\ud800"), digest("?"), digest("")}) == 3


def test_an_api_key_is_found_by_its_text():
    row, text = ApiKey.objects.issue("shop", ["read", "push"])
    assert text.startswith("imgo_")
    assert len(text) >= 45
    assert ApiKey.objects.active(text) == row
    assert (row.name, row.scopes, row.hint) == ("shop", ["push", "read"], text[-4:])
    assert ApiKey.objects.active(text[:-1]) is None
    assert ApiKey.objects.active("") is None


def test_a_revoked_api_key_is_not_found():
    row, text = ApiKey.objects.issue("shop", ["push"])
    row.revoked_at = timezone.now()
    row.save()
    assert ApiKey.objects.active(text) is None


def test_an_api_key_has_no_unknown_scope():
    with pytest.raises(BadRequest, match="'fly'; there are: push, read, tokens, devices, admin"):
        ApiKey.objects.issue("shop", ["push", "fly"])
    assert not ApiKey.objects.exists()


def test_an_api_key_has_a_name_that_fits():
    with pytest.raises(BadRequest):
        ApiKey.objects.issue("x" * 101, ["push"])


def test_only_the_hash_of_an_api_key_is_in_the_database():
    _, text = ApiKey.objects.issue("shop", list(SCOPES))
    stored = everything_in("accounts_apikey")
    assert digest(text) in stored
    assert text not in stored


@pytest.mark.parametrize("scopes", ["push", ["fly"], {"push": 1, "fly": 2}, None])
def test_the_admin_refuses_scopes_that_do_not_exist(scopes):
    with pytest.raises(ValidationError, match="A JSON list of some of"):
        ApiKey(name="shop", scopes=scopes).clean()


def test_the_admin_takes_scopes_that_exist():
    ApiKey(name="shop", scopes=["push"]).clean()


@pytest.mark.parametrize("text", ['{"a":1}', '"quoted"', ' {"token": "x"}', "{}"])
def test_token_that_an_auth_frame_would_read_otherwise_is_refused(text, db):
    with pytest.raises(BadRequest, match="JSON"):
        Token.objects.issue("u1", token=text)


@pytest.mark.parametrize("text", ["{not json", '"half', "[1]", "12345", "null", "eyJ.a.b"])
def test_token_of_any_other_text_is_the_token_of_its_auth_frame(text, db):
    Token.objects.issue("u1", token=text)
    assert parse_auth_body(text.encode()).token == text
