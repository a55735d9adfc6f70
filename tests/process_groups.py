"""A pytest plugin that runs tests with the same expensive fixtures in one process of pytest-xdist.

Servers and browsers that tests share are started once in each process that has such a test. With
`--dist worksteal`, each process begins with a share of the list of tests: as many for each, in
order. A process that has finished its share takes tests from the end of another's. So each group
of tests is put at the beginning of a share, and the other tests behind it.
"""

import os
from collections.abc import Callable, Sequence
from typing import TypeVar

import pytest

T = TypeVar("T")

# The group of a directory. The groups take about the same time.
GROUPS = {
    "tests/browser/": 2,
    "tests/clients/": 3,
    "tests/examples/": 2,
    "tests/hosts/": 2,
    "tests/imgo_site/": 3,
}
CLUSTER, EMBEDDED = 0, 1  # the groups of the tests in tests/e2e


@pytest.hookimpl(trylast=True)  # after all that sort tests or leave some out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the tests by their groups, if several processes run them."""
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if processes > 1:
        items[:] = arrange(items, group_of, processes)


def group_of(item: pytest.Item) -> int | None:
    """Return the number of a test's group, None if it may run in any process."""
    if item.nodeid.startswith("tests/e2e/"):
        params = item.callspec.params if hasattr(item, "callspec") else {}
        names = {*getattr(item, "fixturenames", ()), params.get("system")}
        return EMBEDDED if names.isdisjoint({"cluster", "make_cluster"}) else CLUSTER
    directories = (name for name in GROUPS if item.nodeid.startswith(name))
    return next((GROUPS[name] for name in directories), None)


def arrange(tests: Sequence[T], group_of: Callable[[T], int | None], processes: int) -> list[T]:
    """Return the tests in shares of equal length, in each of them a group first.

    A group that is longer than a share reaches into the next one.
    """
    groups: list[list[T]] = [[] for _ in range(processes)]
    others: list[T] = []
    for test in tests:
        group = group_of(test)
        (others if group is None else groups[group % processes]).append(test)
    arranged: list[T] = []
    for number, group in enumerate(groups, 1):
        arranged += group
        count = max(0, len(tests) * number // processes - len(arranged))
        arranged += others[:count]
        del others[:count]
    return arranged
