"""Databases of each kind for the project `shop`, and real imgo servers."""

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.e2e.conftest import (  # noqa: F401 - fixtures
    clean_logs,
    enter,
    homes,
    make_embedded,
    own_system,
    sqlite_template,
)
from tests.e2e.harness import Database

from .shop import Databases, Shop

collect_ignore = ["project"]  # a project's own tests, which run in its processes

VENDORS = ("sqlite", "postgres", "mariadb")
if os.environ.get("TESTS_WITHOUT_MARIADB"):  # `make test` says so
    VENDORS = VENDORS[:2]


@pytest.fixture(scope="session")
def mariadb() -> Iterator[Any]:
    """A MariaDB server for all tests that need one."""
    from .mariadb import MariaDb

    server = MariaDb()
    server.start()
    yield server
    server.remove()


@pytest.fixture(params=VENDORS)
def vendor(request: pytest.FixtureRequest) -> str:
    """Each kind of database."""
    return str(request.param)


def sqlite(path: Path) -> dict[str, Any]:
    """A database file; that of Django's tests lies beside it, because threads share it."""
    test = {"NAME": str(path.with_suffix(".test"))}
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(path), "TEST": test}


@pytest.fixture
def databases(request: pytest.FixtureRequest, vendor: str, tmp_path: Path) -> Iterator[Databases]:
    """The project's database of this kind, and another one."""
    other = {"other": sqlite(tmp_path / "other.db")}
    if vendor == "sqlite":
        yield {"default": sqlite(tmp_path / "shop.db"), **other}
    elif vendor == "mariadb":
        yield {"default": request.getfixturevalue("mariadb").make_database(), **other}
    else:
        database = Database(os.environ["DATABASE_URL"])
        parts = urlsplit(database.url)
        default = {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": database.name,
            "HOST": parts.hostname,
            "PORT": parts.port,
            "USER": parts.username,
            "PASSWORD": parts.password or "",
        }
        yield {"default": default, **other}
        database.drop()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The place of a migrated SQLite file."""
    return tmp_path_factory.mktemp("migrated") / "shop.db"


@pytest.fixture
def make_shop(tmp_path: Path, databases: Databases, template: Path) -> Callable[..., Shop]:
    """Makes a project with options of its own."""
    numbers = itertools.count()

    def make(**imgo: Any) -> Shop:
        home = tmp_path / f"shop{next(numbers)}"
        home.mkdir()
        return Shop(home, databases, template, **imgo)

    return make
