"""Which cases of these tests are in the short set."""

import pytest

# Each transport once, and each way of serving it.
SHORT = {
    ("resident", "text"),
    ("direct", "binary"),
    ("direct", "tcp"),
}


@pytest.hookimpl(tryfirst=True)  # before the longer proofs are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Make a longer proof of what a shorter one has with another way, or in the other mode.

    How a frame is read does not depend on the mode; the tests without other parameters have both.
    """
    for item in items:
        if "tests/push/connect/" not in item.nodeid or not hasattr(item, "callspec"):
            continue
        params = item.callspec.params
        if "way" in params and "name" in params:
            is_short = (params["way"][1], params["name"]) in SHORT
        else:
            is_short = params.get("mode") != "production" or len(params) == 1
        if not is_short:
            item.add_marker(pytest.mark.long)
