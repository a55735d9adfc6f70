"""What the examples' own pages say of how they are started."""

import re
import subprocess

import pytest

from tests.e2e.harness import ROOT

from .settings import NAMES

HOME = ROOT / "examples"
PROJECTS = ("beside",)  # with a program that starts them, because imgo is another process
ALL = (*NAMES, *PROJECTS)


def test_all_examples_are_checked() -> None:
    assert {path.parent.name for path in HOME.glob("*/settings.py")} == set(NAMES)
    assert {path.parent.name for path in HOME.glob("*/start.py")} == set(PROJECTS)
    table = (ROOT / "docs" / "examples.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(ALL)


@pytest.mark.parametrize("name", ALL)
def test_page_of_an_example_has_its_start_and_names_files_that_exist(name: str) -> None:
    text = (HOME / name / "README.md").read_text()
    assert re.findall(r"^make example NAME=(\w+)$", text, re.MULTILINE) == [name]
    linked = re.findall(r"\]\(([^)#:]+)\)", text)
    assert linked
    assert [link for link in linked if not (HOME / name / link).exists()] == []


def test_the_page_above_them_names_all_of_them() -> None:
    linked = re.findall(r"\]\(([^)#:]+)\)", (HOME / "README.md").read_text())
    assert {f"{name}/README.md" for name in ALL} <= set(linked)
    assert [link for link in linked if not (HOME / link).exists()] == []


def what_make_would_do(name: str) -> str:
    """The commands of `make example` as if everything were installed, without doing them."""
    # `make` that is called by `make` tells of directories.
    words = ["make", "--no-print-directory", "-n", "-o", ".venv/.run-stamp", "example"]
    done = subprocess.run(
        [*words, f"NAME={name}"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_make_example_makes_the_tables_and_the_users_and_serves(name: str) -> None:
    said = what_make_would_do(name)
    assert re.findall(r"manage\.py (\w+)", said) == (
        ["migrate", "imgo"] if name == "device_feed" else ["migrate", "guest", "imgo"]
    )


@pytest.mark.parametrize("name", PROJECTS)
def test_make_example_starts_the_program_of_a_project(name: str) -> None:
    said = what_make_would_do(name)
    assert said.splitlines()[-1].endswith(f"python examples/{name}/start.py")


@pytest.mark.parametrize("given", [[], ["NAME=nothing"]])
def test_make_example_says_which_there_are(given: list[str]) -> None:
    words = ["make", "-o", ".venv/.run-stamp", "example", *given]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert set(re.findall(r"NAME=(\w+)", done.stderr)) == set(ALL)
