"""The project's own tests, with each kind of database. They run in a process without the server."""

import json
from collections.abc import Callable

import pytest

from .shop import Shop


@pytest.mark.long(but=["sqlite"])
def test_tests_of_a_project_pass(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop()
    done = shop.manage("test", "--noinput", "shop.tests", "--shuffle")
    assert done.returncode == 0, done.stderr[-20_000:]
    assert "Ran 0 tests" not in done.stderr


MIDDLEWARE = (
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
)


@pytest.mark.long
def test_tests_of_a_project_pass_with_unusual_settings(make_shop: Callable[..., Shop]) -> None:
    """Local times without time zones, a transaction for each request, a login for every page."""
    shop = make_shop()
    unusual = {"USE_TZ": False, "TIME_ZONE": "America/New_York", "MIDDLEWARE": MIDDLEWARE}
    shop.variables["SHOP_SETTINGS"] = json.dumps({**unusual, "APPEND_SLASH": False})
    shop.databases["default"]["ATOMIC_REQUESTS"] = True
    done = shop.manage("test", "--noinput", "shop.tests", "--shuffle")
    assert done.returncode == 0, done.stderr[-20_000:]
    assert "Ran 0 tests" not in done.stderr


@pytest.mark.long(but=["sqlite"])
def test_migrations_are_complete(make_shop: Callable[..., Shop]) -> None:
    done = make_shop().manage("makemigrations", "--check", "--dry-run")
    assert (done.returncode, done.stdout.strip()) == (0, "No changes detected"), done


@pytest.mark.long(but=["sqlite"])
def test_status_without_migrations_names_the_command(make_shop: Callable[..., Shop]) -> None:
    done = make_shop(URL="http://127.0.0.1:1", API_KEY="key").manage("imgo_status")
    assert done.returncode == 1
    assert "outbox (default): its tables are missing or old: run manage.py migrate" in done.stdout


PLUGIN_TEST = """
import pytest
from imgo_client.django import push_to_all, push_to_key


@pytest.mark.parametrize("body", [1, 2])
def test_pushes_of_one_test_are_in_the_fixture(imgo_pushes, body):
    assert imgo_pushes == []
    push_to_key("alice", body)
    (push,) = imgo_pushes
    assert (push.key, push.body) == ("alice", body)


@pytest.mark.django_db(transaction=True)
def test_transactions_are_real_if_the_test_wants_it(imgo_pushes):
    push_to_all(3)
    assert len(imgo_pushes.matching(3, all=True)) == 1
"""


@pytest.mark.parametrize("vendor", ["sqlite"], indirect=True)
def test_fixture_of_the_pytest_plugin_has_the_pushes(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop()
    (shop.home / "test_plugin.py").write_text(PLUGIN_TEST)
    shop.variables["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # those of our own tests take a second
    words = ["-m", "pytest", "-q", "-p", "pytest_django.plugin", "-p", "imgo_client.pytest_plugin"]
    done = shop.python(*words, "test_plugin.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


@pytest.mark.parametrize("vendor", ["sqlite"], indirect=True)
def test_pytest_plugin_imports_no_django(make_shop: Callable[..., Shop]) -> None:
    program = "import sys, imgo_client.pytest_plugin; print('django' in sys.modules)"
    assert make_shop().python("-c", program).stdout == "False\n"


@pytest.mark.parametrize("vendor", ["sqlite"], indirect=True)
def test_app_works_where_nothing_of_the_server_is(make_shop: Callable[..., Shop]) -> None:
    """Importing every module of the app finds none of the server's packages."""
    program = """
import pkgutil, sys
import imgo_client.django
for found in pkgutil.walk_packages(imgo_client.django.__path__, "imgo_client.django."):
    __import__(found.name)
print(sorted(sys.modules.keys() & {"accounts", "imgo_site", "offline", "push"}))
"""
    assert make_shop().run(program) == "[]\n"
