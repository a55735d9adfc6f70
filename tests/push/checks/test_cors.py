"""The check of CORS_ORIGINS."""

import pytest

from push.checks.security import check_cors_origins


@pytest.mark.parametrize("origins", [[], ["*"], ["https://a.example", "http://localhost:3000"]])
def test_origins_that_browsers_send_are_silent(imgo, origins):
    imgo(CORS_ORIGINS=origins)
    assert check_cors_origins() == []


@pytest.mark.parametrize(
    "origin", ["https://a.example/", "a.example", "https://A.example", "https://a.example:443", ""]
)
def test_an_origin_that_no_browser_sends_is_an_error(imgo, origin):
    imgo(CORS_ORIGINS=["https://good.example", origin])
    (message,) = check_cors_origins()
    assert (message.id, repr(origin) in message.msg) == ("imgo.E051", True)
    assert message.hint


def test_any_origin_beside_others_is_a_warning(imgo):
    imgo(CORS_ORIGINS=["*", "https://a.example"])
    (message,) = check_cors_origins()
    assert message.id == "imgo.W043"
