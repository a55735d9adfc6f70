"""Checks of the hooks' settings."""

import base64

import pytest

from push.checks.hooks import check_hooks

SECRET = "whsec_" + base64.b64encode(b"a" * 32).decode()
GOOD = {"AUTHENTICATE_URL": "https://shop.example/hook", "HOOK_SECRETS": [SECRET]}


def test_hooks_that_can_work_are_silent(imgo):
    imgo()
    assert check_hooks() == []
    imgo(**GOOD, RECEIVE_URL="http://127.0.0.1:9/x")
    assert check_hooks() == []


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"AUTHENTICATE_URL": "shop.example/hook"}, "AUTHENTICATE_URL is no URL"),
        ({"AUTHENTICATE_URL": "ftp://shop.example/"}, "AUTHENTICATE_URL is no URL"),
        ({"AUTHENTICATE_URL": "https://me:pw@shop.example/"}, "AUTHENTICATE_URL is no URL"),
        ({"AUTHENTICATE_URL": "https://[shop/"}, "AUTHENTICATE_URL is no URL"),
        ({"AUTHENTICATE_URL": "https://shop.example:99999/"}, "AUTHENTICATE_URL is no URL"),
        ({"HOOK_SECRETS": []}, "HOOK_SECRETS is empty"),
        ({"HOOK_SECRETS": [SECRET, "whsec_secret"]}, "Secret 2 of HOOK_SECRETS"),
        ({"AUTHENTICATOR": "shop.auth"}, "AUTHENTICATE_URL and AUTHENTICATOR are both set"),
        ({"HOOK_TIMEOUT": 20.0}, "HOOK_TIMEOUT is 20 s"),
    ],
)
def test_hook_that_cannot_work_is_an_error_without_secrets(imgo, changes, text):
    imgo(**{**GOOD, **changes})
    (message,) = check_hooks()
    assert message.id == "imgo.E047"
    assert text in message.msg
    assert 'secret"' not in message.msg + message.hint
    assert "pw" not in message.msg


def test_hook_over_plain_http_is_a_warning(imgo):
    imgo(**{**GOOD, "AUTHENTICATE_URL": "http://shop.example/"})
    assert [message.id for message in check_hooks()] == ["imgo.W038"]
