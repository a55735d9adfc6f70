"""The admin: a secret is shown when it is made, and never again."""

import re

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.messages import get_messages

from accounts.models import SCOPES, ApiKey, Token, digest


def shown(answer) -> str:
    """The secret in the one message that a page shows."""
    text = next(str(m) for m in get_messages(answer.wsgi_request) if "shown this once" in str(m))
    return re.search(r"shown this once: (\S+)$", text).group(1)


@pytest.fixture
def add_token(admin_client):
    def add(key: str, **values: str):
        return admin_client.post("/admin/accounts/token/add/", {"key": key, **values})

    return add


def test_a_new_token_is_shown_once(admin_client, add_token):
    answer = add_token("u1", rooms='["a"]', expires_at_0="2099-01-01", expires_at_1="00:00:00")
    assert answer.status_code == 302
    text = shown(answer)
    row = Token.objects.get()
    assert (row.key, row.rooms, row.digest) == ("u1", ["a"], digest(text))
    assert row.expires_at.year == 2099
    for page in ("", f"{row.pk}/change/", "?q=u1"):
        later = admin_client.get(f"/admin/accounts/token/{page}").content.decode()
        assert "u1" in later
        assert row.digest not in later
    # Only the page that follows the change shows the message.
    assert text not in later


@pytest.mark.parametrize(("typed", "join"), [('["7"]', ["7"]), ("", []), ("[]", [])])
def test_token_admin_join_field_sets_the_rooms(admin_client, add_token, typed, join):
    add_token("u1", join=typed)
    assert Token.objects.get().join == join


def test_a_change_keeps_the_token(admin_client, add_token):
    text = shown(add_token("u1"))
    row = Token.objects.get()
    answer = admin_client.post(f"/admin/accounts/token/{row.pk}/change/", {"key": "u2"})
    assert answer.status_code == 302
    assert Token.objects.by_digest([digest(text)])[digest(text)].key == "u2"


BAD_TOKENS = [
    ({"key": ""}, "key", ["This field is required."]),
    ({"key": "a\x01b"}, "key", ["A key must not contain control characters."]),
    ({"key": "x" * 300}, "key", ["Ensure this value has at most 255 characters (it has 300)."]),
    ({"key": "u1", "rooms": '{"a": 1}'}, "rooms", ["rooms must be a list of room names."]),
    ({"key": "u1", "rooms": "[7]"}, "rooms", ["A room must be a non-empty string."]),
    ({"key": "u1", "join": '{"a": 1}'}, "join", ["join must be a list of room names."]),
    (
        {"key": "u1", "join": '["a*"]'},
        "join",
        ["join has 'a*': name each room, a pattern cannot be joined."],
    ),
]


def test_token_admin_refuses_more_rooms_than_a_session_may_be_in(add_token, imgo):
    imgo(MAX_ROOMS_PER_SESSION=1)
    answer = add_token("u1", join='["a", "b"]')
    message = "join has 2 rooms. A session may be in 1 rooms at most (MAX_ROOMS_PER_SESSION)."
    assert answer.context["adminform"].form.errors == {"join": [message]}
    assert not Token.objects.exists()


@pytest.mark.parametrize(("values", "field", "errors"), BAD_TOKENS)
def test_a_mistake_is_told_once_and_where_it_is(add_token, values, field, errors):
    answer = add_token(**values)
    assert answer.context["adminform"].form.errors == {field: errors}
    assert not Token.objects.exists()


def test_blanks_of_a_key_stay_its_own(admin_client, add_token):
    add_token("  u1")
    row = Token.objects.get()
    admin_client.post(f"/admin/accounts/token/{row.pk}/change/", {"key": row.key, "rooms": "[]"})
    assert list(Token.objects.values_list("key", "rooms")) == [("  u1", [])]


@pytest.mark.parametrize("name", ["accounts/token", "accounts/apikey", "auth/user"])
def test_an_address_fills_in_nothing(admin_client, name):
    query = {"expires_at": "x", "last_login": "x", "key": "u1", "name": "n", "username": "n"}
    form = admin_client.get(f"/admin/{name}/add/", query).context["adminform"].form
    assert form.initial == {}


@pytest.mark.parametrize("name", ["a\x01", "a\u200b"])
def test_a_bad_name_of_an_api_key_is_an_error_of_the_form(admin_client, name):
    answer = admin_client.post("/admin/accounts/apikey/add/", {"name": name})
    errors = answer.context["adminform"].form.errors
    assert errors == {"name": ["An API key's name has from 1 to 100 printable characters."]}
    assert not ApiKey.objects.exists()


def test_a_new_api_key_is_shown_once_and_can_be_revoked(admin_client):
    add = "/admin/accounts/apikey/add/"
    answer = admin_client.post(add, {"name": "shop", "scopes": ["push", "read"]})
    text = shown(answer)
    row = ApiKey.objects.active(text)
    assert (row.name, row.scopes) == ("shop", ["push", "read"])
    admin_client.get("/admin/accounts/apikey/")  # takes the message
    listing = admin_client.get("/admin/accounts/apikey/").content.decode()
    assert row.hint in listing
    assert text not in listing
    change = f"/admin/accounts/apikey/{row.pk}/change/"
    page = admin_client.get(change).content.decode()
    assert page.count('type="checkbox"') == len(SCOPES)
    assert page.count(" checked") == 2
    assert admin_client.post(change, {"name": "shop", "scopes": ["read"]}).status_code == 302
    assert ApiKey.objects.active(text).scopes == ["read"]
    form = {"action": "revoke", "_selected_action": [row.pk]}
    admin_client.post("/admin/accounts/apikey/", form)
    assert ApiKey.objects.active(text) is None
    assert LogEntry.objects.filter(change_message="Revoked.").count() == 1


def test_an_unknown_scope_is_an_error_of_the_form(admin_client):
    form = {"name": "shop", "scopes": ["fly"]}
    answer = admin_client.post("/admin/accounts/apikey/add/", form)
    assert answer.status_code == 200
    assert b"fly is not one of the available choices" in answer.content
    assert not ApiKey.objects.exists()


def test_nobody_else_sees_the_admin(client, db):
    assert client.get("/admin/accounts/token/").status_code == 302
