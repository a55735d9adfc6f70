"""The demo page, the health check and the metrics: for whom they are, and for whom not."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.db import models
from django.test import Client

from accounts.models import SCOPES, ApiKey, Token, digest
from imgo_site.process_parts import process
from offline.models import Message
from push.demo_page import demo
from push.metrics import definitions as metrics
from push.status.health import Health
from push.status.instance import Instance
from push.wire import CloseCode

pytestmark = pytest.mark.django_db


@pytest.fixture
def on(imgo, settings, tmp_path):
    imgo(DEMO="on")
    settings.DATA_DIR = tmp_path


@pytest.fixture
def browser() -> Client:
    return Client(enforce_csrf_checks=True, headers={"host": "localhost"})


@pytest.fixture
def embedded(monkeypatch, settings, tmp_path):
    """The demo's database is its own, as far as the demo can see."""
    settings.DATA_DIR = tmp_path
    monkeypatch.setattr("push.demo_page.demo.is_embedded", lambda: True)


def send(browser: Client, value: object, *, token: str | None = "", **extra: str):
    """What the page's form sends, with the CSRF token that the page was given."""
    if token == "":
        token = browser.cookies["csrftoken"].value
    headers = {} if token is None else {"HTTP_X_CSRFTOKEN": token}
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return browser.post("/demo/push", data, "application/json", **headers, **extra)


PUSH = {"to": {"key": "alice"}, "body": {"n": 1}}

# Off


def test_in_production_there_is_no_demo(browser):
    answer = browser.get("/")
    assert answer.status_code == 404
    assert answer["Content-Type"] == "text/plain"
    assert answer.content.startswith(b"imgo. The demo is off")


def test_in_production_the_demo_pushes_nothing(client):
    assert send(client, PUSH, token=None).status_code == 404
    assert not Message.objects.exists()


def test_a_page_that_is_off_makes_no_secrets(client, settings, tmp_path):
    settings.DATA_DIR = tmp_path
    client.get("/")
    assert not list(tmp_path.iterdir())
    assert not ApiKey.objects.exists()


@pytest.mark.parametrize(
    ("setting", "embedded", "is_on"),
    [
        ("auto", False, False),
        ("auto", True, True),
        ("on", False, True),
        ("off", True, False),
    ],
)
def test_the_setting_decides(imgo, monkeypatch, setting, embedded, is_on):
    imgo(DEMO=setting)
    monkeypatch.setattr("push.demo_page.demo.is_embedded", lambda: embedded)
    assert demo.is_on() is is_on


# On


def test_browsers_find_an_icon_where_they_look_by_themselves(client):
    assert client.get("/favicon.ico")["Location"].endswith("push/icon.svg")


def test_the_page_has_what_its_clients_need(on, browser):
    answer = browser.get("/")
    assert answer.status_code == 200
    assert answer["Cache-Control"] == "no-store"
    text = answer.content.decode()
    for key, token in demo.secrets_of_demo()["tokens"].items():
        assert Token.objects.get(key=key).digest == digest(token)
        assert token in text
    assert demo.secrets_of_demo()["admin_password"] not in text
    assert "csrftoken" in browser.cookies


def test_the_secrets_are_made_once_and_are_their_owners(on, browser, tmp_path):
    browser.get("/")
    first = demo.secrets_of_demo()
    browser.get("/")
    assert demo.secrets_of_demo() == first
    assert [path.name for path in tmp_path.iterdir()] == ["demo.json"]
    assert (tmp_path / "demo.json").stat().st_mode & 0o777 == 0o600
    assert ApiKey.objects.get().digest == digest(first["api_key"])


def test_the_page_has_keys_of_its_own_where_all_its_names_are_taken(on, browser):
    for name in demo.NAMES:
        Token.objects.issue(name)
    text = browser.get("/").content.decode()
    tokens = demo.secrets_of_demo()["tokens"]
    assert len(tokens) == demo.SUBSCRIBERS
    assert not set(tokens) & set(demo.NAMES)
    assert f"&quot;key&quot;: &quot;{next(iter(tokens))}&quot;" in text  # the line to type
    for key, token in tokens.items():
        assert Token.objects.get(key=key).digest == digest(token)
    assert browser.get("/").content.decode().count(next(iter(tokens))) >= 2
    assert demo.secrets_of_demo()["tokens"] == tokens


def test_two_demos_have_different_secrets(settings, tmp_path):
    settings.DATA_DIR = tmp_path / "one"
    one = demo.secrets_of_demo()
    settings.DATA_DIR = tmp_path / "two"
    two = demo.secrets_of_demo()
    assert one["api_key"] != two["api_key"]
    assert one["admin_password"] != two["admin_password"]
    assert not set(one["tokens"].values()) & set(two["tokens"].values())


def test_a_broken_file_of_secrets_is_made_again(on, tmp_path):
    Path(tmp_path / "demo.json").write_text("{")
    assert set(demo.prepare()) == {"api_key", "admin_password", "tokens", "admin"}


@pytest.mark.django_db
def test_a_demo_whose_api_key_was_revoked_gets_another(settings, tmp_path):
    settings.DATA_DIR = tmp_path
    first = demo.prepare()
    ApiKey.objects.revoke("demo")
    second = demo.prepare()
    assert ApiKey.objects.active(first["api_key"]) is None
    assert ApiKey.objects.active(second["api_key"]) is not None
    assert demo.prepare() == second
    assert second["tokens"] == first["tokens"]


def test_demo_in_another_database_has_no_admin_and_a_key_that_only_pushes(on, django_user_model):
    assert demo.prepare()["admin"] == ""
    assert not django_user_model.objects.exists()
    assert ApiKey.objects.get().scopes == ["push"]


def test_demo_in_its_own_database_makes_an_admin(embedded, django_user_model):
    known = demo.prepare()
    user = django_user_model.objects.get()
    assert user.is_superuser
    assert (user.username, known["admin"]) == ("admin", "admin")
    assert user.check_password(known["admin_password"])
    assert ApiKey.objects.get().scopes == sorted(SCOPES)


class Manager:
    """Stands for the manager of a user model: it makes users of an address and a password."""

    def __init__(self) -> None:
        self.made = []

    def filter(self, **by):
        found = [one for one in self.made if one.items() >= by.items()]
        return SimpleNamespace(exists=lambda: bool(found))

    def create_superuser(self, email: str, password: str) -> None:
        self.made.append({"email": email, "password": password})


def user_model(manager: object, field: models.Field) -> SimpleNamespace:
    meta = SimpleNamespace(get_field=lambda name: field)
    return SimpleNamespace(USERNAME_FIELD="email", _meta=meta, _default_manager=manager)


def test_demo_makes_an_admin_of_a_user_model_without_names(embedded, monkeypatch):
    manager = Manager()
    model = user_model(manager, models.EmailField())
    monkeypatch.setattr("push.demo_page.demo.get_user_model", lambda: model)
    first, second = demo.prepare(), demo.prepare()
    assert first["admin"] == second["admin"] == "admin@example.com"
    password = first["admin_password"]
    assert manager.made == [{"email": "admin@example.com", "password": password}]


def test_demo_with_a_user_model_that_asks_for_more_makes_no_admin(embedded, monkeypatch):
    class Strict(Manager):
        def create_superuser(self, email: str, password: str, born: str) -> None: ...

    model = user_model(Strict(), models.EmailField())
    monkeypatch.setattr("push.demo_page.demo.get_user_model", lambda: model)
    assert demo.prepare()["admin"] == ""


def test_demo_leaves_a_token_that_somebody_made_for_its_key(on, browser):
    browser.get("/")
    _, text = Token.objects.issue("alice")
    page = browser.get("/").content.decode()
    assert Token.objects.get(key="alice").digest == digest(text)
    tokens = demo.prepare()["tokens"]
    assert list(tokens) == ["bob", "carol"]
    assert all(token in page for token in tokens.values())
    assert send(browser, {"to": {"key": "carol"}, "body": 1}).status_code == 202


def test_a_changed_password_of_the_admin_stays(embedded, django_user_model):
    demo.prepare()
    user = django_user_model.objects.get(username="admin")
    assert user.is_superuser
    user.set_password("changed")
    user.save()
    demo.prepare()
    user.refresh_from_db()
    assert user.check_password("changed")


@pytest.mark.parametrize("address", ["192.0.2.1", "10.0.0.1", "::2", ""])
def test_the_demo_is_for_this_machine_alone(on, browser, address):
    browser.get("/")
    assert browser.get("/", REMOTE_ADDR=address).status_code == 403
    assert send(browser, PUSH, REMOTE_ADDR=address).status_code == 403
    assert not Message.objects.exists()


@pytest.mark.parametrize(
    ("peer", "client"), [("127.0.0.1", "192.0.2.1"), ("10.0.0.1", "127.0.0.1"), ("10.0.0.1", "")]
)
def test_the_demo_is_for_nobody_behind_a_trusted_proxy(imgo, on, browser, peer, client):
    imgo(TRUSTED_PROXIES=["127.0.0.1", "10.0.0.1"])
    headers = {"X-Forwarded-For": client}
    assert browser.get("/", REMOTE_ADDR=peer, headers=headers).status_code == 403


@pytest.mark.parametrize(
    "trace",
    [
        {"HTTP_X_FORWARDED_FOR": "192.0.2.1"},
        {"HTTP_X_FORWARDED_FOR": "127.0.0.1"},
        {"HTTP_X_FORWARDED_PROTO": "https"},
        {"HTTP_FORWARDED": "for=192.0.2.1"},
        {"HTTP_X_REAL_IP": "192.0.2.1"},
        {"HTTP_VIA": "1.1 proxy"},
        {"HTTP_HOST": "testserver"},
        {"SERVER_PROTOCOL": "HTTP/1.0"},  # nginx, as it comes
    ],
    ids=str,
)
def test_demo_through_a_proxy_of_this_machine_is_refused(on, browser, trace):
    browser.get("/")
    answer = browser.get("/", **trace)
    assert answer.status_code == 403
    assert demo.secrets_of_demo()["api_key"] not in answer.content.decode()
    assert send(browser, PUSH, **trace).status_code == 403
    assert not Message.objects.exists()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_this_machine_has_two_addresses(on, browser, address):
    assert browser.get("/", REMOTE_ADDR=address).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "192.0.2.1"])
def test_a_page_of_another_name_for_this_machine_gets_nothing(on, browser, host):
    """DNS rebinding: a foreign page whose name has come to mean 127.0.0.1."""
    assert browser.get("/", HTTP_HOST=host).status_code == 400


# Pushing from the page


@pytest.mark.parametrize(
    "to", [{"key": "alice"}, {"keys": ["alice", "bob"]}, {"room": "lobby"}, {"all": True}], ids=str
)
def test_the_form_pushes(on, browser, to):
    browser.get("/")
    answer = send(browser, {"to": to, "body": {"n": 1}})
    assert answer.status_code == 202
    message = Message.objects.get()
    assert answer.json() == {"id": str(message.pk)}
    assert message.by == "demo"


@pytest.mark.parametrize("token", [None, "wrong", "x" * 32])
def test_another_page_cannot_push(on, browser, token):
    browser.get("/")
    assert send(browser, PUSH, token=token).status_code == 403
    assert not Message.objects.exists()


def test_a_page_from_elsewhere_cannot_push_even_with_the_cookie(on, browser):
    browser.get("/")
    answer = send(browser, PUSH, HTTP_ORIGIN="https://evil.example")
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "to", [{"key": "carol"}, {"keys": ["alice", "carol"]}, {"room": "office"}], ids=str
)
def test_the_form_pushes_to_the_demo_alone(on, browser, to):
    browser.get("/")
    answer = send(browser, {"to": to, "body": 1})
    assert answer.status_code == 403
    assert answer["Content-Type"] == "application/problem+json"
    assert not Message.objects.exists()


@pytest.mark.parametrize(
    "data", [b"", b"x", b"\xff", b"{}", b"[" * 10_000, b'{"to": {"key": "alice"}}']
)
def test_a_bad_form_is_a_problem(on, browser, data):
    browser.get("/")
    answer = send(browser, data)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


def test_the_wrong_method(on, client):
    assert client.post("/").status_code == 405
    assert client.get("/demo/push").status_code == 405


# Health


@pytest.mark.parametrize(
    ("change", "status", "text"),
    [
        (Health.started, 200, "ok"),
        (Health.starting, 503, "starting"),
        (Health.stopping, 503, "stopping"),
    ],
)
def test_health_says_whether_to_send_clients_here(client, change, status, text):
    change(process.get(Instance).health)
    answer = client.get("/healthz")
    assert (answer.status_code, answer.json()) == (status, {"status": text})


def test_health_needs_no_database_and_no_key(client, django_assert_num_queries):
    with django_assert_num_queries(0):
        assert client.get("/healthz").status_code == 200
    assert client.post("/healthz").status_code == 405


def test_an_unknown_page_is_not_found(client):
    answer = client.get("/nothing<script>")
    assert answer.status_code == 404
    assert b"<script>" not in answer.content


@pytest.mark.parametrize("path", ["/sub", "/sub/"])
def test_websocket_path_without_upgrade_names_the_headers(client, path):
    for answer in (client.get(path), client.post(path)):
        assert (answer.status_code, answer["Content-Type"][:10]) == (404, "text/plain")
        assert "must pass on Upgrade and Connection" in answer.text
        assert " /sub/events" in answer.text


def test_websocket_path_at_a_process_without_sessions_names_the_nodes(client):
    answer = client.get("/sub", headers={"Upgrade": "websocket"})
    assert (answer.status_code, "to the nodes" in answer.text) == (404, True)


# Metrics


def test_what_is_counted_is_shown_to_who_may_read(caller):
    metrics.count_close(CloseCode.KICKED)
    metrics.count_close(1002)
    answer = caller("read").get("/metrics")
    assert answer.status_code == 200
    assert answer["Content-Type"].startswith("text/plain")
    lines = answer.content.decode().splitlines()
    assert any(line.startswith('imgo_closes_total{reason="kicked"} ') for line in lines)
    assert any(line.startswith('imgo_closes_total{reason="1002"} ') for line in lines)
    assert "# TYPE imgo_sessions gauge" in lines


def test_what_is_counted_is_not_shown_to_others(caller, client):
    assert client.get("/metrics").status_code == 401
    assert caller("push").get("/metrics").status_code == 403
