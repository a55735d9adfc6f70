"""What we import is named in requirements*.in, not only brought by what is named there."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = {
    "accounts",
    "benchmarks",
    "docs",
    "examples",
    "imgo_client",
    "imgo_site",
    "offline",
    "push",
    "shop",  # the project of tests/clients/django
    "tests",
}
# Who wants traces installs it (imgo_site/tracing.py); the extras of pyproject.toml.
OPTIONAL = {"opentelemetry", "h2", "httpcore"}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def named(*files: str) -> set[str]:
    """The packages in these files."""
    lines = (line for file in files for line in (ROOT / file).read_text().splitlines())
    return {normal(re.split(r"[\[<>=\s]", line)[0]) for line in lines if line[:1].isalpha()}


def imported(*trees: str) -> Iterator[tuple[str, str]]:
    """(file, top module) of all that is imported there and is neither Python's nor ours."""
    for path in sorted(path for tree in trees for path in (ROOT / tree).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules = [str(node.module)]
            for top in (module.partition(".")[0] for module in modules):
                if top not in OURS and top not in sys.stdlib_module_names:
                    yield str(path.relative_to(ROOT)), top


def providers() -> dict[str, set[str]]:
    """Module at the top: the packages that bring it.

    `importlib.metadata.packages_distributions` makes an object of each file, which takes seconds.
    """
    found: dict[str, set[str]] = {}
    for package in distributions():
        name = normal(package.name)
        for line in (package.read_text("RECORD") or "").splitlines():
            top = line.partition(",")[0].partition("/")[0].removesuffix(".py")
            found.setdefault(top, set()).add(name)
    return found


@pytest.mark.parametrize(
    ("trees", "files"),
    [
        (("imgo_site", "accounts", "offline", "push"), ("requirements.in",)),
        (("tests", "docs"), ("requirements.in", "requirements-dev.in")),
    ],
)
def test_what_is_imported_is_named(trees, files):
    packages, known = providers(), named(*files)
    missing = set()
    for file, top in imported(*trees):
        brings = packages.get(top, {normal(top)})
        # Several may put modules into a package, as Daphne does into twisted: its own is meant.
        brings = brings & {normal(top)} or brings
        if not brings & known and not (trees[0] == "imgo_site" and top in OPTIONAL):
            missing.add((file, top))
    assert missing == set()


@pytest.mark.parametrize("name", ["requirements", "requirements-dev", "requirements-bench"])
def test_every_package_is_pinned_with_hashes(name):
    lock = (ROOT / f"{name}.txt").read_text()
    pins = re.findall(
        r"^([a-z0-9-]+)(?:\[[^]]+\])?==[^\s]+.*\\\n    --hash=sha256:", lock, re.MULTILINE
    )
    assert named(f"{name}.in") <= set(pins)
    assert len(pins) == len(re.findall(r"^[a-z0-9-]+.*==", lock, re.MULTILINE))


@pytest.mark.parametrize(
    ("example", "lock_file"), [("beside", "requirements-dev.txt"), ("chat", "requirements.txt")]
)
def test_make_example_installs_the_packages_of_the_example(example: str, lock_file: str) -> None:
    """The shop beside imgo needs those of the client for Django, which a server does not have."""
    locks = ("requirements.txt", "requirements-dev.txt")
    is_new = [word for name in locks for word in ("-W", name)]  # -W: as if it had changed just now
    command = ["make", "--dry-run", *is_new, "example", f"NAME={example}"]
    plan = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.findall(r" -r (\S+)", plan) == [lock_file]
