"""The project `benchmarks.shop` beside the servers: its database, its programs, its relay."""

import json
import subprocess
import sys
import time
from typing import Any
from urllib.parse import urlsplit

import psycopg

from benchmarks.processes import ROOT, Process, StartError
from benchmarks.servers import API_KEY, HOST, Stack

LOOK = 0.05  # seconds between two looks into the outbox: of the relay, and of ours


class Project:
    """A project with a database of its own, which pushes to the API on `port`.

    `vendor`: `postgres`, on the servers' Postgres, or `sqlite`.
    """

    def __init__(self, stack: Stack, vendor: str, port: int = 1) -> None:
        self._stack = stack
        self._name = f"shop_{vendor}"
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        database = self._postgres() if vendor == "postgres" else self._sqlite()
        imgo: dict[str, Any] = {"URL": f"http://{HOST}:{port}", "API_KEY": API_KEY, "POLL": LOOK}
        imgo |= {"RELAY": "none", "HTTP": {"trust_env": False, "verify": False}}
        own = ("IMGO_", "DJANGO_", "DATABASE_", "REDIS_")
        kept = {name: text for name, text in stack.env.items() if not name.startswith(own)}
        self.env = kept | {
            "PYTHONPATH": str(ROOT / "clients" / "python"),
            "DJANGO_SETTINGS_MODULE": "benchmarks.shop.settings",
            "SHOP_DATABASE": json.dumps(database),
            "SHOP_IMGO": json.dumps(imgo),
        }
        self.run("-m", "django", "migrate", "--run-syncdb", "--verbosity", "0")

    def _postgres(self) -> dict[str, Any]:
        with self._stack.database() as database:
            database.execute(f"DROP DATABASE IF EXISTS {self._name} WITH (FORCE)")  # type: ignore[arg-type]
            database.execute(f"CREATE DATABASE {self._name}")  # type: ignore[arg-type]
        parts = urlsplit(self._stack.postgres.url)
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": self._name,
            "HOST": parts.hostname,
            "PORT": parts.port,
            "USER": parts.username,
            "PASSWORD": parts.password or "",
            "CONN_MAX_AGE": None,
        }

    def _sqlite(self) -> dict[str, Any]:
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(self._stack.home / f"{self._name}.db"),
            "CONN_MAX_AGE": None,
            "OPTIONS": {"transaction_mode": "IMMEDIATE"},
        }

    def run(self, *words: str, typed: str = "") -> str:
        """Run Python to its end; return what it prints. `typed`: its standard input."""
        done = subprocess.run(
            [sys.executable, *words],
            cwd=ROOT,
            env=self.env,
            input=typed,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise StartError(f"{' '.join(words)} failed:\n{done.stderr[-2000:]}")
        return done.stdout

    def relay(self) -> Process:
        """Start `manage.py imgo_relay`."""
        command = ["-m", "django", "imgo_relay"]
        relay = Process("the relay", command, self._stack.home / "relay.log", self.env)
        self._stack.processes.append(relay)
        relay.wait_until(lambda: relay.has_logged("The relay runs."))
        return relay

    def pushes(self, rate: float, keys: int) -> "Pushes":
        """Start to push at a steady rate."""
        pushes = Pushes(self, self._stack, rate, keys)
        self._stack.processes.append(pushes)
        return pushes

    def backlog(self) -> int:
        """How many pushes are in the outbox."""
        return int(self._ask("SELECT count(*) FROM imgo_client_outbox") or 0)

    def wait_until_relayed(self, age: float, timeout: float) -> None:
        """Wait until no push in the outbox is older; 0: until it is empty. Raises `StartError`.

        The row with the lowest number is the oldest, as near as matters here.
        """
        query = "SELECT extract(epoch FROM clock_timestamp() - created_at) FROM imgo_client_outbox"
        query += " ORDER BY sequence LIMIT 1"
        deadline = time.monotonic() + timeout
        while (oldest := self._ask(query)) is not None and not oldest < age:
            if time.monotonic() > deadline:
                raise StartError(f"the relay has not caught up after {timeout:g} s")
            time.sleep(LOOK)

    def _ask(self, query: str) -> Any:
        """Return the only value of a query to the Postgres database, None without a row."""
        if self._connection is None:
            parts = urlsplit(self._stack.postgres.url)
            url = parts._replace(path=f"/{self._name}").geturl()
            self._connection = psycopg.connect(url, autocommit=True)
        row = self._connection.execute(query).fetchone()  # type: ignore[call-overload]
        return row[0] if row else None


class Pushes(Process):
    """Pushes of the project at a steady rate, until `end`."""

    def __init__(self, project: Project, stack: Stack, rate: float, keys: int) -> None:
        command = ["-m", "benchmarks.shop.pushes", str(rate), str(keys)]
        log = stack.home / "pushes.log"
        super().__init__("the project's pushes", command, log, project.env, piped=True)
        assert self.popen.stdout is not None
        self.popen.stdout.readline()

    def end(self) -> list[int]:
        """Stop pushing; return how many there were for each key."""
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        self.popen.stdin.write(b"\n")
        self.popen.stdin.flush()
        counts: list[int] = json.loads(self.popen.stdout.readline())
        return counts
