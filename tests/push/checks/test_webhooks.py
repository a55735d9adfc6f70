"""Checks of the endpoints of webhooks."""

import base64
import json

import pytest
from django.core.exceptions import ImproperlyConfigured

from imgo_site.conf import load
from push.checks.webhooks import check_webhooks
from push.webhooks.endpoints import endpoints

SECRET = "whsec_" + base64.b64encode(b"a" * 32).decode()
GOOD = {"url": "https://shop.example/hook", "secret": SECRET, "events": ["message.expired"]}


def test_entries_that_can_work_are_silent(imgo):
    imgo()
    assert check_webhooks() == []
    local = {"url": "http://127.0.0.1:9/x", "secret": [SECRET, SECRET], "events": ["*"]}
    imgo(WEBHOOKS=[GOOD, local | {"keys": ["user-*", "shop"]}])
    assert check_webhooks() == []


@pytest.mark.parametrize(
    ("change", "text", "hint"),
    [
        ({"url": "shop.example/hook"}, "no 'url'", "https://"),
        ({"url": "ftp://shop.example/"}, "no 'url'", "https://"),
        ({"url": "https://me:hunter22@shop.example/"}, "no 'url'", "https://"),
        ({"url": "https://shop.example:0/"}, "no 'url'", "https://"),
        ({"url": 7}, "no 'url'", "https://"),
        ({"url": f"https://shop.example/{'a' * 500}"}, "no 'url'", "500 characters"),
        ({"secret": "a-hunter22"}, "(number 1) that is not base64", "secrets.token_bytes"),
        ({"secret": [SECRET, "whsec_hunter22"]}, "(number 2)", "secrets.token_bytes"),
        ({"secret": []}, "no 'secret'", "secrets.token_bytes"),
        ({"events": ["message.acknowleged"]}, "'message.acknowleged'", "message.acknowledged"),
        ({"events": ["cart.filled"]}, "'cart.filled'", "message.received"),
        ({"events": "*"}, "no 'events'", "message.received"),
        ({"keys": "user-*"}, "'keys'", "user-*"),
        ({"event": ["*"]}, "'event', which is no member", "events"),
    ],
)
def test_entry_that_cannot_work_is_an_error_without_secrets(imgo, change, text, hint):
    imgo(WEBHOOKS=[GOOD, GOOD | {"url": "https://shop.example/2"} | change])
    (message,) = check_webhooks()
    assert message.id == "imgo.E048"
    assert message.msg.startswith("Entry 2 of WEBHOOKS")
    assert text in message.msg
    assert hint in message.hint
    assert "hunter22" not in message.msg + message.hint


def test_second_entry_with_the_same_url_is_an_error(imgo):
    imgo(WEBHOOKS=[GOOD, GOOD])
    (message,) = check_webhooks()
    assert (message.id, "URL of entry 1" in message.msg) == ("imgo.E048", True)


def test_webhook_over_plain_http_is_a_warning(imgo):
    imgo(WEBHOOKS=[GOOD | {"url": "http://shop.example/hook"}])
    assert [message.id for message in check_webhooks()] == ["imgo.W039"]


def test_webhooks_come_from_the_environment_as_json(imgo, monkeypatch):
    given = [{"url": "http://a/", "secret": SECRET, "events": ["*"]}]
    monkeypatch.setenv("IMGO_WEBHOOKS", json.dumps(given))
    imgo()
    (endpoint,) = endpoints()
    assert (endpoint.url, endpoint.secrets, endpoint.keys) == ("http://a/", (SECRET,), ("*",))
    assert endpoint.matches("message.expired", "anything")


@pytest.mark.parametrize("value", ['[{"secret": "secret"', '{"secret": "secret"}', '["secret"]'])
def test_value_of_another_form_is_refused_without_showing_it(imgo, monkeypatch, value):
    monkeypatch.setenv("IMGO_WEBHOOKS", value)
    imgo()
    with pytest.raises(ImproperlyConfigured, match="WEBHOOKS") as error:
        load()
    assert '"secret' not in str(error.value)
