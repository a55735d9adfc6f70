"""Running commands inside of the tests' process."""

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import call_command


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
    """The same with `--json`; the data."""
    return lambda *arguments: json.loads(run(*arguments, "--json"))


@pytest.fixture
def stdin(monkeypatch) -> Callable[[bytes], None]:
    """Sets what comes in."""

    def give(content: bytes) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))

    return give
