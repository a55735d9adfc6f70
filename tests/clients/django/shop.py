"""The project `shop`, which lives beside imgo: its environment, and its processes."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.e2e.harness import HOST, INHERITED, Process
from tests.services import free_port

HERE = Path(__file__).resolve().parent
PROJECT = HERE / "project"
CLIENT = HERE.parents[2] / "clients" / "python"
TIMEOUT = 280.0  # seconds for one command

Databases = dict[str, dict[str, Any]]


class Shop:
    """A project with databases of its own. Nothing of the server is on its path.

    `interpreter`: a Python in which the package is installed; by default the tests' own.
    `variables`: of the environment, beside those of every shop.
    `template`: a migrated SQLite file, which is made when it is needed first.
    """

    def __init__(self, home: Path, databases: Databases, template: Path, **imgo: Any) -> None:
        self.home = home
        self.databases = databases
        self._template = template
        self.imgo = imgo
        self.interpreter = sys.executable
        self.variables: dict[str, str] = {}

    @property
    def environment(self) -> dict[str, str]:
        """The environment of its processes."""
        kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
        # Where packages are that the tests need and the virtual environment has not.
        more = os.environ.get("PYTHONPATH", "").split(":")
        paths = [PROJECT]
        if self.interpreter == sys.executable:
            paths += [CLIENT, *(Path(one) for one in more if one and Path(one) != Path.cwd())]
        return {
            **kept,
            "PYTHONPATH": ":".join(map(str, paths)),
            "PYTHONUNBUFFERED": "1",
            "DJANGO_SETTINGS_MODULE": "shop.settings",
            "SHOP_DATABASES": json.dumps(self.databases),
            "SHOP_IMGO": json.dumps(self.imgo),
            **self.variables,
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
        return self._run([self.interpreter, "-W", "error", *words])

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
        """Create the tables; those of SQLite are copied, because a migration takes a second."""
        for alias, database in self.databases.items():
            is_file = "sqlite3" in database["ENGINE"]
            if not is_file or not self._template.exists():
                done = self.manage("migrate", "--verbosity", "0", "--database", alias)
                assert done.returncode == 0, done.stderr
            if is_file and self._template.exists():
                shutil.copy(self._template, database["NAME"])
            elif is_file:
                shutil.copy(database["NAME"], self._template)

    def relay(self, name: str = "relay") -> Process:
        """Return `manage.py imgo_relay`, which is not started yet."""
        words = ["-W", "error", "-m", "django", "imgo_relay"]
        return Relay(self.home, name, words, self.environment)

    def worker(self) -> Process:
        """Return a Celery worker of the project, which is not started yet."""
        words = ["-m", "celery", "-A", "shop", "worker", "--loglevel", "INFO", "-c", "2"]
        return Worker(self.home, "worker", words, self.environment)


class Site(Process):
    """The project's own web server, which `manage.py runserver` starts."""

    def __init__(self, shop: Shop, name: str) -> None:
        self.port = free_port()
        address = f"{HOST}:{self.port}"
        words = ["-W", "error", "-m", "django", "runserver", "--noreload", address]
        super().__init__(shop.home, name, words, shop.environment)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def is_ready(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0


class Relay(Process):
    """The process that sends the project's outbox, which `manage.py imgo_relay` starts."""

    def is_ready(self) -> bool:
        """Whether it has said that it runs."""
        return "The relay runs." in self.log.read_text()


class Worker(Process):
    """A Celery worker."""

    def is_ready(self) -> bool:
        """Whether it has said that it takes tasks."""
        return " ready." in self.log.read_text()
