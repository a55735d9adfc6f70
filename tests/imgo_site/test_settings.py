"""Django's settings from the environment: the secret key's file, flags, the two modes."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from imgo_site import environment
from imgo_site import settings as module
from tests import fork_server

pytestmark = pytest.mark.services

ROOT = Path(module.__file__).resolve().parent.parent
SERVICES = {"DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL", "DJANGO_SECRET_KEY"}


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python with nothing in the environment that sets a service."""
    return fork_server.run(command, ROOT, {**kept_environment(), **environment}, timeout=60)


def kept_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in SERVICES}


@pytest.fixture
def embedded(tmp_path, monkeypatch):
    """The data directory of an embedded setup, not made yet."""
    directory = tmp_path / "data"
    monkeypatch.setattr(module, "DATA_DIR", directory)
    monkeypatch.setattr(module, "DATABASE_URL", "")
    monkeypatch.delenv("DJANGO_SECRET_KEY")
    return directory


def test_the_first_start_makes_a_secret_key_and_keeps_it(embedded):
    key = module._secret_key()
    assert len(key) >= 50
    assert module._secret_key() == key
    assert [path.name for path in embedded.iterdir()] == ["secret_key"]


def test_nobody_else_can_read_the_secret_key(embedded):
    module._secret_key()
    assert (embedded / "secret_key").stat().st_mode & 0o777 == 0o600


def test_database_file_of_an_older_version_is_made_private(tmp_path):
    files = [tmp_path / f"imgo.sqlite3{end}" for end in ("", "-wal", "-shm")]
    for file in files:
        file.write_bytes(b"x")
        file.chmod(0o644)
    module._make_private(files[0])
    assert [file.stat().st_mode & 0o777 for file in files] == [0o600] * 3
    assert files[0].read_bytes() == b"x"


def test_database_directory_that_is_made_is_private(tmp_path):
    file = tmp_path / "data" / "imgo.sqlite3"
    module._make_private(file)
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("size", ["0", "1", "2", "many"])
def test_pool_size_that_does_not_work_is_refused(monkeypatch, size):
    monkeypatch.setenv("DATABASE_POOL_SIZE", size)
    with pytest.raises(ImproperlyConfigured, match=r"DATABASE_POOL_SIZE=.* of 3 or more"):
        environment.at_least(3, "DATABASE_POOL_SIZE", 4)


def test_two_setups_have_different_secret_keys(embedded, monkeypatch, tmp_path):
    first = module._secret_key()
    monkeypatch.setattr(module, "DATA_DIR", tmp_path / "other")
    assert module._secret_key() != first


def test_the_environment_names_the_secret_key(embedded, monkeypatch):
    monkeypatch.setenv("DJANGO_SECRET_KEY", "given")
    assert module._secret_key() == "given"
    assert not embedded.exists()


def test_production_does_not_make_up_a_secret_key(embedded, monkeypatch):
    monkeypatch.setattr(module, "DATABASE_URL", "postgres://db/imgo")
    with pytest.raises(ImproperlyConfigured, match="DJANGO_SECRET_KEY"):
        module._secret_key()


def test_first_starts_at_once_agree_on_one_secret_key(tmp_path):
    code = "from imgo_site import settings; print(settings.SECRET_KEY)"
    with ThreadPoolExecutor(4) as pool:
        starts = list(pool.map(lambda _: run("-c", code, IMGO_DATA_DIR=str(tmp_path)), range(4)))
    key = (tmp_path / "secret_key").read_text()
    assert [(done.stdout, done.stderr) for done in starts] == [(f"{key}\n", "")] * 4


@pytest.mark.parametrize(
    ("text", "value"), [("1", True), (" Yes ", True), ("off", False), ("0", False), ("", False)]
)
def test_a_flag_is_read(monkeypatch, text, value):
    monkeypatch.setenv("IMGO_TEST_FLAG", text)
    assert environment.flag("IMGO_TEST_FLAG") is value


def test_a_flag_that_is_neither_is_an_error(monkeypatch):
    monkeypatch.setenv("IMGO_TEST_FLAG", "maybe")
    with pytest.raises(ImproperlyConfigured, match="IMGO_TEST_FLAG='maybe'"):
        environment.flag("IMGO_TEST_FLAG")


def test_no_flag_is_its_default(monkeypatch):
    monkeypatch.delenv("IMGO_TEST_FLAG", raising=False)
    assert environment.flag("IMGO_TEST_FLAG", default=True)


SHOW = """
from imgo_site import settings as s
print(s.DATABASES["default"]["ENGINE"], s.CHANNEL_LAYERS["default"]["BACKEND"],
      not s.IMGO_BROKER_URL, s.DEBUG, s.ALLOWED_HOSTS)
"""


def test_with_no_environment_everything_is_in_one_process(tmp_path):
    done = run("-c", SHOW, IMGO_DATA_DIR=str(tmp_path), DJANGO_ALLOWED_HOSTS="")
    assert done.stderr == ""
    layer = "push.layers.InProcessChannelLayer"
    assert done.stdout == f"django.db.backends.sqlite3 {layer} True False []\n"


def test_with_the_services_nothing_is_kept_in_the_process(tmp_path):
    done = run(
        "-c",
        SHOW,
        DATABASE_URL="postgres://db/imgo",
        REDIS_URL="redis://cache",
        DJANGO_SECRET_KEY="given",
        DJANGO_ALLOWED_HOSTS="push.example",
    )
    assert done.stderr == ""
    layer = "push.layers.PubSubChannelLayer"
    assert done.stdout == f"imgo_site.postgres {layer} False False ['push.example']\n"


def test_an_embedded_server_takes_requests_for_this_machine_alone(tmp_path, monkeypatch):
    monkeypatch.delenv("DJANGO_ALLOWED_HOSTS")
    done = run("-c", SHOW, IMGO_DATA_DIR=str(tmp_path))
    assert done.stderr == ""
    assert done.stdout.endswith("['localhost', '127.0.0.1', '[::1]']\n")


def test_seconds_are_a_number(monkeypatch):
    monkeypatch.delenv("DJANGO_HSTS_SECONDS", raising=False)
    assert environment.seconds("DJANGO_HSTS_SECONDS", 3600) == 3600
    monkeypatch.setenv("DJANGO_HSTS_SECONDS", "0")
    assert environment.seconds("DJANGO_HSTS_SECONDS", 3600) == 0
    monkeypatch.setenv("DJANGO_HSTS_SECONDS", "a year")
    with pytest.raises(ImproperlyConfigured, match="DJANGO_HSTS_SECONDS='a year'"):
        environment.seconds("DJANGO_HSTS_SECONDS", 3600)


@pytest.mark.parametrize("text", ["nonsense", "foo://h/x", "postgres://u:pass/word@h:x/", "::"])
def test_a_database_url_that_cannot_be_read_says_how_to_write_one(monkeypatch, text):
    monkeypatch.setattr(module, "DATABASE_URL", text)
    with pytest.raises(ImproperlyConfigured, match="write postgres://") as error:
        module._database()
    assert "pass" not in str(error.value).replace("password", "")


@pytest.mark.parametrize("text", ["0", "x", "-1", "1.5"])
def test_a_pool_has_one_connection_or_more(monkeypatch, text):
    monkeypatch.setenv("DATABASE_POOL_SIZE", text)
    with pytest.raises(ImproperlyConfigured, match="DATABASE_POOL_SIZE="):
        module._database()


@pytest.mark.parametrize(
    "text",
    [
        *("http://h", "redis://h:x/0", "h:6379", "redis://h/abc", "redis://["),
        *("redis://h/0?foo=bar", "redis://h/0?protocol=9", "redis://h/0?socket_timeout=x"),
    ],
)
def test_a_redis_url_that_cannot_be_read_says_how_to_write_one(monkeypatch, text):
    monkeypatch.setattr(module, "REDIS_URL", text)
    with pytest.raises(ImproperlyConfigured, match="say redis://"):
        module._check_redis_url()


def test_a_data_directory_that_cannot_be_made_is_said_with_its_setting(embedded):
    embedded.write_text("a file")
    for read in (module._secret_key, module._database):
        with pytest.raises(ImproperlyConfigured, match=r"data cannot be used \(.+IMGO_DATA_DIR"):
            read()


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"LOG_LEVEL": "loud"}, "Wrong settings: LOG_LEVEL='LOUD': say DEBUG, INFO, WARNING"),
        ({"DATABASE_URL": "nonsense"}, "Wrong settings: DATABASE_URL cannot be read: write"),
        ({"REDIS_URL": "redis://h/0?foo=bar"}, "Wrong settings: REDIS_URL cannot be read"),
        ({"PROMETHEUS_MULTIPROC_DIR": "/none/x"}, "Wrong settings: PROMETHEUS_MULTIPROC_DIR='/no"),
        ({"DJANGO_CSRF_TRUSTED_ORIGINS": "http://["}, "Wrong settings: DJANGO_CSRF_TRUSTED_ORI"),
        ({"DJANGO_CSRF_TRUSTED_ORIGINS": "a.example"}, "Wrong settings: DJANGO_CSRF_TRUSTED_ORI"),
        ({"DATABASE_URL": "postgres://127.0.0.1:1/x"}, "The database cannot be used: "),
    ],
    ids=str,
)
def test_wrong_settings_are_one_line_for_whatever_command(tmp_path, environment, said):
    known = {"IMGO_DATA_DIR": str(tmp_path), "DJANGO_SECRET_KEY": "given"}
    done = run("manage.py", "migrate", **{**known, **environment})
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    # A thread of the pool may log after it.
    assert any(line.startswith(said) for line in done.stderr.splitlines())


def test_manage_py_without_the_packages_says_how_to_get_them():
    command = [sys.executable, "-S", "manage.py", "check"]  # -S: no installed package
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("No module named '")
    assert ". .venv/bin/activate" in done.stderr


# What docs/deploying.md says, with a database and a Redis that nobody needs for it.
PRODUCTION = {
    "DATABASE_URL": "postgres://db/imgo",
    "REDIS_URL": "redis://cache",
    "DJANGO_SECRET_KEY": "kept-by-Somebody-0123456789-abcdefghijklmnopqrstuvwxyz",
    "DJANGO_ALLOWED_HOSTS": "push.example.com",
    "DJANGO_BEHIND_TLS_PROXY": "1",
    "IMGO_TRUSTED_PROXIES": "10.0.0.5",
}
CHECK = """
from django.core.management import execute_from_command_line
from imgo_site import open_files

open_files.limits = lambda: (1024, 1_000_000)  # those of this machine are not what is tested
execute_from_command_line(["manage.py", "check", "--deploy", "--fail-level", "WARNING"])
"""


def test_deployment_checks_of_django_find_nothing_in_the_documented_one():
    done = run("-c", CHECK, **PRODUCTION, DJANGO_SETTINGS_MODULE="imgo_site.settings")
    assert done.stderr == ""
    assert done.stdout == "System check identified no issues (2 silenced).\n"


ANSWERS = """
import django
django.setup()
from django.test import Client
client = Client(headers={"host": "push.example.com"}, REMOTE_ADDR="10.0.0.5")
for path in ("/healthz", "/api/v1/nothing", "/1/nothing", "/goim/nothing", "/nothing"):
    print(path, client.get(path).status_code)
answer = client.get("/nothing", headers={"x-forwarded-proto": "https"})
print(answer.headers["Strict-Transport-Security"])
"""


def test_behind_tls_browsers_are_sent_to_it_and_backends_inside_are_not():
    done = run(
        "-c",
        ANSWERS,
        **PRODUCTION,
        DJANGO_SETTINGS_MODULE="imgo_site.settings",
        DJANGO_HSTS_SECONDS="60",
        LOG_LEVEL="CRITICAL",
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "/healthz 200",
        "/api/v1/nothing 404",
        "/1/nothing 404",
        "/goim/nothing 404",
        "/nothing 301",
        "max-age=60",
    ]
