"""The program `imgo`: the command that its words name, and the line that a failure ends it with."""

import os
import sys
from collections.abc import Callable
from importlib import metadata

import pytest
from django.core import management
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError

from imgo_site import command_line, name_collisions, setup_errors


@pytest.fixture
def program(monkeypatch) -> Callable[..., list[str] | None]:
    """Runs `imgo` with words; returns the arguments of the management command that it runs."""
    commands: list[list[str]] = []
    monkeypatch.setattr(management, "execute_from_command_line", commands.append)

    def run(*words: str) -> list[str] | None:
        monkeypatch.setattr(sys, "argv", ["/usr/bin/imgo", *words])
        command_line.main()
        return commands.pop() if commands else None

    return run


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ((), ["imgo"]),
        (("node",), ["imgo"]),
        (("node", "--embedded"), ["imgo", "--embedded"]),
        (("--embedded",), ["imgo", "--embedded"]),
        (("-h",), ["-h"]),
        (("--help",), ["--help"]),
        (("check", "--deploy"), ["check", "--deploy"]),
        (("check", "node"), ["check", "node"]),
        (("--version", "--embedded"), ["imgo", "--version", "--embedded"]),
    ],
)
def test_words_name_a_node_or_a_management_command(program, words, command):
    assert program(*words) == ["imgo", *command]


def test_version_is_printed_without_a_command(program, monkeypatch, capsys):
    monkeypatch.setattr(metadata, "version", {"imgo": "7.8"}.__getitem__)
    assert program("--version") is None
    assert capsys.readouterr().out == "7.8\n"


def test_api_becomes_gunicorn_with_the_further_arguments(program, monkeypatch):
    class Replaced(Exception):
        """No error: `execv` does not return."""

    def execv(path: str, arguments: list[str]) -> None:
        raise Replaced(path, arguments)

    monkeypatch.setattr(os, "execv", execv)
    with pytest.raises(Replaced) as replaced:
        program("api", "--workers", "2")
    path, arguments = replaced.value.args
    assert path == arguments[0] == sys.executable
    assert arguments[1:] == [
        *("-m", "gunicorn", "-c", "python:imgo_site.gunicorn", "imgo_site.wsgi"),
        *("--workers", "2"),
    ]


# Failures


def fail_with(error: BaseException) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


FAILURES = [
    (ImproperlyConfigured("IMGO has no key 'X'"), "Wrong settings: IMGO has no key 'X'"),
    (OperationalError("no route"), "The database cannot be used: no route"),
]


@pytest.mark.parametrize(("error", "line"), FAILURES)
def test_failed_command_ends_with_a_line(monkeypatch, error, line):
    monkeypatch.setattr(management, "execute_from_command_line", fail_with(error))
    with pytest.raises(SystemExit) as end:
        command_line.run(["imgo", "check"])
    assert end.value.code == line


@pytest.mark.parametrize("error", [error for error, _ in FAILURES])
def test_failed_command_shows_its_traceback_if_wanted(monkeypatch, error):
    monkeypatch.setattr(management, "execute_from_command_line", fail_with(error))
    with pytest.raises(type(error)):
        command_line.run(["imgo", "check", "--traceback"])


def test_failed_setup_ends_with_a_line_and_runs_no_command(program, monkeypatch):
    monkeypatch.setattr(name_collisions, "check_packages", fail_with(RuntimeError("two `push`")))
    with pytest.raises(SystemExit) as end:
        program("check")
    line = "Wrong settings: the project cannot be set up: RuntimeError: two `push`"
    assert end.value.code == line
    with pytest.raises(RuntimeError):
        program("check", "--traceback")


def test_interrupted_command_ends_with_the_code_of_shells(monkeypatch):
    monkeypatch.setattr(management, "execute_from_command_line", fail_with(KeyboardInterrupt()))
    with pytest.raises(SystemExit) as end:
        command_line.run(["imgo", "check"])
    assert end.value.code == 130


# The texts for errors of the setup


def import_error(module: str | None) -> ImportError:
    return ModuleNotFoundError(f"No module named {module!r}", name=module)


def test_import_error_names_each_setting_with_a_path_into_the_module(settings):
    settings.MIDDLEWARE = ["django.x", "shop.middleware.Cart"]
    settings.CACHES = {"default": {"BACKEND": "shop.cache"}, "other": ("shop", "shopping.cache")}
    settings.A_NUMBER = 7
    text = setup_errors.describe(import_error("shop"))
    assert text == (
        "CACHES has 'shop.cache', CACHES has 'shop', MIDDLEWARE has 'shop.middleware.Cart':"
        " ModuleNotFoundError: No module named 'shop'"
    )


@pytest.mark.parametrize("module", ["named_in_no_setting", None, ""])
def test_import_error_of_a_module_in_no_setting_names_none(module):
    text = setup_errors.describe(import_error(module))
    assert text == (
        f"the project cannot be set up: ModuleNotFoundError: No module named {module!r}"
    )


def test_import_error_of_the_settings_themselves_is_described(monkeypatch):
    class Unreadable:
        """Settings whose module cannot be imported."""

        def __dir__(self) -> list[str]:
            raise ModuleNotFoundError("No module named 'my_site'", name="my_site")

    monkeypatch.setattr(setup_errors, "settings", Unreadable())
    text = setup_errors.describe(import_error("my_site"))
    assert text.startswith("the project cannot be set up: ModuleNotFoundError: ")


def test_error_is_one_line_with_its_cause():
    error = RuntimeError("first\n  second")
    error.__cause__ = ValueError("the\ncause")
    text = setup_errors.describe(error)
    assert text == "the project cannot be set up: RuntimeError: first second: the cause"


def test_wrong_settings_speak_for_themselves():
    assert setup_errors.describe(ImproperlyConfigured("set\nA")) == "set\nA"
