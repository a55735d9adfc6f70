"""A pytest plugin that is loaded first: gives the tests their Postgres and Redis.

Django reads its settings from the environment as soon as pytest-django is loaded, so the servers
must run before that. `pyproject.toml` names this module with `-p`. With `TESTS_UNIT=1`
(`make test-unit`) nothing is started, and tests that need a service are left out.
"""

import atexit
import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.services import Services, start_services

SECRET_KEY = "a secret key for tests only, of a proper length, as the checks like them"

# Who was started in the background of a script ignores this, and so would all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# With pytest-xdist each of its processes has servers of its own: tests empty their Redis.
if "PYTEST_XDIST_WORKER" in os.environ and os.environ.pop("TESTS_OWN_SERVERS", ""):
    del os.environ["DATABASE_URL"], os.environ["REDIS_URL"]
is_own = not {"DATABASE_URL", "REDIS_URL"} & os.environ.keys()

home = Path(tempfile.mkdtemp(prefix="imgo-tests-"))
atexit.register(shutil.rmtree, home, ignore_errors=True)
is_unit = bool(os.environ.get("TESTS_UNIT"))
services = Services("", "") if is_unit else start_services(home)

os.environ.update(
    DATABASE_URL=services.database_url,
    REDIS_URL=services.redis_url,
    DJANGO_SECRET_KEY=SECRET_KEY,
    DJANGO_ALLOWED_HOSTS="testserver,localhost,127.0.0.1",
    IMGO_DATA_DIR=str(home / "data"),
    **({"TESTS_OWN_SERVERS": "1"} if is_own else {}),
)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect the tests without Python's garbage collector: almost nothing of them is garbage."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
