"""What the examples' own pages say of how they are started."""

import re
import subprocess

import pytest

from tests.e2e.harness import ROOT

from .settings import NAMES

HOME = ROOT / "examples"


def test_all_examples_are_checked() -> None:
    assert {path.parent.name for path in HOME.glob("*/settings.py")} == set(NAMES)
    table = (ROOT / "docs" / "examples.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_examples_page_says_how_to_start_it_and_names_files_that_there_are(name: str) -> None:
    text = (HOME / name / "README.md").read_text()
    assert re.findall(r"^make example NAME=(\w+)$", text, re.MULTILINE) == [name]
    linked = re.findall(r"\]\(([^)#:]+)\)", text)
    assert linked
    assert [link for link in linked if not (HOME / name / link).exists()] == []


def test_the_page_above_them_names_all_of_them() -> None:
    linked = re.findall(r"\]\(([^)#:]+)\)", (HOME / "README.md").read_text())
    assert {f"{name}/README.md" for name in NAMES} <= set(linked)
    assert [link for link in linked if not (HOME / link).exists()] == []


@pytest.mark.parametrize("name", NAMES)
def test_make_example_makes_the_tables_and_the_users_and_serves(name: str) -> None:
    # As if everything were installed, and without doing it.
    words = ["make", "-n", "-o", ".venv/.run-stamp", "example", f"NAME={name}"]
    said = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.findall(r"manage\.py (\w+)", said) == (
        ["migrate", "imgo"] if name == "device_feed" else ["migrate", "guest", "imgo"]
    )


@pytest.mark.parametrize("given", [[], ["NAME=nothing"]])
def test_make_example_says_which_there_are(given: list[str]) -> None:
    words = ["make", "-o", ".venv/.run-stamp", "example", *given]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert set(re.findall(r"NAME=(\w+)", done.stderr)) >= set(NAMES)
