"""The check that refuses a database imgo cannot work with."""

import pytest
from django.core.checks import run_checks
from django.db import connections

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
