"""The project's own tests, with each kind of database. They run in a process without the server."""

from collections.abc import Callable

import pytest

from .shop import Shop


def test_tests_of_a_project_pass(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop()
    done = shop.manage("test", "--noinput", "shop.tests", "--shuffle")
    assert done.returncode == 0, done.stderr[-20_000:]
    assert "Ran 0 tests" not in done.stderr


def test_migrations_are_complete(make_shop: Callable[..., Shop]) -> None:
    done = make_shop().manage("makemigrations", "--check", "--dry-run")
    assert (done.returncode, done.stdout.strip()) == (0, "No changes detected"), done


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
    words = ["-m", "pytest", "-q", "-p", "imgo_client.pytest_plugin", "-p", "no:asyncio"]
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
