"""An address with an impossible value is a mistake, not a fault."""

import pytest
from django.db import DataError, OperationalError
from django.test import RequestFactory

from imgo_site.unstorable_urls import ImpossibleValues


@pytest.fixture
def answer_to():
    """What is answered when a request raises an error; None when that is left to others."""
    middleware = ImpossibleValues(lambda request: None)
    return lambda method, error: middleware.process_exception(
        RequestFactory().generic(method, "/"), error
    )


def test_what_no_column_can_have_is_a_bad_request(answer_to):
    for method in ("GET", "HEAD"):
        answer = answer_to(method, DataError("a NUL"))
        assert answer.status_code == 400
        assert b"Correct it" in answer.content


def test_any_other_error_is_left_alone(answer_to):
    assert answer_to("POST", DataError("a NUL")) is None
    assert answer_to("GET", OperationalError("away")) is None
    assert answer_to("GET", ValueError("a bug")) is None
