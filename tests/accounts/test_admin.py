"""The admin: a secret is shown when it is made, and never again."""

import re

import pytest
from django.contrib.messages import get_messages
from django.utils import timezone

from accounts.models import ApiKey, Token, digest


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


def test_a_change_keeps_the_token(admin_client, add_token):
    text = shown(add_token("u1"))
    row = Token.objects.get()
    answer = admin_client.post(f"/admin/accounts/token/{row.pk}/change/", {"key": "u2"})
    assert answer.status_code == 302
    assert Token.objects.by_digest([digest(text)])[digest(text)].key == "u2"


def test_a_bad_key_is_an_error_of_the_form(admin_client, add_token):
    assert add_token("a\x01b").status_code == 200
    assert not Token.objects.exists()


def test_bad_rooms_are_an_error_of_the_form(add_token):
    assert add_token("u1", rooms='{"a": 1}').status_code == 200
    assert add_token("u1", rooms="[7]").status_code == 200
    assert not Token.objects.exists()


def test_a_new_api_key_is_shown_once_and_can_be_revoked(admin_client):
    add = "/admin/accounts/apikey/add/"
    answer = admin_client.post(add, {"name": "shop", "scopes": '["push"]'})
    text = shown(answer)
    row = ApiKey.objects.active(text)
    assert (row.name, row.scopes) == ("shop", ["push"])
    admin_client.get("/admin/accounts/apikey/")  # takes the message
    listing = admin_client.get("/admin/accounts/apikey/").content.decode()
    assert row.hint in listing
    assert text not in listing
    now = timezone.now()
    revoked = {"revoked_at_0": now.date().isoformat(), "revoked_at_1": "00:00:00"}
    change = {"name": "shop", "scopes": '["push"]', **revoked}
    assert admin_client.post(f"/admin/accounts/apikey/{row.pk}/change/", change).status_code == 302
    assert ApiKey.objects.active(text) is None


def test_an_unknown_scope_is_an_error_of_the_form(admin_client):
    answer = admin_client.post("/admin/accounts/apikey/add/", {"name": "shop", "scopes": '["fly"]'})
    assert answer.status_code == 200
    assert b"A JSON list of some of" in answer.content
    assert not ApiKey.objects.exists()


def test_nobody_else_sees_the_admin(client, db):
    assert client.get("/admin/accounts/token/").status_code == 302
