"""The list of findings names tests that exist."""

import re
from pathlib import Path

import pytest

from imgo_site.settings import BASE_DIR

LIST = Path(BASE_DIR) / "tests" / "findings.md"
ROWS = re.findall(r"^\| ([A-Z]\d+b?) \|(.*)\|(.*)\|$", LIST.read_text(), re.MULTILINE)
NUMBERS = {"A": range(1, 5), "H": range(1, 9), "S": range(1, 16), "W": range(1, 10)} | {
    "F": range(19),
    "D": range(1, 12),
    "O": range(1, 13),
}


def test_list_has_every_finding_once():
    expected = {f"{letter}{n}" for letter, numbers in NUMBERS.items() for n in numbers} | {"F14b"}
    assert sorted(name for name, *_ in ROWS) == sorted(expected)


@pytest.mark.parametrize(("name", "tests"), [(name, tests) for name, _, tests in ROWS])
def test_finding_names_tests_that_exist(name, tests):
    named = re.findall(r"`(tests/[^:`]+)::([^`]+)`", tests)
    assert named
    for path, test in named:
        text = (LIST.parent.parent / path).read_text()
        wanted = f"def {test.partition('[')[0]}(" if path.endswith(".py") else f'"{test}"'
        assert wanted in text, f"{path} has no {test}"
