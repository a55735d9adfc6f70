"""The project `shop`, which lives beside imgo: its environment, and its processes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.e2e.harness import INHERITED, Process

HERE = Path(__file__).resolve().parent
PROJECT = HERE / "project"
CLIENT = HERE.parents[2] / "clients" / "python"
TIMEOUT = 280.0  # seconds for one command

Databases = dict[str, dict[str, Any]]


class Shop:
    """A project with databases of its own. Nothing of the server is on its path."""

    def __init__(self, home: Path, databases: Databases, **imgo: Any) -> None:
        self.home = home
        self.databases = databases
        self.imgo = imgo

    @property
    def environment(self) -> dict[str, str]:
        """The environment of its processes."""
        kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
        # Where packages are that the tests need and the virtual environment has not.
        more = os.environ.get("PYTHONPATH", "").split(":")
        paths = [PROJECT, CLIENT, *(path for path in more if path and Path(path) != Path.cwd())]
        return {
            **kept,
            "PYTHONPATH": ":".join(map(str, paths)),
            "PYTHONUNBUFFERED": "1",
            "DJANGO_SETTINGS_MODULE": "shop.settings",
            "SHOP_DATABASES": json.dumps(self.databases),
            "SHOP_IMGO": json.dumps(self.imgo),
        }

    def manage(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of Django's, whatever its status is."""
        return self.python("-m", "django", *words)

    def run(self, program: str) -> str:
        """Run Python with Django set up; return what it prints. Fails if it fails."""
        source = f"import django\ndjango.setup()\nfrom imgo_client.django import *\n{program}"
        done = self.python("-c", source)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def python(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run Python, whatever its status is."""
        return self._run([sys.executable, "-W", "error", *words])

    def _run(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words,
            cwd=self.home,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )

    def migrate(self) -> None:
        """Create the tables."""
        for alias in self.databases:
            done = self.manage("migrate", "--verbosity", "0", "--database", alias)
            assert done.returncode == 0, done.stderr

    def relay(self, name: str = "relay") -> Process:
        """Return `manage.py imgo_relay`, which is not started yet."""
        words = ["-W", "error", "-m", "django", "imgo_relay"]
        return Relay(self.home, name, words, self.environment)


class Relay(Process):
    """`manage.py imgo_relay`."""

    def is_ready(self) -> bool:
        """Whether it has said that it runs."""
        return "The relay runs." in self.log.read_text()
