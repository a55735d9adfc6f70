"""The app with the oldest Django that it is for, installed by pip with all that it needs.

Pip downloads the packages once: 15 seconds, then 5 from its cache. The project's tests take 10.
"""

import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from .shop import CLIENT, Shop

OLDEST = "4.2"  # as pyproject.toml and the documentation say


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python of its own with the package, its extra `django`, and that Django."""
    home = tmp_path_factory.mktemp("oldest")
    source = home / "source"  # a build leaves its traces beside the source
    shutil.copytree(CLIENT, source, ignore=shutil.ignore_patterns("build", "*.egg-info"))
    venv.create(home / "venv", with_pip=False)
    python = str(home / "venv" / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    wanted = [f"{source}[django]", f"Django=={OLDEST}.*", "celery"]  # the app's tests want Celery
    done = subprocess.run(
        [*pip, "install", "-q", *wanted], capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stderr
    return python


@pytest.mark.long
@pytest.mark.parametrize("vendor", ["sqlite"], indirect=True)
def test_tests_of_a_project_pass_with_the_oldest_django(
    make_shop: Callable[..., Shop], interpreter: str
) -> None:
    shop = make_shop()
    shop.interpreter = interpreter
    program = "import imgo_client; print(django.__version__, imgo_client.__file__)"
    version, path = shop.run(program).split()
    assert version.startswith(f"{OLDEST}.")
    assert Path(path).is_relative_to(Path(interpreter).parents[1])
    done = shop.manage("test", "--noinput", "shop.tests", "--shuffle")
    assert done.returncode == 0, done.stderr[-20_000:]
    assert "Ran 0 tests" not in done.stderr
    done = shop.manage("makemigrations", "--check", "--dry-run")
    assert done.returncode == 0, done
