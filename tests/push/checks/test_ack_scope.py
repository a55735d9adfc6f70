"""Checks of the scopes of keys, and which scope a key has."""

import json

import pytest

from imgo_site.ack_scope import each_of
from imgo_site.conf import load
from push.checks.ack_scope import check_ack_scope


def test_scopes_that_can_work_are_silent(imgo):
    imgo(ACK_SCOPE={"bot-*": "any", "*": "each"})
    assert check_ack_scope() == []


@pytest.mark.parametrize(
    ("pattern", "scope", "text"),
    [("", "each", "non-empty"), ("a\n", "any", "control"), ("a", "all", "'all'"), ("a", [], "[]")],
)
def test_entry_that_cannot_work_is_an_error(imgo, pattern, scope, text):
    imgo(ACK_SCOPE={pattern: scope})
    (found,) = check_ack_scope()
    assert (found.id, text in found.msg) == ("imgo.E059", True)


def test_entry_behind_a_wider_pattern_is_a_warning(imgo):
    imgo(ACK_SCOPE={"user-*": "each", "user-7": "any"})
    assert [found.id for found in check_ack_scope()] == ["imgo.W049"]


def test_first_pattern_that_matches_decides(imgo):
    imgo(ACK_SCOPE={"user-7": "any", "user-*": "each"})
    assert each_of(["user-7", "user-8", "bot", "user-8"]) == ["user-8"]


def test_scopes_of_the_environment_are_json(monkeypatch):
    monkeypatch.setenv("IMGO_ACK_SCOPE", json.dumps({"*": "each"}))
    assert load().ACK_SCOPE == {"*": "each"}
