"""The embedded mode's database: what is marked `any_database` runs on SQLite too, in a process of
its own with no services in the environment; and parallel pushes on a real file."""

import os
import re
from pathlib import Path

import pytest

from tests import fork_server

pytestmark = pytest.mark.services

ROOT = Path(__file__).resolve().parent.parent.parent
SERVICES = {"DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL", "DJANGO_SECRET_KEY"}
# Importing all plugins of pytest takes seconds.
NO_PLUGINS = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
PLUGINS = ("-p", "pytest_django.plugin", "-p", "pytest_asyncio.plugin", "-p", "pytest_timeout")


@pytest.fixture
def run(tmp_path):
    """Runs Python in an embedded setup that has nothing yet; what it printed."""

    def run_python(*arguments: str) -> str:
        kept = {name: value for name, value in os.environ.items() if name not in SERVICES}
        environment = kept | NO_PLUGINS | {"IMGO_DATA_DIR": str(tmp_path)}
        done = fork_server.run(arguments, ROOT, environment, timeout=280)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run_python


def test_what_runs_on_any_database_runs_on_sqlite(run, tmp_path):
    # Without the plugin that starts the services, and without a cache that is not its own.
    options = ["-o", "addopts=", "-o", f"cache_dir={tmp_path / 'cache'}", "-m", "any_database"]
    # Collecting the other files would take longer than the tests.
    files = [
        str(file)
        for name in ("accounts", "offline", "push")
        for file in (ROOT / "tests" / name).rglob("test_*.py")
        if "any_database" in file.read_text()
    ]
    out = run("-m", "pytest", "-q", *PLUGINS, *options, *files)
    passed = int(re.search(r"(\d+) passed", out).group(1))
    assert passed >= 120, out


PARALLEL = """
import threading
from django.db import connection, connections
from offline.models import Message, Pending
from push.accept.accept import Push, accept_push

assert connection.vendor == "sqlite"
ids, together = [], threading.Barrier(16)

def push(n):
    together.wait(30)
    for _ in range(3):
        ids.append(accept_push(Push(b"1", keys=(f"u{n}",), dedupe_id=f"d{n % 4}")))
    connections.close_all()

threads = [threading.Thread(target=push, args=(n,)) for n in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(ids), len(set(ids)), Message.objects.count(), Pending.objects.count())
with connection.cursor() as cursor:
    for name in ("journal_mode", "synchronous"):
        print(cursor.execute(f"PRAGMA {name}").fetchone()[0])
"""


def test_parallel_pushes_wait_for_each_other_on_a_file(run, tmp_path):
    run("manage.py", "migrate", "--verbosity", "0")
    out = run("manage.py", "shell", "--verbosity", "0", "-c", PARALLEL)
    counts, journal_mode, synchronous = out.splitlines()
    assert counts == "48 4 4 4"
    assert (journal_mode, synchronous) == ("wal", "2")  # FULL: what is answered is on the disk
    assert (tmp_path / "imgo.sqlite3").stat().st_size > 0
