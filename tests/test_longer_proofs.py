"""Which tests a set has, and what is said about those that it leaves out."""

import os
from pathlib import Path

import pytest

from tests import fork_server

pytestmark = pytest.mark.services

ROOT = Path(__file__).resolve().parent.parent
TESTS = """
import pytest
from hypothesis import given, strategies

def test_plain(): pass

@pytest.mark.long
def test_load(): pass

@pytest.mark.parametrize("kind", ["a", "b", "c"])
@pytest.mark.long(but=[{named}])
def test_kinds(kind): pass

@given(strategies.integers())
def test_property(number): pass
"""
BARE = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # they take seconds to import
LEFT_OUT = "NOT RUN: 3 longer proofs. `make test-long` runs them."


def run(directory: Path, chosen: str, *options: str, named: str = '"b"') -> tuple[int, list[str]]:
    """Run the tests above; return the exit status, and the lines with the names of those run."""
    (directory / "test_sample.py").write_text(TESTS.format(named=named))
    command = ["-m", "pytest", "-v", "-p", "tests.longer_proofs", "-p", "no:cacheprovider"]
    environment = {**os.environ, **BARE, "TESTS_SET": chosen, "PYTHONPATH": str(ROOT)}
    words = [*command, *options, "test_sample.py"]
    done = fork_server.run(words, directory, environment, timeout=60)
    return done.returncode, (done.stdout + done.stderr).splitlines()


def names(lines: list[str]) -> set[str]:
    return {word.partition("::")[2] for line in lines for word in line.split() if "::" in word}


def test_short_set_leaves_longer_proofs_out_and_says_so(tmp_path):
    status, lines = run(tmp_path, "short")
    assert (status, names(lines)) == (0, {"test_plain", "test_kinds[b]", "test_property"})
    assert LEFT_OUT in lines


@pytest.mark.long
def test_short_set_in_several_processes_says_so_once(tmp_path):
    status, lines = run(tmp_path, "short", "-p", "xdist", "-n", "2")
    assert (status, lines.count(LEFT_OUT)) == (0, 1)


def test_long_set_has_longer_proofs_and_property_tests(tmp_path):
    status, lines = run(tmp_path, "long")
    assert status == 0
    assert names(lines) == {"test_load", "test_kinds[a]", "test_kinds[c]", "test_property"}
    assert not any("NOT RUN" in line for line in lines)


def test_without_a_set_everything_runs(tmp_path):
    status, lines = run(tmp_path, "")
    assert (status, len(names(lines))) == (0, 6)


@pytest.mark.parametrize("named", ['"d"', ""])
def test_mark_that_names_no_case_is_an_error(tmp_path, named):
    status, lines = run(tmp_path, "short", named=named)
    assert status == pytest.ExitCode.USAGE_ERROR
    assert any("There are ['a', 'b', 'c']" in line for line in lines)
