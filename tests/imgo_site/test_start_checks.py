"""Servers that `manage.py` does not start refuse the settings that `manage.py imgo` refuses."""

import os
from pathlib import Path

import pytest

from tests import fork_server

pytestmark = pytest.mark.services

ROOT = Path(__file__).resolve().parent.parent.parent
GUNICORN = (
    "-m", "gunicorn", "-c", "python:imgo_site.gunicorn", "--no-control-socket", "-b", "127.0.0.1:0",
)  # fmt: skip
SITE = (*GUNICORN, "imgo_site.wsgi")
WORKER = ("-m", "celery", "-A", "imgo_site", "worker")
MANAGE = ("manage.py", "imgo")
NOWHERE = {  # nobody listens at these
    "DATABASE_URL": "postgres://nobody@127.0.0.1:1/none",
    "REDIS_URL": "redis://127.0.0.1:1",
    "SECRET_KEY": "a key for the tests of starts, long enough for no warning at all",
}
SHOP_SETTINGS = """
from imgo_site.settings import *

INSTALLED_APPS = [*INSTALLED_APPS, "shop"]
SILENCED_SYSTEM_CHECKS = ["shop.E002"]
"""
SHOP_CHECKS = """
from django.core.checks import Error, register

@register
def check_shop(**_):
    return [Error("The shop is closed.", id="shop.E001"), Error("Nobody cares.", id="shop.E002")]
"""
SHOP_WSGI = """
import os

os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
from imgo_site.wsgi import application
"""


def start(*command: str, **environment: str) -> tuple[int, list[str]]:
    """Run a server that refuses to start: its exit status, and the lines that tell why."""
    done = fork_server.run(command, ROOT, {**os.environ, **NOWHERE, **environment}, timeout=60)
    assert "Traceback" not in done.stderr
    assert "Booting worker" not in done.stderr
    return done.returncode, [s for s in done.stderr.splitlines() if "Starting gunicorn" not in s]


@pytest.mark.parametrize("command", [SITE, WORKER], ids=["gunicorn", "celery"])
@pytest.mark.parametrize(
    ("setting", "value", "start_of_line"),
    [
        ("IMGO_MAX_BODY", "0", "Wrong settings: MAX_BODY is 0 (imgo.E006). It must be from 1"),
        ("IMGO_MAX_BODY", "abc", "Wrong settings: IMGO setting MAX_BODY='abc' must be of type int"),
        (
            "IMGO_AUTHENTICATOR",
            "nosuch.mod",
            "Wrong settings: IMGO setting AUTHENTICATOR: No module named 'nosuch' (imgo.E003).",
        ),
        ("LOG_FORMAT", "xml", "Wrong settings: LOG_FORMAT='xml': say json, or line."),
    ],
)
def test_server_with_wrong_settings_ends_with_a_line(
    command, setting, value, start_of_line, tmp_path
):
    status, lines = start(*command, **{setting: value, "TMPDIR": str(tmp_path)})
    assert status == 1
    (line,) = lines
    assert line.startswith(start_of_line)
    assert not list(tmp_path.iterdir())  # gunicorn's directory of counts is gone


@pytest.mark.parametrize("kind", ["gunicorn", "celery"])
def test_each_error_of_a_project_is_a_line_but_for_silenced_ones(kind, tmp_path):
    shop = tmp_path / "shop"
    shop.mkdir()
    (shop / "__init__.py").write_text("")
    (shop / "settings.py").write_text(SHOP_SETTINGS)
    (shop / "models.py").write_text(SHOP_CHECKS)
    (shop / "wsgi.py").write_text(SHOP_WSGI)
    environment = {"PYTHONPATH": str(tmp_path), "IMGO_MAX_BODY": "0"}
    if kind == "celery":
        status, lines = start(*WORKER, **environment, DJANGO_SETTINGS_MODULE="shop.settings")
    else:
        status, lines = start(*GUNICORN, "shop.wsgi", **environment)
    assert status == 1
    assert sorted(lines) == [
        "Wrong settings: MAX_BODY is 0 (imgo.E006). It must be from 1 to 2147483647.",
        "Wrong settings: The shop is closed (shop.E001).",
    ]


# Each program makes these checks in one way, so each mistake is shown to one of them.
@pytest.mark.parametrize(
    ("kind", "setting", "reported"),
    [
        ("manage", "ROOT_URLCONF = 'nosuch.urls'", "ROOT_URLCONF has 'nosuch.urls'"),
        ("gunicorn", "INSTALLED_APPS += ['nosuch']", "INSTALLED_APPS has 'nosuch'"),
        ("celery", "MIDDLEWARE += ['nosuch.Middleware']", "MIDDLEWARE has 'nosuch.Middleware'"),
        (
            "manage",
            "AUTHENTICATION_BACKENDS = ['nosuch.B']",
            "AUTHENTICATION_BACKENDS has 'nosuch.B'",
        ),
        ("gunicorn", "SESSION_ENGINE = 'nosuch.engine'", "SESSION_ENGINE has 'nosuch.engine'"),
        ("celery", "TEMPLATES[0]['BACKEND'] = 'nosuch.T'", "TEMPLATES has 'nosuch.T'"),
        (
            "manage",
            "TEMPLATES[0].update(APP_DIRS=False, OPTIONS={'loaders': ['nosuch.L']})",
            "No page can be served with these TEMPLATES",
        ),
        ("manage", "SECRET_KEY = ''", "No page can be served with this SECRET_KEY"),
        ("gunicorn", "TIME_ZONE = 'No/Where'", "Incorrect timezone setting: No/Where"),
        ("celery", "LOGGING['handlers']['x'] = {'class': 'nosuch.H'}", "Cannot resolve 'nosuch.H'"),
    ],
)
def test_setting_that_django_cannot_use_is_an_error_without_traceback(
    kind, setting, reported, tmp_path
):
    shop = tmp_path / "shop"
    shop.mkdir()
    (shop / "__init__.py").write_text("")
    (shop / "settings.py").write_text(f"from imgo_site.settings import *\n{setting}\n")
    (shop / "wsgi.py").write_text(SHOP_WSGI)
    environment = {"PYTHONPATH": str(tmp_path), "DJANGO_SETTINGS_MODULE": "shop.settings"}
    command = {"celery": WORKER, "gunicorn": [*GUNICORN, "shop.wsgi"], "manage": MANAGE}[kind]
    status, lines = start(*command, **environment)
    assert status == 1
    assert reported in "\n".join(lines)
