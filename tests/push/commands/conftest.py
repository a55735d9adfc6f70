"""Running commands inside of the tests' process."""

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import call_command, load_command_class


def names(data: Any) -> Any:
    """The names in some data, without the values."""
    if isinstance(data, list):
        return [names(data[0])] if data else []
    return sorted(data) if isinstance(data, dict) else None


def is_documented(command: str, found: Any) -> bool:
    """Whether it is like one of the examples that the command shows of its data."""
    known = [names(json.loads(text)) for text in load_command_class("push", command).data]
    return names(found) in known or (found == [] and any(isinstance(one, list) for one in known))


@pytest.fixture
def run() -> Callable[..., str]:
    """Runs a command; what it printed. What a user can mend is a `CommandError`."""

    def run_command(*arguments: str) -> str:
        out = io.StringIO()
        call_command(*arguments, stdout=out)
        return out.getvalue()

    return run_command


@pytest.fixture
def data(run) -> Callable[..., Any]:
    """The same with `--json`; the data, which has to look as the page of commands says."""

    def run_command(name: str, *arguments: str) -> Any:
        found = json.loads(run(name, *arguments, "--json"))
        assert is_documented(name, found), found
        return found

    return run_command


@pytest.fixture
def stdin(monkeypatch) -> Callable[[bytes], None]:
    """Sets what comes in."""

    def give(content: bytes) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))

    return give
