"""A pytest plugin with the two sets of tests: the short one, and the longer proofs.

A longer proof repeats, under load or kills, with other databases, or with many random draws, what
a cheaper test proves once on the same code path. It has the mark `long`. A parametrized test keeps
the cases that the mark names: `@pytest.mark.long(but=["embedded-text"])`.

The environment variable `TESTS_SET` picks the set. `short` leaves the longer proofs out. `long`
runs only these, and all property tests with many examples. Without it, everything runs.
"""

import os
from collections import defaultdict
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck

SET = "TESTS_SET"
IS_SHORT = os.environ.get(SET) == "short"
# Examples of a property test, unless it names a share of its own.
EXAMPLES = 25 if IS_SHORT else 100

_left_out = pytest.StashKey[int]()


def examples(many: int) -> int:
    """Return how many examples a test draws that takes `many` in the long set."""
    return max(1, many * EXAMPLES // 100)


def load_profile() -> None:
    """Make hypothesis draw as many examples as the set has."""
    # No deadline: how long an example takes says how busy the machine is.
    hypothesis.settings.register_profile(
        "imgo",
        deadline=None,
        max_examples=EXAMPLES,
        suppress_health_check=[HealthCheck.too_slow],
    )
    hypothesis.settings.load_profile("imgo")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long(but): a longer proof; `but` names short cases of it")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of the set, and count the longer proofs that are left out."""
    _keep_named_cases(config, items)
    kept = {"short": _is_short, "long": _is_in_long_set}.get(os.environ.get(SET, ""))
    if kept is None:
        return
    parts: dict[bool, list[pytest.Item]] = {True: [], False: []}
    for item in items:
        parts[kept(item)].append(item)
    config.hook.pytest_deselected(items=parts[False])
    config.stash[_left_out] = len(parts[False]) if kept is _is_short else 0
    items[:] = parts[True]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Pass the count from a process of pytest-xdist to the one that prints the summary."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = session.config.stash.get(_left_out, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Keep the count of a process of pytest-xdist; each collects the same tests."""
    node.config.stash[_left_out] = getattr(node, "workeroutput", {}).get("left_out", 0)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Write at the end how many longer proofs were left out."""
    if count := config.stash.get(_left_out, 0):
        terminalreporter.write_line(f"NOT RUN: {count} longer proofs. `make test-long` runs them.")


def _is_short(item: pytest.Item) -> bool:
    return item.get_closest_marker("long") is None


def _is_in_long_set(item: pytest.Item) -> bool:
    return not _is_short(item) or hypothesis.is_hypothesis_test(getattr(item, "obj", None))


def _keep_named_cases(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Remove the mark from the cases that it names; each name must be that of a case."""
    cases: dict[str, set[str]] = defaultdict(set)
    named: dict[str, set[str]] = {}
    for item in items:
        mark = item.get_closest_marker("long")
        if mark is None or "but" not in mark.kwargs:
            continue
        function = item.nodeid.partition("[")[0]
        case = item.callspec.id if hasattr(item, "callspec") else ""
        cases[function].add(case)
        named[function] = set(mark.kwargs["but"])
        if case in named[function]:
            item.own_markers = [own for own in item.own_markers if own is not mark]
    if any("::" in arg for arg in config.args):
        return  # one case was asked for: the others were not collected
    for function, names in named.items():
        if not names or names - cases[function]:
            raise pytest.UsageError(
                f"{function}: the mark `long` names no case or one that there is not:"
                f" {sorted(names)}. There are {sorted(cases[function])}."
            )
