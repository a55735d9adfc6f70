"""manage.py token and apikey: more than making one."""

import pytest
from django.core.management import CommandError
from django.utils.dateparse import parse_datetime

from accounts.models import ApiKey, Token, digest

pytestmark = pytest.mark.django_db


def test_a_token_as_data(data):
    found = data("token", "u1", "--room", "a", "--join", "7", "--expires-in", "60")
    token = Token.objects.get()
    assert digest(found.pop("token")) == token.digest
    expires = parse_datetime(found.pop("expires_at"))
    assert abs((expires - token.expires_at).total_seconds()) < 0.001
    assert found == {"key": "u1", "rooms": ["a"], "join": ["7"], "info": {}}
    assert token.join == ["7"]


def test_token_that_joins_too_many_rooms_is_not_made(run, imgo):
    imgo(MAX_ROOMS_PER_SESSION=1)
    with pytest.raises(CommandError, match="join has 2 rooms"):
        run("token", "u1", "--join", "a", "--join", "b")
    assert not Token.objects.exists()


def test_a_revoked_token_is_gone_and_its_sessions_are_told(
    run, data, settings, monkeypatch, django_capture_on_commit_callbacks
):
    told = []
    settings.REDIS_URL = "redis://127.0.0.1:1"
    monkeypatch.setattr("push.operations.publish", lambda orders, _: told.extend(orders))
    run("token", "u1")
    with django_capture_on_commit_callbacks(execute=True):
        assert run("token", "u1", "--revoke") == (
            "The token of 'u1' is revoked; its open sessions are being closed.\n"
        )
    settings.REDIS_URL = ""
    run("token", "u1")
    assert "are closed within 60 s" in run("token", "u1", "--revoke")
    assert not Token.objects.exists()
    assert [order["code"] for order in told] == [4403]
    with pytest.raises(CommandError, match="'u1' has no token"):
        run("token", "u1", "--revoke")
    run("token", "u1")
    assert data("token", "u1", "--revoke") == {"key": "u1", "revoked": True}


def test_what_becomes_of_open_sessions_is_not_promised_when_nobody_looks(run, imgo, settings):
    imgo(REVALIDATE_INTERVAL=0.0)
    run("token", "u1")
    assert "are being closed" in run("token", "u1", "--revoke")
    run("token", "u1")
    settings.REDIS_URL = ""
    assert "stay open, because REVALIDATE_INTERVAL is 0" in run("token", "u1", "--revoke")


def test_an_api_key_as_data(data):
    found = data("apikey", "shop", "--scope", "read")
    row = ApiKey.objects.active(found["api_key"])
    assert (found["id"], found["name"], found["scopes"]) == (row.pk, "shop", ["read"])
    assert found["revoked_at"] is None


def test_api_keys_are_listed_without_their_text(run, data):
    with pytest.raises(CommandError, match="There are no API keys"):
        run("apikey", "--list")
    assert data("apikey", "--list") == []
    text = run("apikey", "shop").strip()
    table = run("apikey", "--list")
    assert "shop" in table
    assert text[-4:] in table
    assert text not in table
    (row,) = data("apikey", "--list")
    assert (row["name"], row["hint"]) == ("shop", text[-4:])
    assert "api_key" not in row


def test_a_revoked_api_key_opens_nothing(run, data):
    first, second = run("apikey", "shop").strip(), run("apikey", "other").strip()
    row = ApiKey.objects.active(first)
    assert run("apikey", "shop", "--revoke") == f"The API key {row.pk} ('shop') is revoked.\n"
    assert ApiKey.objects.active(first) is None
    other = ApiKey.objects.active(second)
    assert data("apikey", str(other.pk), "--revoke")["revoked_at"] is not None
    assert ApiKey.objects.active(second) is None


def test_which_api_key_is_revoked_is_never_a_guess(run):
    one, two = run("apikey", "shop").strip(), run("apikey", "shop").strip()
    with pytest.raises(CommandError, match="say which, by its id"):
        run("apikey", "shop", "--revoke")
    for unknown in ("nobody", "0", "9" * 18, "9" * 30, ""):
        with pytest.raises(CommandError, match="There is no API key"):
            run("apikey", unknown, "--revoke")
    assert ApiKey.objects.active(one)
    run("apikey", str(ApiKey.objects.active(two).pk), "--revoke")
    assert ApiKey.objects.active(one)
    run("apikey", "shop", "--revoke")  # one of that name is left
    assert ApiKey.objects.active(one) is None
    with pytest.raises(CommandError, match="There is no API key"):
        run("apikey", "shop", "--revoke")


def test_no_name_is_wrong_usage(run):
    with pytest.raises(CommandError, match="Name the caller") as error:
        run("apikey")
    assert error.value.returncode == 2
