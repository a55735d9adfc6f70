"""manage.py token, apikey, and what manage.py imgo says before it serves."""

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from accounts.models import ApiKey, Token, digest
from imgo_site.conf import conf
from push.models import Node

pytestmark = pytest.mark.django_db


def run(*arguments: str) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


def test_rooms_policies_without_any_name_the_variable_of_the_nodes(imgo):
    imgo(ROOMS={})
    assert "IMGO_ROOMS" in run("rooms", "--policies")
    imgo(ROOMS={"chat-*": {"history": 500}})
    assert run("rooms", "--policies").splitlines()[1].split()[:2] == ["chat-*", "500"]


@pytest.mark.parametrize("arguments", [(), ("--json",), ("chat-1",)])
def test_rooms_policies_with_mistakes_prints_one_line_for_each(imgo, arguments):
    imgo(ROOMS={"": {}, "a": {"histroy": 1}, "b": {"history": -1}})
    with pytest.raises(CommandError) as refusal:
        run("rooms", "--policies", *arguments)
    lines = str(refusal.value).splitlines()
    assert ["''" in lines[0], "'histroy'" in lines[1], "history=-1" in lines[2]] == [True] * 3
    assert (len(lines), refusal.value.returncode) == (3, 1)


def test_token_prints_the_token_alone():
    text = run("token", "u1")
    assert text.endswith("\n")
    assert len(text.split()) == 1
    token = Token.objects.get()
    assert (token.key, token.digest) == ("u1", digest(text.strip()))
    assert (token.rooms, token.expires_at) == (None, None)


def test_token_takes_rooms_and_a_time():
    run("token", "u1", "--room", "a", "--room", "b.*", "--expires-in", "60")
    token = Token.objects.get()
    assert token.rooms == ["a", "b.*"]
    assert 50 < (token.expires_at - token.created_at).total_seconds() < 70


@pytest.mark.parametrize(
    "arguments",
    [
        [""],
        ["a\nb"],
        ["x" * 256],
        ["u1", "--room", ""],
        ["u1", "--expires-in", "soon"],
        ["u1", "--expires-in", "999999999999999"],
        ["u1", "--expires-in", "0"],
        ["u1", "--expires-in", "-60"],
        ["u1", "--revoke", "--room", "a"],
        ["u1", "--revoke", "--expires-in", "60"],
        [],
    ],
)
def test_a_bad_token_is_a_short_error(arguments):
    with pytest.raises(CommandError):
        run("token", *arguments)
    assert not Token.objects.exists()


def test_apikey_prints_the_key_alone():
    text = run("apikey", "shop")
    assert len(text.split()) == 1
    key = ApiKey.objects.active(text.strip())
    assert (key.name, key.scopes) == ("shop", ["push"])


def test_apikey_takes_scopes():
    key = ApiKey.objects.active(run("apikey", "shop", "--scope=read", "--scope", "admin").strip())
    assert key.scopes == ["admin", "read"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["shop", "--scope", "fly"],
        ["x" * 101],
        ["a\nb"],
        ["caf\udce9"],
        ["caf\udce9", "--revoke"],
        ["shop", "--revoke", "--scope", "push"],
        ["shop", "--list"],
        [],
    ],
)
def test_a_bad_apikey_is_a_short_error(arguments):
    with pytest.raises(CommandError):
        run("apikey", *arguments)
    assert not ApiKey.objects.exists()


def test_what_the_commands_print_is_nowhere_else(caplog):
    text, key = run("token", "u1").strip(), run("apikey", "shop").strip()
    assert text not in caplog.text
    assert key not in caplog.text


@pytest.fixture
def one_migration_behind(db):
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'push'")


def test_imgo_does_not_serve_with_an_old_database(one_migration_behind):
    with pytest.raises(CommandError, match=r"run 'manage\.py migrate' first"):
        run("imgo")


def greeting(known) -> str:
    from push.management.commands.imgo import Command

    out = StringIO()
    Command(stdout=out)._greet(known)
    return out.getvalue()


def test_imgo_says_what_to_open(imgo):
    imgo(HOST="0.0.0.0", HTTP_PORT=80, WS_PORT=0, API_KEY="")
    known = {
        "admin_password": "pw",
        "api_key": "imgo_x",
        "tokens": {"alice": "t1"},
        "admin": "admin",
    }
    text = greeting(known)
    for page in ("/dashboard/", "/api/docs/", "/admin/"):
        assert f"http://localhost:80{page}" in text
    assert "user admin, password pw" in text
    for part in ("http://localhost:80/", "password pw", "imgo_x", "t1   (key alice)", "curl -H"):
        assert part in text
    assert "WebSocket port" not in text
    assert f"TCP port {conf.TCP_PORT}" in text


def test_greeting_with_an_authenticate_url_shows_no_token_of_the_demo(imgo):
    imgo(AUTHENTICATE_URL="https://shop.example.com/a", HOOK_SECRETS=["whsec_" + 32 * "A"])
    known = {"admin": "", "api_key": "imgo_x", "tokens": {"alice": "t1"}}
    text = greeting(known)
    assert "AUTHENTICATE_URL" in text
    assert "(key alice)" not in text


def test_greeting_ends_with_the_page_of_the_project_around_imgo(settings):
    settings.LOGIN_REDIRECT_URL = "/chat/"
    assert greeting(None).rstrip().endswith("Your site:  http://localhost:8000/chat/")


def test_imgo_says_nothing_secret_without_the_demo():
    text = greeting(None)
    assert "Listening: HTTP and WebSocket http://localhost:8000 (/sub)" in text
    assert "password" not in text
    assert "createsuperuser" in text
    assert "Postgres and Redis" in text


def test_greeting_with_a_key_of_the_environment_does_not_show_it(imgo):
    imgo(API_KEY="kept-in-the-environment")
    known = {"admin_password": "pw", "api_key": "imgo_x", "tokens": {"a": "t"}, "admin": "admin"}
    text = greeting(known)
    assert "kept-in-the-environment" not in text
    assert 'curl -H "Authorization: Api-Key $IMGO_API_KEY"' in text


# The rows of nodes


def test_a_node_keeps_its_number():
    first = Node.objects.announce("one:8000")
    second = Node.objects.announce("two:8000")
    again = Node.objects.announce("one:8000")
    assert again.pk == first.pk != second.pk
    assert again.last_seen > first.first_seen == again.first_seen
    assert str(again) == "one:8000"


# manage.py imgo --processes


@pytest.mark.parametrize("count", ["0", "-1", "1001", "many"])
def test_how_many_processes_is_a_sensible_number(count):
    with pytest.raises(CommandError, match="--processes"):
        run("imgo", f"--processes={count}")


@pytest.mark.parametrize("missing", ["DATABASE_URL", "REDIS_URL"])
def test_several_processes_need_what_they_share(settings, monkeypatch, missing):
    if missing == "REDIS_URL":
        settings.REDIS_URL = ""
    else:
        name = "push.management.commands.imgo.is_shared_database"
        monkeypatch.setattr(name, lambda: False)
    with pytest.raises(CommandError, match=r"--processes needs DATABASE_URL .* and REDIS_URL"):
        run("imgo", "--processes", "2")


def test_a_port_in_use_is_named_before_any_node_is_started(imgo, closed_port, monkeypatch):
    started = []
    monkeypatch.setattr("push.server.node_processes.Supervisor", started.append)
    imgo(HTTP_PORT=closed_port)
    with pytest.raises(CommandError, match=rf"in use \(IMGO_HTTP_PORT={closed_port}\)"):
        run("imgo", "--processes", "2", "--verbosity", "0")
    assert started == []
