"""The system checks: each finds what it is for, has its id and a hint, and is else silent."""

import os

import pytest
from django.core.checks import run_checks
from django.core.management import call_command

from push import checks as module


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in os.environ:
        if name.startswith("IMGO_"):
            monkeypatch.delenv(name)


def found() -> list[tuple[str, str, str | None]]:
    """(id, message, hint) of imgo's own."""
    return [(m.id, m.msg, m.hint) for m in run_checks() if m.id.startswith("imgo.")]


def ids() -> list[str]:
    return sorted(id_ for id_, _, _ in found())


def test_the_settings_as_they_are_need_no_word():
    assert found() == []
    call_command("check", "--fail-level", "WARNING")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"MAX_BODDY": 1}, ["imgo.E001"]),
        ({"A": 1, "B": 1}, ["imgo.E001", "imgo.E001"]),
        ({"MAX_BODY": "big"}, ["imgo.E002"]),
        ({"LEGACY_TRUSTED_NETWORKS": 7}, ["imgo.E002"]),
        ({"AUTHENTICATOR": "no.such.thing"}, ["imgo.E003"]),
        ({"RECEIVER": "push.receiver.missing", "SESSION_KEY": "x"}, ["imgo.E003", "imgo.E003"]),
        ({"ROOM_AUTHORIZER": ""}, ["imgo.E003"]),
        ({"SESSION_CAP_POLICY": "ask"}, ["imgo.E004"]),
        ({"DEMO": "sometimes"}, ["imgo.E004"]),
        ({"LEGACY_TRUSTED_NETWORKS": ["everybody"]}, ["imgo.E005", "imgo.W002"]),
        ({"LEGACY_TRUSTED_NETWORKS": ["10.0.0.0/8", "x"]}, ["imgo.E005", "imgo.W002"]),
        ({"LEGACY_TRUSTED_NETWORKS": ["10.0.0.0/8", "::1"]}, ["imgo.W002"]),
        ({"JWT_SECRET": "short"}, ["imgo.W003"]),
        ({"JWT_SECRET": "ä" * 16}, []),
        ({"JWT_SECRET": "x" * 32, "SESSION_CAP_POLICY": "close_oldest", "DEMO": "off"}, []),
    ],
    ids=str,
)
def test_a_mistake_has_its_id(imgo, given, expected):
    imgo(**given)
    assert ids() == expected


def test_a_misspelt_name_is_told_the_right_one(imgo):
    imgo(MAX_BODDY=1)
    assert found() == [
        ("imgo.E001", "IMGO['MAX_BODDY'] is not a setting.", "Did you mean MAX_BODY?")
    ]


def test_a_misspelt_variable_is_a_warning(monkeypatch):
    monkeypatch.setenv("IMGO_MAX_BODDY", "1")
    monkeypatch.setenv("IMGO_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("IMGO_MAX_BODY", "1")
    assert ids() == ["imgo.W001", "imgo.W001"]
    assert ("imgo.W001", "IMGO_MAX_BODDY is not a setting.", "Did you mean MAX_BODY?") in found()


def test_every_message_has_its_own_id_or_a_hint(imgo):
    imgo(LEGACY_TRUSTED_NETWORKS=["10.0.0.0/8"], JWT_SECRET="short")
    assert all(hint for _, _, hint in found())
    assert ids() == ["imgo.W002", "imgo.W003"]


def test_a_wrong_type_is_told_once_and_does_not_hide_unknown_names(imgo):
    imgo(MAX_BODY="big", NOPE=1, JWT_SECRET="short")
    assert ids() == ["imgo.E001", "imgo.E002"]


def test_every_callable_that_can_be_set_is_checked():
    from imgo_site.conf import ImgoSettings

    dotted = {
        name
        for name, field in ImgoSettings.__dataclass_fields__.items()
        if isinstance(field.default, str) and field.metadata["help"].startswith("Dotted path")
    }
    assert set(module.CALLABLES) == dotted
