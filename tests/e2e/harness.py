"""Processes of one installation: start, inspect, signal and stop them, and check their logs."""

import asyncio
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx
import psycopg
from psycopg import sql

from push.bus.redis_clients import reader_client
from tests import NO_TLS, fork_server, wait_until
from tests.services import Redis, free_port, process_state, redis_programs, start_first

ROOT = Path(__file__).resolve().parent.parent.parent
HOST = "127.0.0.1"
UP_TIMEOUT = 120.0  # seconds until a started process must serve; a busy machine is slow
START_POLL = 0.05  # seconds between two checks whether a process serves
DOWN_TIMEOUT = 15.0  # seconds from SIGTERM to the end, as docs/deploying.md promises
LOG_TAIL = 4000  # characters of a log that a failure shows
SECRET_MIN = 8  # bytes; shorter texts may be in a log by chance
# Only variables that the machine needs, without a developer's own IMGO_* or DATABASE_URL.
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "SYSTEMROOT")
# Rooms with history, which no other tests use.
SCOPES = '{"each-*": "each"}'  # of keys
KEPT_ROOMS = '{"kept-*": {"history": 100000}}'

Environment = dict[str, str]


def base_environment() -> Environment:
    """Return the environment of every process, with additions from `E2E_ENVIRONMENT`."""
    kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
    words = shlex.split(os.environ.get("E2E_ENVIRONMENT", ""))
    defaults = {"PYTHONUNBUFFERED": "1", "IMGO_ROOMS": KEPT_ROOMS, "IMGO_ACK_SCOPE": SCOPES}
    return {**kept, **defaults, **dict(word.split("=", 1) for word in words)}


def free_ports(count: int) -> list[int]:
    """Return ports that are not in use and were not returned before."""
    return [free_port() for _ in range(count)]


class Logs:
    """Logs of our processes, which may contain no traceback, no token and no message body."""

    def __init__(self) -> None:
        self._seen: dict[Path, int] = {}
        self._secrets: set[bytes] = set()

    def watch(self, *paths: Path) -> None:
        """Also check these files, from their beginning."""
        for path in paths:
            self._seen.setdefault(path, 0)

    def forbid(self, secret: str | bytes) -> None:
        """Report any log that contains this from now on."""
        data = secret.encode() if isinstance(secret, str) else secret
        if len(data) >= SECRET_MIN:
            self._secrets.add(data)

    def complaints(self) -> list[str]:
        """Return the problems in the lines that were written since the last call."""
        problems = []
        for path, start in self._seen.items():
            with path.open("rb") as file:
                file.seek(start)
                data = file.read()
            self._seen[path] = start + len(data)
            if b"Traceback" in data:
                problems.append(f"{path.name} has a traceback:\n{data.decode(errors='replace')}")
            if path.suffix == ".log":  # the demo's greeting on stdout shows its secrets on purpose
                problems += [f"{path.name} shows {s!r}" for s in self._secrets if s in data]
        return problems


logs = Logs()


class Process:
    """One process of ours, with its standard error in `log` and its standard output in `out`.

    `start` returns after the process serves; `stop` requires an orderly end.
    """

    def __init__(self, home: Path, name: str, command: Sequence[str], environment: Environment):
        self.name = name
        self.environment = environment
        self.log = home / f"{name}.log"
        self.out = home / f"{name}.out"
        self._home = home
        self._command = command
        self._process: fork_server.Program | None = None

    def add_arguments(self, *arguments: str) -> None:
        """Add arguments for the next start."""
        self._command = [*self._command, *arguments]

    def launch(self) -> None:
        """Start the process without waiting until it serves."""
        with self.log.open("ab") as log, self.out.open("ab") as out:
            self._process = fork_server.start(
                self._command, ROOT, self.environment, stdout=out, stderr=log
            )
        logs.watch(self.log, self.out)

    def is_ready(self) -> bool:
        """Return whether the process serves."""
        raise NotImplementedError

    def wait_until_ready(self) -> None:
        """Wait until the process serves.

        Raises AssertionError, with the end of the log, if the process ends or does not serve in
        time.
        """

        def is_up() -> bool:
            if self.status is not None:
                raise AssertionError(f"{self.name} ended with {self.status}.\n{self.tail()}")
            return self.is_ready()

        try:
            wait_until(is_up, UP_TIMEOUT, START_POLL)
        except AssertionError as error:
            self.kill()
            raise AssertionError(f"{self.name} does not serve: {error}\n{self.tail()}") from None

    def start(self) -> None:
        """Start the process and wait until it serves."""
        self.launch()
        self.wait_until_ready()

    async def start_beside(self) -> None:
        """Do what `start` does, while other tasks continue.

        The calling thread launches the process, because the process ends with that thread.
        """
        self.launch()
        await asyncio.to_thread(self.wait_until_ready)

    @property
    def state(self) -> str:
        """Return the kernel's letter for the state of the process; `T` is stopped."""
        return process_state(self.pid)

    @property
    def pid(self) -> int:
        """Return the process id."""
        assert self._process is not None, f"{self.name} was not started"
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Return the exit status, None while the process runs."""
        assert self._process is not None, f"{self.name} was not started"
        return self._process.poll()

    @property
    def is_running(self) -> bool:
        """Return whether the process was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def has_ended(self) -> bool:
        """Return whether the process has ended; it must have been started."""
        return self.status is not None

    def signal(self, number: int) -> None:
        """Send the process a signal."""
        assert self._process is not None, f"{self.name} was not started"
        self._process.send_signal(number)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the process and its children with SIGSTOP while the context is open."""
        os.killpg(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            if self.is_running:
                os.killpg(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Kill the process and its children, if it runs."""
        if self.is_running:
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()

    def stop(self) -> None:
        """Stop the process in order; fail if that takes longer than `DOWN_TIMEOUT`."""
        self.signal(signal.SIGTERM)
        self.wait_until_ended()

    def wait_until_ended(self) -> None:
        """Wait for the end after a SIGTERM.

        Raises AssertionError if the exit status is not 0, or after `DOWN_TIMEOUT` seconds.
        """
        try:
            wait_until(self.has_ended, DOWN_TIMEOUT)
        except AssertionError:
            self.kill()
            raise AssertionError(f"{self.name} did not stop.\n{self.tail()}") from None
        assert self.status == 0, f"{self.name} stopped with {self.status}.\n{self.tail()}"

    def wait(self) -> int:
        """Wait until the process ends by itself; return its exit status."""
        wait_until(self.has_ended, UP_TIMEOUT)
        assert self.status is not None
        return self.status

    def tail(self) -> str:
        """Return the end of the log."""
        return f"The end of {self.log}:\n{self.log.read_text(errors='replace')[-LOG_TAIL:]}"


class HttpProcess(Process):
    """Process that answers /healthz."""

    def __init__(
        self, home: Path, name: str, command: Sequence[str], environment: Environment, port: int
    ) -> None:
        super().__init__(home, name, command, environment)
        self.http_port = port
        self.url = f"http://{HOST}:{port}"

    def is_ready(self) -> bool:
        """Return whether /healthz answers 200."""
        try:
            answer = httpx.get(f"{self.url}/healthz", timeout=2, trust_env=False, verify=NO_TLS)
        except httpx.TransportError:
            return False
        return answer.status_code == 200


class Node(HttpProcess):
    """Node: `manage.py imgo`."""

    tls: ssl.SSLContext | None = None  # trusts the node's certificate; None: no TLS

    def __init__(self, home: Path, name: str, environment: Environment) -> None:
        port, self.ws_port, self.tcp_port = free_ports(3)
        ports = {
            "IMGO_HTTP_PORT": str(port),
            "IMGO_WS_PORT": str(self.ws_port),
            "IMGO_TCP_PORT": str(self.tcp_port),
        }
        super().__init__(home, name, ["manage.py", "imgo"], {**environment, **ports}, port)


class Gunicorn(HttpProcess):
    """Process that serves only the API."""

    def __init__(self, home: Path, name: str, environment: Environment) -> None:
        (port,) = free_ports(1)
        workers = environment.get("WEB_CONCURRENCY", "1")
        options = ("--bind", f"{HOST}:{port}", "--workers", workers, "--threads", "8")
        options += ("--no-control-socket", "-c", "python:imgo_site.gunicorn")
        super().__init__(
            home, name, ["-m", "gunicorn", "imgo_site.wsgi", *options], environment, port
        )


class Worker(Process):
    """Celery worker with one child, so that it keeps the order of tasks."""

    def __init__(self, home: Path, name: str, environment: Environment) -> None:
        command = ["-m", "celery", "-A", "imgo_site", "worker", "-c", "1"]
        super().__init__(home, name, command, environment)

    def is_ready(self) -> bool:
        """Return whether a client of Redis waits for tasks."""
        with reader_client(self.environment["REDIS_URL"], "imgo-tests") as client:
            return any(row["cmd"] == "brpop" for row in client.client_list())


class Workers(Worker):
    """`manage.py workers`: one Celery worker for each partition, and a port for their metrics."""

    def __init__(self, home: Path, name: str, environment: Environment) -> None:
        (self.port,) = free_ports(1)
        settings = {"IMGO_WORKER_METRICS_PORT": str(self.port)}
        super().__init__(home, name, {**environment, **settings})
        self._command = ["manage.py", "workers"]
        self.url = f"http://{HOST}:{self.port}"


def manage(environment: Environment, *arguments: str) -> str:
    """Run `manage.py`; return its output without the line end. Fail if its exit status is not 0."""
    done = try_manage(environment, *arguments)
    assert done.returncode == 0, f"manage.py {arguments}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def try_manage(
    environment: Environment, *arguments: str, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run `manage.py`; return its result, whatever its exit status is."""
    command = ["manage.py", *arguments]
    return fork_server.run(command, ROOT, environment, stdin=stdin, timeout=UP_TIMEOUT)


# Django's start takes most of the time of a command, so this runs many commands in one process.
_MANAGE_MANY = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from django.core.management import execute_from_command_line

for words in json.loads(sys.argv[1]):
    status, out, error = 0, io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(error):
        try:
            execute_from_command_line(["manage.py", *words])
        except SystemExit as end:
            status = end.code
    print(json.dumps([status, out.getvalue().strip(), error.getvalue().strip()]))
"""


def manage_many(
    environment: Environment, commands: Sequence[Sequence[str]], stdin: str = ""
) -> list[tuple[int, str, str]]:
    """Run commands of `manage.py` in order; return the status, output and errors of each."""
    done = fork_server.run(
        ["-c", _MANAGE_MANY, json.dumps(commands)],
        ROOT,
        {**environment, "DJANGO_SETTINGS_MODULE": "imgo_site.settings"},
        stdin=stdin,
        timeout=UP_TIMEOUT,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


class System:
    """One installation. As a context manager it starts all processes, and stops them at the end."""

    def __init__(self, home: Path, settings: Environment) -> None:
        self.home = home
        self.api_key = secrets.token_urlsafe(24)
        logs.forbid(self.api_key)
        self.environment = {
            **base_environment(),
            "IMGO_API_KEY": self.api_key,
            "IMGO_DATA_DIR": str(home / "data"),
            **settings,
        }
        self.nodes: list[Node] = []
        self.processes: list[Process] = []

    @property
    def api_url(self) -> str:
        """Return the base URL of the API."""
        raise NotImplementedError

    def start(self) -> None:
        """Start all processes at the same time, and wait until all serve."""
        for process in self.processes:
            process.launch()
        for process in self.processes:
            process.wait_until_ready()

    def stop(self) -> None:
        """Stop all processes in order; fail if one does not stop in time or with status 0.

        Processes that the test has ended itself are not checked.
        """
        errors = []
        running = [process for process in self.processes if process.is_running]
        for process in running:
            process.signal(signal.SIGTERM)
        for process in running:
            try:
                process.wait_until_ended()
            except AssertionError as error:
                errors.append(str(error))
        self.clean_up()
        assert not errors, "\n".join(errors)

    def clean_up(self) -> None:
        """Remove databases and servers of the installation, after all processes have ended."""

    def __enter__(self) -> "System":
        try:
            self.start()
        except BaseException:
            for process in self.processes:
                process.kill()
            self.clean_up()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Embedded(System):
    """Installation of one node with SQLite."""

    def __init__(self, home: Path, template: Path, **settings: str) -> None:
        super().__init__(home, settings)
        shutil.copytree(template, home / "data")
        self.nodes = [Node(home, "embedded", self.environment)]
        self.processes = [*self.nodes]

    @staticmethod
    def make_template(home: Path) -> Path:
        """Create a migrated data directory, of which each installation gets a copy."""
        manage({**base_environment(), "IMGO_DATA_DIR": str(home)}, "migrate", "--verbosity", "0")
        (home / "secret_key").unlink()  # each installation generates its own
        return home

    @property
    def api_url(self) -> str:
        """Return the URL of the node."""
        return self.nodes[0].url

    def demo(self) -> dict[str, str]:
        """Return the demo's secrets."""
        credentials: dict[str, str] = json.loads((self.home / "data" / "demo.json").read_text())
        return credentials


class Cluster(System):
    """Installation of nodes, a worker and an API process, with its own database and Redis."""

    def __init__(self, home: Path, template: "Database", nodes: int = 2, **settings: str) -> None:
        self.database = template.copy()
        # A Redis server of its own: published messages cross the database numbers of one server.
        self.redis = start_first(Redis, home, redis_programs())
        shared = {
            "DATABASE_URL": self.database.url,
            "REDIS_URL": self.redis.url,
            "DJANGO_SECRET_KEY": secrets.token_urlsafe(50),
            "DJANGO_ALLOWED_HOSTS": f"localhost,{HOST}",
        }
        super().__init__(home, {**shared, **settings})
        self.worker = Worker(home, "worker", self.environment)
        self.gunicorn = Gunicorn(home, "gunicorn", self.environment)
        self.nodes = [Node(home, f"node{number}", self.environment) for number in range(nodes)]
        self.processes = [*self.nodes, self.worker, self.gunicorn]

    @property
    def api_url(self) -> str:
        """Return the URL of the API process."""
        return self.gunicorn.url

    def clean_up(self) -> None:
        """Drop the database and remove Redis."""
        self.database.drop()
        self.redis.remove()


class Database:
    """Database of our own on the tests' Postgres server."""

    def __init__(self, server_url: str, template: str = "template1") -> None:
        self.name = f"imgo_e2e_{secrets.token_hex(4)}"
        self.url = urlunsplit(urlsplit(server_url)._replace(path=f"/{self.name}"))
        self._server_url = server_url
        self._execute("CREATE DATABASE {} TEMPLATE {}", self.name, template)

    def migrate(self) -> None:
        """Create the tables."""
        secret = {"DATABASE_URL": self.url, "DJANGO_SECRET_KEY": secrets.token_urlsafe(50)}
        manage({**base_environment(), **secret}, "migrate", "--verbosity", "0")

    def copy(self) -> "Database":
        """Create another database with the same tables."""
        return Database(self._server_url, self.name)

    def drop(self) -> None:
        """Drop the database, even if clients are connected."""
        self._execute("DROP DATABASE {} WITH (FORCE)", self.name)

    def _execute(self, statement: str, *names: str) -> None:
        with psycopg.connect(self._server_url, autocommit=True, connect_timeout=10) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def names_setting(text: str, setting: str) -> bool:
    """Return whether a message to the operator names a setting."""
    return re.search(rf"\b{setting}\b", text) is not None
