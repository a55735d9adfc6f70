"""Checks of the policies of rooms."""

import json

import pytest
from django.core.exceptions import ImproperlyConfigured

from imgo_site.conf import load
from imgo_site.room_policies import DEFAULT, policies, policy_of
from push.checks.rooms import check_rooms


def test_policies_that_can_work_are_silent(imgo):
    imgo(
        ROOMS={
            "last": {"history": 1, "client_publish": "members"},
            "chat-*": {"history": 100, "history_ttl": 60},
            "*": {},
        }
    )
    assert check_rooms() == []


@pytest.mark.parametrize(
    ("pattern", "policy", "text"),
    [
        ("", {}, "non-empty"),
        ("a\n", {}, "control"),
        ("a", 7, "no policy"),
        ("a", {"histroy": 1}, "'histroy'"),
        ("a", {"history": -1}, "history=-1"),
        ("a", {"history": True}, "history=True"),
        ("a", {"history": 1, "history_ttl": 0}, "history_ttl=0"),
        ("a", {"history": 1, "rewind_max": "2"}, "rewind_max='2'"),
        ("a", {"max_sessions": 1.5}, "max_sessions=1.5"),
        ("a", {"client_publish": "all"}, "client_publish='all'"),
        ("a", {"client_publish": True}, "client_publish=True"),
        ("a", {"client_publish": ["members"]}, "client_publish="),
    ],
)
def test_policy_that_cannot_work_is_an_error(imgo, pattern, policy, text):
    imgo(ROOMS={"good": {"history": 1}, pattern: policy})
    (message,) = check_rooms()
    assert message.id == "imgo.E049"
    assert text in message.msg
    assert ".." not in message.msg
    assert message.hint


def test_pattern_that_an_earlier_one_hides_is_a_warning(imgo):
    imgo(ROOMS={"chat-*": {}, "chat-staff-*": {"history": 1}})
    (message,) = check_rooms()
    assert (message.id, "'chat-*'" in message.msg) == ("imgo.W041", True)


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        ({"history": 5, "rewind_max": 10}, "rewind_max=10, above history=5"),
        ({"rewind_max": 5}, "rewind_max=5 without history"),
        ({"history": 0, "history_ttl": 60}, "history_ttl=60 without history"),
    ],
)
def test_member_without_effect_is_a_warning(imgo, policy, text):
    imgo(ROOMS={"good": {"history": 5, "rewind_max": 5}, "chat-*": policy})
    (message,) = check_rooms()
    assert message.id == "imgo.W041"
    assert "'chat-*'" in message.msg
    assert text in message.msg
    assert "history" in message.hint


def test_policy_that_cannot_work_has_no_warning_besides(imgo):
    imgo(ROOMS={"a": {"history": "5", "rewind_max": 10}})
    assert [message.id for message in check_rooms()] == ["imgo.E049"]


def test_the_environment_has_policies_as_json(monkeypatch):
    monkeypatch.setenv("IMGO_ROOMS", json.dumps({"chat-*": {"history": 3}}))
    assert load().ROOMS == {"chat-*": {"history": 3}}


@pytest.mark.parametrize(
    ("text", "twice"),
    [
        ('{"chat-*": {"history": 3}, "a": {}, "chat-*": {}}', "'chat-*'"),
        ('{"chat-*": {"history": 3, "history": 4}}', "'history'"),
    ],
)
def test_json_with_a_name_twice_is_refused_and_named(monkeypatch, text, twice):
    monkeypatch.setenv("IMGO_ROOMS", text)
    with pytest.raises(ImproperlyConfigured, match="IMGO setting ROOMS has") as refused:
        load()
    assert f"{twice} twice" in str(refused.value)
    for bad in ("chat-*", "[1]", "7"):
        monkeypatch.setenv("IMGO_ROOMS", bad)
        with pytest.raises(ImproperlyConfigured, match="ROOMS"):
            load()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("{'a': {}}", "line 1, column 2. Names and texts need double quotes"),
        ('{"a":\n {"history": secret}}', "line 2, column 14"),
        ('{"a\\q": "secret"}', "line 1, column 4"),
        ("[" * 100_000, "nested too deeply"),
        ("9" * 5_000, "too long"),
    ],
)
def test_json_with_a_mistake_is_refused_with_its_place(monkeypatch, text, place):
    monkeypatch.setenv("IMGO_ROOMS", text)
    with pytest.raises(ImproperlyConfigured, match=place) as refusal:
        load()
    assert "secret" not in str(refusal.value)


def test_the_first_pattern_that_matches_decides(imgo):
    imgo(ROOMS={"chat-staff": {"history": 1}, "chat-*": {"history": 9, "rewind_max": 3}})
    assert policy_of("chat-staff").history == 1
    assert (policy_of("chat-1").history, policy_of("chat-1").rewind) == (9, 3)
    assert policy_of("lobby") == DEFAULT
    assert [policy.pattern for policy in policies()] == ["chat-staff", "chat-*"]


def test_the_dashboards_room_has_no_policy(imgo):
    imgo(ROOMS={"*": {"history": 1}})
    assert policy_of("imgo.dashboard") == DEFAULT
