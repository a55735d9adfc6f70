"""The system checks: each finds what it is for, has its id and a hint, and is else silent."""

import os
import resource

import pytest
from django.conf import settings as django_settings
from django.core.checks import run_checks
from django.core.management import call_command
from django.db import connection, router
from django.db.utils import ConnectionRouter

from imgo_site import open_files as files
from imgo_site.conf import ImgoSettings
from imgo_site.setting_values import shown
from offline.models import Partitioning
from push import checks as module
from push.checks import capacity, limits
from push.models import Node


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in os.environ:
        if name.startswith("IMGO_"):
            monkeypatch.delenv(name)


def found() -> list[tuple[str, str, str | None]]:
    """(id, message, hint) of imgo's own."""
    return [(m.id, m.msg, m.hint) for m in run_checks() if m.id.startswith("imgo.")]


def assert_only_error(expected: str, reason: str) -> None:
    """Assert that there is one message, with this id, a text that names the reason, and a hint."""
    ((id_, message, hint),) = found()
    assert id_ == expected
    assert reason in message
    assert hint is not None


def ids() -> list[str]:
    return sorted(id_ for id_, _, _ in found())


def test_the_settings_as_they_are_need_no_word():
    assert found() == []
    call_command("check", "--fail-level", "WARNING")


class PlainPublish:
    """An authorizer whose `may_publish` cannot be awaited."""

    def may_publish(self, identity: object, room: str) -> bool:
        return True


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"MAX_BODDY": 1}, ["imgo.E001"]),
        ({"A": 1, "B": 1}, ["imgo.E001", "imgo.E001"]),
        ({"MAX_BODY": "big"}, ["imgo.E002"]),
        ({"LEGACY_TRUSTED_NETWORKS": 7}, ["imgo.E002"]),
        ({"AUTHENTICATOR": "no.such.thing"}, ["imgo.E003"]),
        ({"RECEIVER": "push.receiver.missing", "SESSION_KEY": "x"}, ["imgo.E003", "imgo.E003"]),
        ({"ROOM_AUTHORIZER": ""}, ["imgo.E003"]),
        ({"AUTHENTICATOR": ".."}, ["imgo.E003"]),
        ({"ROOM_AUTHORIZER": ".", "RECEIVER": ".os"}, ["imgo.E003", "imgo.E003"]),
        ({"RECEIVER": "push.receiver"}, ["imgo.E003"]),  # a module
        ({"AUTHENTICATOR": "imgo_site.names.check_name"}, ["imgo.E003"]),  # not awaitable
        ({"ROOM_AUTHORIZER": "os.getcwd"}, ["imgo.E003"]),
        ({"ROOM_AUTHORIZER": f"{__name__}.PlainPublish"}, ["imgo.E003"]),
        ({"RECEIVER": "functools.partial"}, []),  # may return what can be awaited
        ({"SESSION_KEY": "imgo_site.names.NAME_MAX"}, ["imgo.E003"]),  # an int
        ({5: 1}, ["imgo.E001"]),
        ({None: None}, ["imgo.E001"]),
        ({"NODE_NAME": "a" * 251}, []),
        ({"NODE_NAME": "a" * 252}, ["imgo.E004"]),
        ({"NODE_NAME": "a\nb"}, ["imgo.E004"]),
        ({"JWT_KEY_CLAIM": ""}, ["imgo.E004"]),
        ({"DATABASE_TIMEOUT": 86_400}, []),
        ({"DATABASE_TIMEOUT": 86_401}, ["imgo.E006"]),
        ({"TTL": 10**5000}, ["imgo.E006", "imgo.E007"]),
        ({"TRUSTED_PROXIES": [["a"]]}, ["imgo.E002"]),
        ({"TRUSTED_PROXIES": [5]}, ["imgo.E002"]),
        ({"LEGACY_TRUSTED_NETWORKS": [{}]}, ["imgo.E002"]),
        ({"LEGACY_TRUSTED_NETWORKS": [b"10.0.0.1"]}, ["imgo.E002"]),
        ({"PROXY_PROTOCOL": [["tcp"]]}, ["imgo.E002"]),
        ({"HEARTBEAT_TIMEOUT": 10**400}, ["imgo.E002"]),
        ({"DATA_DIR": 5}, ["imgo.E002"]),
        ({"HOST": "a\0b"}, ["imgo.E002"]),
        ({"SESSION_CAP_POLICY": "ask"}, ["imgo.E004"]),
        ({"DEMO": "sometimes"}, ["imgo.E004"]),
        ({"LEGACY_TRUSTED_NETWORKS": ["everybody"]}, ["imgo.E005", "imgo.W002"]),
        ({"LEGACY_TRUSTED_NETWORKS": ["10.0.0.0/8", "x"]}, ["imgo.E005", "imgo.W002"]),
        ({"LEGACY_TRUSTED_NETWORKS": ["10.0.0.0/8", "::1"]}, ["imgo.W002"]),
        ({"TRUSTED_PROXIES": "10.0.0.1"}, []),
        ({"TRUSTED_PROXIES": ["10.0.0.1", "nginx"]}, ["imgo.E005"]),
        ({"TRUSTED_PROXIES": ["10.0.0.0/8", "fd00::/8", "203.0.113.0/24"]}, []),
        ({"TRUSTED_PROXIES": ["0.0.0.0/0"]}, ["imgo.W017"]),
        ({"TRUSTED_PROXIES": ["10.0.0.1", "::/0"]}, ["imgo.W017"]),
        (
            {"TRUSTED_PROXIES": ["10.0.0.0/8"], "LEGACY_TRUSTED_NETWORKS": ["10.1.0.0/16"]},
            ["imgo.W002", "imgo.W018"],
        ),
        (
            {
                "TRUSTED_PROXIES": ["10.0.0.1"],
                "LEGACY_TRUSTED_NETWORKS": ["fd00::/8", "10.1.0.0/16"],
            },
            ["imgo.W002"],
        ),
        ({"LEGACY_TRUSTED_NETWORKS": ["0.0.0.0/0"]}, ["imgo.W002", "imgo.W004"]),
        ({"LEGACY_TRUSTED_NETWORKS": ["::/0"]}, ["imgo.W002", "imgo.W004"]),
        ({"LEGACY_TRUSTED_NETWORKS": ["8.8.8.0/24"]}, ["imgo.W002", "imgo.W004"]),
        ({"GOIM_TRUSTED": True}, ["imgo.W019"]),
        ({"JWT_SECRET": "x" * 32, "JWT_REQUIRE_EXP": False}, ["imgo.W025"]),
        ({"JWT_REQUIRE_EXP": False}, []),
        ({"PARTITIONS": 0}, ["imgo.E006"]),
        ({"PARTITIONS": -1, "MAX_KEYS": 0}, ["imgo.E006", "imgo.E006"]),
        ({"HTTP_PORT": 0}, ["imgo.E006"]),
        ({"TCP_PORT": 65_536}, ["imgo.E006"]),
        ({"TCP_PORT": 8000}, ["imgo.E007"]),
        ({"TCP_PORT": 8090}, ["imgo.E007"]),
        ({"TCP_PORT": 0, "WS_PORT": 0}, []),
        ({"SWEEP_AFTER": float("nan")}, ["imgo.E006"]),
        ({"AUDIT_INTERVAL": float("inf")}, ["imgo.E006"]),
        ({"DRAIN_SECONDS": -0.1}, ["imgo.E006"]),
        ({"DEDUPE_WINDOW": 10**30, "NODE_LEASE": 1e30}, ["imgo.E006", "imgo.E006"]),
        ({"DRAIN_SECONDS": 0.0, "AUTH_FAILURES": 0, "REVALIDATE_INTERVAL": 0}, []),
        ({"TTL": 100, "MAX_TTL": 99}, ["imgo.E007"]),
        ({"TTL": 100, "MAX_TTL": 100}, []),
        ({"MAX_BODY": 2048, "MAX_REQUEST": 2047}, ["imgo.E007"]),
        ({"MAX_REQUEST": 65 * 1024 * 1024}, ["imgo.E007", "imgo.E007"]),
        ({"PROXY_PROTOCOL": ["udp"], "TRUSTED_PROXIES": ["10.0.0.1"]}, ["imgo.E041"]),
        ({"PROXY_PROTOCOL": ["tcp"]}, ["imgo.E041"]),
        ({"PROXY_PROTOCOL": ["tcp", "ws"], "TRUSTED_PROXIES": ["10.0.0.1"]}, []),
        ({"MAX_BODIES": 16 * 1024 * 1024 - 1}, ["imgo.E007"]),
        ({"HEARTBEAT_TIMEOUT": 9.9}, ["imgo.W005"]),
        ({"HEARTBEAT_TIMEOUT": 20.0, "HANDSHAKE_TIMEOUT": 20.0}, ["imgo.W005"]),
        ({"HEARTBEAT_TIMEOUT": 20.0, "HANDSHAKE_TIMEOUT": 19.0}, []),
        ({"NODE_LEASE": 4.9}, ["imgo.W006"]),
        ({"NODE_LEASE": 5.0}, []),
        ({"MAX_BODY": 600_000}, ["imgo.W010"]),
        ({"MAX_CLIENT_BODY": 600_000}, ["imgo.W010"]),
        ({"SESSION_BYTES": 100_000}, ["imgo.W010"]),
        ({"DATABASE_THREADS": 4}, ["imgo.W011"]),
        ({"DEMO": "on"}, []),
        ({"JWT_SECRET": "short"}, ["imgo.W003"]),
        ({"JWT_SECRET": "ä" * 16}, []),
        ({"API_KEY": "guess me"}, ["imgo.W003"]),
        ({"API_KEY": "x" * 16}, []),
        ({"JWT_PUBLIC_KEY": "/nowhere.pem", "JWT_JWKS_FILE": "/"}, ["imgo.W020", "imgo.W020"]),
        ({"JWT_PUBLIC_KEY": "-----BEGIN PUBLIC KEY-----\nx"}, ["imgo.W020"]),
        ({"JWT_PUBLIC_KEY": __file__, "JWT_JWKS_FILE": __file__}, ["imgo.W020", "imgo.W020"]),
        ({"JWT_SECRET": "x" * 32, "SESSION_CAP_POLICY": "close_oldest", "DEMO": "off"}, []),
    ],
    ids=lambda given: shown(given)[:60],
)
@pytest.mark.services
def test_a_mistake_has_its_id(settings, given, expected):
    settings.IMGO = {**settings.IMGO, **given}
    assert ids() == expected


@pytest.mark.parametrize("given", [None, 5, "x", ["a"]], ids=str)
def test_settings_that_are_no_dictionary_are_one_error(settings, given):
    settings.IMGO = given
    assert ids() == ["imgo.E002"]


@pytest.mark.parametrize(
    "text", ["raise RuntimeError('no')", "def (", "import sys; sys.exit(3)", "1 / 0"]
)
def test_a_hook_whose_module_fails_is_an_error(imgo, tmp_path, monkeypatch, text):
    name = f"hooks_{abs(hash(text))}"
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    imgo(RECEIVER=f"{name}.receive")
    ((id_, message, _),) = found()
    assert id_ == "imgo.E003"
    assert message.startswith(f"IMGO setting RECEIVER: '{name}.receive' cannot be imported: ")


def test_a_misspelt_name_is_told_the_right_one(imgo):
    imgo(MAX_BODDY=1)
    assert found() == [
        ("imgo.E001", "IMGO['MAX_BODDY'] is not a setting.", "Did you mean MAX_BODY?")
    ]


def test_a_misspelt_variable_is_a_warning(monkeypatch):
    monkeypatch.setenv("IMGO_MAX_BODDY", "1")
    monkeypatch.setenv("IMGO_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("IMGO_MAX_BODY", "1")
    assert ids() == ["imgo.W001", "imgo.W001"]
    assert ("imgo.W001", "IMGO_MAX_BODDY is not a setting.", "Did you mean MAX_BODY?") in found()


def test_every_message_has_a_hint(imgo):
    imgo(
        LEGACY_TRUSTED_NETWORKS=["0.0.0.0/0"],
        JWT_SECRET="short",
        PARTITIONS=0,
        TTL=10**9,
        HEARTBEAT_TIMEOUT=1,
        SESSION_BYTES=2000,
        AUTHENTICATOR="x",
        DEMO="x",
        NOPE=1,
    )
    assert len(set(ids())) == 10
    assert all(hint for _, _, hint in found())


def test_a_wrong_type_is_told_once_and_does_not_hide_unknown_names(imgo):
    imgo(MAX_BODY="big", NOPE=1, JWT_SECRET="short")
    assert ids() == ["imgo.E001", "imgo.E002"]


def test_every_callable_that_can_be_set_is_checked():
    dotted = {
        name
        for name, field in ImgoSettings.__dataclass_fields__.items()
        if isinstance(field.default, str) and field.metadata["help"].startswith("Dotted path")
    }
    assert set(module.CALLABLES) == dotted


def test_every_number_that_can_be_set_has_a_range():
    numbers = {
        name
        for name, field in ImgoSettings.__dataclass_fields__.items()
        if type(field.default) in {int, float}
    }
    assert set(limits.RANGES) == numbers


def test_defaults_are_within_ranges_that_say_what_they_are():
    for name, allowed in limits.RANGES.items():
        assert allowed.has(getattr(ImgoSettings, name))
    assert str(limits.Range(0, 9)) == "from 0 to 9"
    assert str(limits.POSITIVE) == "more than 0 and at most 2147483647"
    assert str(limits.POSITIVE_INTEGER) == "from 1 to 2147483647"


# The channel layer

PUBSUB = "push.layers.PubSubChannelLayer"
IN_PROCESS = "push.layers.InProcessChannelLayer"
STOCK = "channels.layers.InMemoryChannelLayer"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((PUBSUB, "redis://x", "postgres://x"), []),
        ((PUBSUB, "", "postgres://x"), ["imgo.E008"]),
        ((IN_PROCESS, "", ""), []),
        ((IN_PROCESS, "", "postgres://x"), ["imgo.W007"]),
        ((IN_PROCESS, "redis://x", "postgres://x"), ["imgo.E008"]),
        ((STOCK, "", ""), ["imgo.W008"]),
        ((STOCK, "", "postgres://x"), ["imgo.W007", "imgo.W008"]),
        ((STOCK, "redis://x", "postgres://x"), ["imgo.E008", "imgo.W008"]),
        (("channels_redis.core.RedisChannelLayer", "redis://x", "postgres://x"), ["imgo.W009"]),
        (("", "redis://x", "postgres://x"), ["imgo.E008"]),
    ],
)
@pytest.mark.services
def test_a_layer_that_loses_messages_has_its_id(settings, monkeypatch, given, expected):
    layer, redis_url, database_url = given
    config = {"hosts": [redis_url or "redis://x"]} if layer == PUBSUB else {}
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": layer, "CONFIG": config}} if layer else {}
    settings.REDIS_URL = redis_url
    if not database_url:
        monkeypatch.setattr("push.checks.layers.is_shared_database", lambda: False)
    assert ids() == expected


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "no default layer"),
        ("x", "no default layer"),
        ({"default": PUBSUB}, "no default layer"),
        ({"default": {}}, "no default layer"),
        ({"default": {"BACKEND": "no.such.Layer"}}, "Cannot import BACKEND 'no.such.Layer'"),
        ({"default": {"BACKEND": ".."}}, ".. cannot be made"),
        ({"default": {"BACKEND": PUBSUB}}, "its CONFIG has no hosts"),
        ({"default": {"BACKEND": PUBSUB, "CONFIG": None}}, "cannot be made: TypeError"),
        ({"default": {"BACKEND": PUBSUB, "CONFIG": {"hosts": []}}}, "its CONFIG has no hosts"),
        ({"default": {"BACKEND": PUBSUB, "CONFIG": {"hosts": "redis://x"}}}, "a list of Redis"),
        ({"default": {"BACKEND": PUBSUB, "CONFIG": {"hosts": ["x"]}}}, "hosts of its CONFIG"),
        ({"default": {"BACKEND": PUBSUB, "CONFIG": {"hosts": [7]}}}, "hosts of its CONFIG"),
        ({"default": {"BACKEND": IN_PROCESS, "CONFIG": {"foo": 1}}}, "cannot be made: TypeError"),
    ],
    ids=str,
)
def test_a_layer_that_cannot_be_made_is_one_error(settings, given, said):
    settings.CHANNEL_LAYERS = given
    settings.REDIS_URL = "redis://x"
    ((id_, message, hint),) = found()
    assert id_ == "imgo.E008"
    assert said in message
    assert hint is not None


@pytest.mark.parametrize(
    "host",
    [
        ("h", 6379),
        {"address": "redis://h/1", "socket_timeout": 3},
        {"master_name": "m", "sentinels": [("h", 26379)]},
    ],
    ids=str,
)
@pytest.mark.services
def test_a_layer_takes_what_channels_redis_does(settings, host):
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": PUBSUB, "CONFIG": {"hosts": [host]}}}
    assert found() == []


# Redis


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("foo", "must specify one of the following schemes"),
        ("redis://h/0?foo=bar", "it takes no option 'foo'"),
        ("redis://h/0?protocol=9", "protocol must be"),
        ("redis://h/0?socket_timeout=abc", "socket_timeout"),
        ("redis://h/abc", "its path is the number of a database"),
        ("redis://[", "Invalid IPv6 URL"),
    ],
)
@pytest.mark.services
def test_a_redis_that_no_client_can_be_made_of_is_an_error(settings, url, reason):
    settings.REDIS_URL = url
    assert_only_error("imgo.E042", reason)


# Strangers


@pytest.mark.parametrize(
    ("hosts", "host", "expected"),
    [
        (["localhost", "127.0.0.1", "[::1]"], "127.0.0.1", []),
        (["push.example.com"], "127.0.0.1", ["imgo.W012"]),
        (["*"], "127.0.0.1", ["imgo.W012"]),
        ([], "0.0.0.0", ["imgo.W012"]),
        ([], "push.example.com", ["imgo.W012"]),
        ([], "localhost", []),
    ],
)
def test_debug_where_strangers_come_is_a_warning(settings, imgo, hosts, host, expected):
    imgo(HOST=host)
    settings.ALLOWED_HOSTS = hosts
    assert ids() == []
    settings.DEBUG = True
    assert ids() == expected


def test_the_demo_behind_a_proxy_is_a_warning(settings, imgo):
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    imgo(TRUSTED_PROXIES=["10.0.0.5"])
    assert ids() == []
    imgo(DEMO="on")
    assert ids() == ["imgo.W013"]


def test_a_tls_proxy_that_is_not_named_is_an_error(settings, imgo):
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    assert ids() == ["imgo.E040"]
    imgo(TRUSTED_PROXIES=["10.0.0.5"])
    assert ids() == []


# The project around it


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"USE_TZ": False}, ["imgo.E022"]),
        ({"MIDDLEWARE": []}, ["imgo.E021", "imgo.W031", "imgo.W032"]),
        ({"FORCE_SCRIPT_NAME": "/push"}, []),
        ({"FORCE_SCRIPT_NAME": "/api/push"}, ["imgo.E027"]),
        ({"ROOT_URLCONF": "push.urls"}, []),  # without the namespace there are no pages of ours
        ({"ROOT_URLCONF": "tests.hosts.no_admin_urls"}, ["imgo.E023"]),
        ({"ROOT_URLCONF": "tests.hosts.no_urls"}, ["imgo.W040"]),
        ({"MIDDLEWARE": django_settings.MIDDLEWARE[::-1]}, ["imgo.E021"]),
        ({"SESSION_ENGINE": "django.contrib.sessions.backends.nosuch"}, ["imgo.E045"]),
        ({"AUTHENTICATION_BACKENDS": ["nosuch.Backend"]}, ["imgo.E045"]),
        (
            {
                "SESSION_ENGINE": "django.contrib.sessions.backends.cache",
                "SESSION_CACHE_ALIAS": "nosuch",
            },
            ["imgo.E046"],
        ),
    ],
    ids=str,
)
def test_setting_of_the_project_that_cannot_work_has_its_id(settings, given, expected):
    for name, value in given.items():
        setattr(settings, name, value)
    told = [(id_, hint) for id_, _, hint in found()]
    assert sorted(id_ for id_, _ in told) == expected
    assert all(hint for _, hint in told)


def test_proxies_that_nobody_asks_are_an_error(settings, imgo):
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if "imgo_site" not in name]
    assert ids() == ["imgo.W031"]
    imgo(TRUSTED_PROXIES=["10.0.0.1"])
    assert ids() == ["imgo.E021"]


def test_probes_that_are_refused_by_address_are_a_warning(settings):
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if name != "push.probes.Probes"]
    assert ids() == ["imgo.W032"]


def test_database_without_autocommit_is_an_error(monkeypatch):
    monkeypatch.setitem(connection.settings_dict, "AUTOCOMMIT", False)
    assert ids() == ["imgo.E043"]


class ReadsElsewhere:
    def db_for_read(self, model, **_hints):
        return "replica" if model is Node else None


class WritesElsewhere:
    def db_for_write(self, model, **_hints):
        return "other" if model._meta.app_label == "offline" else None


class Others:
    def db_for_write(self, model, **_hints):
        return "other" if model._meta.app_label == "sessions" else None


class Fails:
    def db_for_read(self, model, **_hints):
        raise KeyError(model)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ReadsElsewhere", "send push.Node to 'replica': "),
        ("WritesElsewhere", "send offline."),
        ("Fails", "cannot be asked (KeyError: "),
    ],
)
def test_routers_that_send_rows_elsewhere_are_an_error(monkeypatch, name, said):
    monkeypatch.setattr(router, "routers", ConnectionRouter([f"{__name__}.{name}"]).routers)
    ((id_, message, hint),) = found()
    assert id_ == "imgo.E044"
    assert message.startswith(f"DATABASE_ROUTERS {said}")
    assert "accounts, offline, push" in hint


@pytest.mark.parametrize(
    ("alias", "reason"),
    [
        ("default", "which is the primary"),
        ("other", "which is no alias in DATABASES"),
        ("replica", "'replica' is not one of imgo's engine"),
        ("standby", "DATABASE_ROUTERS lacks imgo's router"),
    ],
)
def test_replica_that_cannot_be_read_is_an_error(imgo, monkeypatch, alias, reason):
    ours = {"ENGINE": "imgo_site.postgres"}
    others = {"replica": {"ENGINE": "django.db.backends.postgresql"}, "standby": ours}
    monkeypatch.setattr(django_settings, "DATABASES", {"default": ours, **others})
    imgo(REPLICA_DATABASE=alias)
    # Other checks may warn of a shared database without Redis.
    ((message, hint),) = [(text, hint) for id_, text, hint in found() if id_ == "imgo.E057"]
    assert reason in message
    assert hint


def test_routers_of_other_apps_are_no_matter(monkeypatch):
    monkeypatch.setattr(router, "routers", ConnectionRouter([f"{__name__}.Others"]).routers)
    assert found() == []


@pytest.mark.parametrize(("size", "expected"), [(1, True), (2, True), (3, False)])
def test_pool_that_is_too_small_is_an_error(monkeypatch, size, expected):
    pool = {"min_size": 1, "max_size": size}
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "pool", pool)
    assert ("imgo.E024" in ids()) is expected


# The machine, Postgres and Redis: with --deploy


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"SECRET_KEY": "x"}, ["imgo.E025"]),
        ({"SECRET_KEY": "x" * 64}, ["imgo.E025"]),
        ({"SECRET_KEY": "changeme-changeme"}, ["imgo.E025"]),
        ({"ALLOWED_HOSTS": ["push.example.com", "*"]}, ["imgo.E026"]),
        ({"ALLOWED_HOSTS": [".example.com"]}, []),
    ],
    ids=str,
)
def test_deployment_that_strangers_can_enter_is_an_error(many_files, settings, given, expected):
    for name, value in given.items():
        setattr(settings, name, value)
    assert deploy_ids() == expected


def deploy_ids(databases: list[str] | None = None) -> list[str]:
    found = run_checks(include_deployment_checks=True, databases=databases)
    return sorted(m.id for m in found if m.id.startswith("imgo."))


@pytest.fixture
def many_files(monkeypatch):
    monkeypatch.setattr("imgo_site.open_files.limits", lambda: (1024, 1_000_000))


@pytest.mark.parametrize(
    ("most", "expected"), [(4096, ["imgo.W014"]), (10_099, ["imgo.W014"]), (10_100, [])]
)
def test_too_few_open_files_are_a_warning(monkeypatch, most, expected):
    monkeypatch.setattr("imgo_site.open_files.limits", lambda: (1024, most))
    assert deploy_ids() == expected
    assert ids() == []  # without --deploy


def test_the_limit_of_files_is_this_process_s(monkeypatch):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before[1] // 2, before[1]))
        assert files.limits() == (before[1] // 2, before[1])
        files.raise_limit()
        assert files.limits() == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.django_db
def test_more_connections_than_postgres_takes_are_a_warning(many_files, imgo, monkeypatch):
    monkeypatch.setenv("WEB_CONCURRENCY", "2")
    assert deploy_ids(["default"]) == []
    imgo(PARTITIONS=900)
    assert deploy_ids() == []  # Postgres is not asked
    assert deploy_ids(["default"]) == ["imgo.W015", "imgo.W016"]
    imgo(PARTITIONS=4)
    monkeypatch.setenv("WEB_CONCURRENCY", "100")
    assert deploy_ids(["default"]) == ["imgo.W015"]


@pytest.mark.django_db
def test_redis_that_drops_keys_or_is_nearly_full_is_a_warning(many_files, redis_client):
    used = redis_client.info("memory")["used_memory"]
    try:
        redis_client.config_set("maxmemory", used * 4)
        assert deploy_ids(["default"]) == []
        redis_client.config_set("maxmemory-policy", "allkeys-lru")
        assert deploy_ids() == []  # Redis is not asked
        assert deploy_ids(["default"]) == ["imgo.W035"]
        redis_client.config_set("maxmemory-policy", "noeviction")
        redis_client.config_set("maxmemory", int(used * 1.1))
        assert deploy_ids(["default"]) == ["imgo.W036"]
    finally:
        redis_client.config_set("maxmemory", 0)
        redis_client.config_set("maxmemory-policy", "noeviction")


@pytest.mark.django_db
def test_what_runs_is_counted():
    for number in range(3):
        Node.objects.announce(f"n{number}")
    Node.objects.filter(name="n2").update(last_seen="2020-01-01T00:00Z")
    assert capacity.count_processes() == capacity.Processes(nodes=2, workers=4, api=2)
    assert str(capacity.count_processes()) == "2 nodes, 4 workers and 2 API processes"


def test_a_database_that_is_away_fails_no_check(many_files, database_down):
    assert deploy_ids(["default"]) == ["imgo.I001"]
    call_command("check", "--deploy", "--database", "default", "--fail-level", "ERROR")


@pytest.mark.django_db
def test_a_redis_that_is_away_fails_no_check(many_files, settings, closed_port):
    settings.REDIS_URL = f"redis://127.0.0.1:{closed_port}/0"
    assert deploy_ids(["default"]) == ["imgo.I001"]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("nonsense://h", "No such transport: nonsense"),
        ("confluentkafka://h", "the Python package for it is not installed"),
        ("redis://h:x/0", "Port could not be cast"),
        ("foo", "it has no scheme"),
        ("redis://h/0?foo=bar", "it takes no option 'foo'"),
        ("amqp://h?foo=bar", "it takes no option 'foo'"),
        ("amqp://h?heartbeat=x", "could not convert"),
        ("redis://h?socket_timeout=abc", "it takes no option 'socket_timeout'"),
        ("redis://h?protocol=9", "it takes no option 'protocol'"),
        ("redis://h?health_check_interval=x", "it takes no option 'health_check_interval'"),
        ("redis://h?db=x", "it takes no option 'db'"),
        ("redis://h?max_connections=x", "it takes no option 'max_connections'"),
        ("redis://h/abc", "its path is the number of a database"),
        ("redis://a;redis://b?foo=bar", "it takes no option 'foo'"),
    ],
)
def test_a_broker_that_celery_cannot_speak_to_is_an_error(settings, url, reason):
    settings.IMGO_BROKER_URL = url
    assert_only_error("imgo.E009", reason)


@pytest.mark.parametrize(
    "url", ["redis://h", "redis://h/1", "amqp://h/x", "redis://a;redis://b/2", "sentinel://a:1;b:2"]
)
def test_a_broker_that_celery_knows_is_not_connected_to(settings, url):
    settings.IMGO_BROKER_URL = url
    assert found() == []


@pytest.mark.django_db
def test_a_number_of_partitions_other_than_the_settings_is_told(imgo):
    imgo(PARTITIONS=4)
    assert capacity.check_partitions(["default"]) == []
    Partitioning.objects.create(partitions=8)
    (message,) = capacity.check_partitions(["default"])
    assert (message.id, "IMGO_PARTITIONS=8" in message.hint) == ("imgo.W050", True)
    imgo(PARTITIONS=8)
    assert capacity.check_partitions(["default"]) == capacity.check_partitions() == []
