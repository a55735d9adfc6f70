"""The check that refuses a database imgo cannot work with."""

import pytest
from django.core.checks import run_checks
from django.db import connections
from django.db.backends.postgresql import base as django_base

from imgo_site.postgres import base as imgo_base
from push.checks.database import check_wrapper

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("vendor", "expected"),
    [("mysql", 1), ("oracle", 1), ("unknown", 1), ("postgresql", 0), ("sqlite", 0)],
)
def test_database_of_another_vendor_is_an_error(monkeypatch, vendor, expected):
    monkeypatch.setattr(connections["default"], "vendor", vendor)
    errors = [error for error in run_checks() if error.id == "imgo.E028"]
    assert len(errors) == expected
    assert all(vendor in str(error.msg) and error.hint for error in errors)


@pytest.mark.parametrize(
    ("wrapper", "expected"),
    [(imgo_base.DatabaseWrapper, []), (django_base.DatabaseWrapper, ["imgo.W037"])],
    ids=["imgo", "django"],
)
def test_postgres_without_the_backend_of_imgo_is_a_warning(monkeypatch, wrapper, expected):
    monkeypatch.setattr("push.checks.database.connections", {"default": wrapper({}, "default")})
    assert [found.id for found in check_wrapper()] == expected
