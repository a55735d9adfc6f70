"""What the README and the pages say about figures, files and commands is true."""

import json
import re
from pathlib import Path

from django.core.management import find_commands, get_commands

from benchmarks import markdown
from imgo_site.conf import markdown_table
from push.wire import Op

ROOT = Path(__file__).resolve().parent.parent
CLIENT = ROOT / "clients" / "python" / "imgo_client" / "django"  # an app of other projects
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_readme_benchmark_rows_are_the_measured_ones():
    measured = json.loads((ROOT / "docs" / "benchmark.json").read_text())
    summary = markdown.summary(measured)
    assert "not measured" not in summary
    assert summary in (ROOT / "README.md").read_text()


def test_settings_page_lists_the_settings_of_the_code():
    assert markdown_table() in (ROOT / "docs" / "reference" / "settings.md").read_text()


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 125


def test_links_between_the_pages_lead_somewhere():
    targets = [
        (page.name, page.parent / link)
        for page in PAGES
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    ]
    assert len(targets) > 5
    assert [name for name in targets if not name[1].exists()] == []


def test_management_commands_that_are_named_exist():
    named = {
        command
        for page in PAGES
        for command in re.findall(r"manage\.py ([a-z_]+)", page.read_text())
    }
    assert {"imgo", "migrate", "token", "apikey"} <= named
    assert named <= {*get_commands(), *find_commands(str(CLIENT / "management"))}


def test_make_targets_that_are_named_exist():
    makefile = (ROOT / "Makefile").read_text()
    code = re.compile(r"(?:^|`)make ([a-z]+)", re.MULTILINE)
    named = {target for page in PAGES for target in code.findall(page.read_text())}
    assert {"run", "test", "check", "format", "lock"} <= named
    assert named <= set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))


def test_steps_of_the_first_change_name_one_line_each():
    page = (ROOT / "docs" / "contributing" / "first-change.md").read_text()
    steps = re.findall(r"In `([^`]+)`, (?:behind|in front of) `([^`]+)`, add:", page)
    assert len(steps) == page.count(", add:\n") > 10
    found = {
        (file, text): sum(text in line for line in (ROOT / file).read_text().splitlines())
        for file, text in steps
    }
    assert [step for step, lines in found.items() if lines != 1] == []


def test_ops_of_the_first_change_have_numbers_that_are_free():
    page = (ROOT / "docs" / "contributing" / "first-change.md").read_text()
    numbers = {int(number) for number in re.findall(r"^    [A-Z_]+ = (\d+)$", page, re.MULTILINE)}
    assert len(numbers) == 2
    assert numbers.isdisjoint(Op)
