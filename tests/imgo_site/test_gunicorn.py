"""gunicorn's settings: a directory in which the processes of the API count together."""

import os
from pathlib import Path

import pytest

from tests import PATIENCE, fork_server

pytestmark = pytest.mark.services

ROOT = Path(__file__).resolve().parent.parent.parent
LIFE = """
import os, sys
from imgo_site import gunicorn

assert "prometheus_client" not in sys.modules  # it would not see the variable any more
gunicorn.on_starting(None)
print(os.environ["PROMETHEUS_MULTIPROC_DIR"], os.listdir(os.environ["PROMETHEUS_MULTIPROC_DIR"]))
gunicorn.on_exit(None)
"""


@pytest.mark.parametrize("given", ["named", ""])
def test_directory_is_emptied_at_the_start_and_removed_if_it_is_our_own(tmp_path, given):
    named = tmp_path / "named"
    named.mkdir()
    (named / "counter_1.db").touch()
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    environment["PROMETHEUS_MULTIPROC_DIR"] = str(named) if given else ""
    done = fork_server.run(["-c", LIFE], ROOT, environment, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")
    path, found = done.stdout.split(maxsplit=1)
    assert found == "[]\n"
    assert path.startswith(str(named if given else tmp_path / "imgo-api-"))
    assert Path(path).exists() == bool(given)
