"""The servers of a scenario: nodes, worker, API, Postgres and Redis; floor and stock baseline.

All are real processes of their own, as docs/deploying.md starts them, on 127.0.0.1.
"""

import asyncio
import base64
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg
import redis
from channels_redis.pubsub import RedisPubSubChannelLayer

from benchmarks import proc
from benchmarks.processes import ROOT, Process, StartError, accepts, free_port
from benchmarks.stock.consumers import GROUP
from tests.services import Postgres, postgres_programs, redis_programs, start_first
from tests.services import Redis as RedisServer

API_KEY = "imgo_benchmarks-know-this-key-and-so-may-everybody"
JWT_SECRET = "a secret that signs the tokens of benchmarks, of a proper length"
QUEUE = "imgo.push*"  # the broker's queues
HOST = "127.0.0.1"
KEPT_ROOM = "kept"  # a room with history
IDLE_TIMEOUT = 60.0  # seconds that Postgres may take for new rows
IDLE_SAMPLE = 0.25  # seconds
IDLE_SHARE = 0.04  # of one core: below this Postgres is idle


class DurablePostgres(Postgres):
    """A private Postgres that waits for the disk, as in production; the tests' one does not.

    It takes more connections, too: two for each of the nodes of a million sessions.
    """

    def _command(self) -> list[str | Path]:
        command = list(super()._command())
        changes = {"fsync=off": "fsync=on", "max_connections=100": "max_connections=200"}
        return [changes.get(str(word), word) for word in command]


class Node(Process):
    """A node and where it listens."""

    def __init__(self, stack: "Stack", number: int, settings: dict[str, str]) -> None:
        self.port, self.tcp_port = free_port(), free_port()
        env = stack.env | {
            "IMGO_HOST": HOST,
            "IMGO_HTTP_PORT": str(self.port),
            "IMGO_WS_PORT": "0",
            "IMGO_TCP_PORT": str(self.tcp_port),
            "IMGO_NODE_NAME": f"bench-{number}",
            "PGAPPNAME": f"bench-node-{number}",
        }
        env |= settings
        self.application = env["PGAPPNAME"]  # in pg_stat_activity
        title = f"node {number}"
        super().__init__(title, ["manage.py", "imgo"], stack.home / f"node-{number}.log", env)
        self.wait_until(self._is_up)

    def _is_up(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=2)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def cpu(self) -> float:
        """CPU seconds so far. It has no children, and this is read in every round."""
        return proc.cpu(self.pid)

    def target(self, transport: str) -> tuple[str, int]:
        """Where sessions of this transport connect."""
        return HOST, self.tcp_port if transport == "tcp" else self.port


class Stack:
    """Postgres, Redis and, when asked for, the processes of imgo. Use it with `with`."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="imgo-bench-"))
        self.processes: list[Process] = []
        self._count = 0

    def __enter__(self) -> "Stack":
        try:
            self.postgres: Postgres = start_first(DurablePostgres, self.home, postgres_programs())
            self.redis_server: RedisServer = start_first(RedisServer, self.home, redis_programs())
            self.env = self._environment()
            self.run("manage.py", "migrate", "--verbosity", "0")
        except BaseException:
            self.__exit__()
            raise
        self.redis = redis.Redis.from_url(self.redis_server.url)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_all()
        for name in ("redis_server", "postgres"):
            if hasattr(self, name):
                getattr(self, name).remove()
        shutil.rmtree(self.home, ignore_errors=True)

    def _environment(self) -> dict[str, str]:
        foreign = ("IMGO_", "DJANGO_", "DATABASE_", "REDIS_", "CELERY_", "PG")
        kept = {name: text for name, text in os.environ.items() if not name.startswith(foreign)}
        return kept | {
            "DATABASE_URL": self.postgres.url,
            "REDIS_URL": self.redis_server.url,
            "DJANGO_SECRET_KEY": "a secret key for benchmarks only, of a proper length",
            "DJANGO_ALLOWED_HOSTS": HOST,
            "DJANGO_SETTINGS_MODULE": "imgo_site.settings",
            "IMGO_DATA_DIR": str(self.home / "data"),
            "IMGO_API_KEY": API_KEY,
            "IMGO_JWT_SECRET": JWT_SECRET,
            "IMGO_ROOMS": json.dumps({KEPT_ROOM: {"history": 1000}}),
            # The generator's sessions send no heartbeats, and a large scenario takes a while.
            "IMGO_HEARTBEAT_TIMEOUT": "3600",
            "PYTHONUNBUFFERED": "1",
            "LOG_LEVEL": "INFO",
        }

    def run(self, *command: str) -> str:
        """Run a Python program with the servers' environment to its end; returns its output."""
        done = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise StartError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
        return done.stdout

    def seed(self, *arguments: object) -> str:
        """Put rows into the database (see seed.py), and leave it idle."""
        output = self.run("-m", "benchmarks.seed", *map(str, arguments))
        self._finish_writing()
        return output

    def _finish_writing(self) -> None:
        """Do Postgres's background work for new rows now, and return when it is idle.

        Statistics, vacuum and checkpoint would otherwise fall into the next measurement, and a
        plan made without statistics would be measured. Raises `StartError` after `IDLE_TIMEOUT`.
        """
        with self.database() as database:
            database.execute("VACUUM (ANALYZE)")
            database.execute("CHECKPOINT")
        deadline = time.monotonic() + IDLE_TIMEOUT
        before = self.postgres_cpu()
        while True:
            time.sleep(IDLE_SAMPLE)
            now = self.postgres_cpu()
            if now - before < IDLE_SHARE * IDLE_SAMPLE:
                return
            if time.monotonic() > deadline:
                raise StartError(
                    f"Postgres was still busy {IDLE_TIMEOUT:g} s after rows were added"
                )
            before = now

    def _add(self, process: Process) -> None:
        self.processes.append(process)

    def node(self, **settings: str) -> Node:
        """Start a node, with these environment variables besides."""
        self._count += 1
        node = Node(self, self._count, settings)
        self._add(node)
        return node

    def worker(self) -> Process:
        """Start the Celery worker."""
        self._count += 1
        command = ["-m", "celery", "-A", "imgo_site", "worker"]
        log = self.home / f"worker-{self._count}.log"
        worker = Process("the worker", command, log, self.env)
        self._add(worker)
        worker.wait_until(self._is_waited_for)
        return worker

    def _is_waited_for(self) -> bool:
        """Whether a worker waits for tasks. Its log says so at some levels only."""
        clients: Any = self.redis.client_list()
        return any(client["cmd"] == "brpop" for client in clients)

    def api(self, port: int = 0) -> "Api":
        """Start the API under gunicorn: one worker, and threads, which keep-alive needs.

        `port`: 0 for a free one.
        """
        self._count += 1
        api = Api(self, self.home / f"api-{self._count}.log", port or free_port())
        self._add(api)
        return api

    def stop(self, *processes: Process) -> None:
        """Stop some of the processes."""
        for process in processes:
            process.stop()
            if process in self.processes:
                self.processes.remove(process)

    def kill(self, process: Process) -> None:
        """End one of the processes at once."""
        process.kill()
        self.processes.remove(process)

    def stop_all(self) -> None:
        """Stop all processes but Postgres and Redis."""
        self.stop(*reversed(self.processes))

    def database(self) -> "psycopg.Connection[tuple[Any, ...]]":
        """A connection of our own."""
        return psycopg.connect(self.postgres.url, autocommit=True)

    def queued(self) -> int:
        """Tasks that wait in the broker."""
        names: list[Any] = list(self.redis.scan_iter(QUEUE))
        lists = [name for name in names if self.redis.type(name) == b"list"]
        return sum(int(self.redis.llen(name)) for name in lists)

    def drain(self, timeout: float = 60.0) -> bool:
        """Wait until the broker's queues are empty; False when they are not in time."""
        deadline = time.monotonic() + timeout
        while self.queued():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def empty_queue(self) -> None:
        """Throw away what waits in the broker: the next scenario must not wait for it."""
        for name in self.redis.scan_iter(QUEUE):
            self.redis.delete(name)

    def postgres_cpu(self) -> float:
        """CPU seconds of Postgres, all its backends included."""
        return proc.tree_cpu(self.postgres.pid)

    def redis_cpu(self) -> float:
        """CPU seconds of Redis."""
        return proc.tree_cpu(self.redis_server.pid)


class Api(Process):
    """The API under gunicorn."""

    def __init__(self, stack: Stack, log: Path, port: int) -> None:
        self.port = port
        command = ["-m", "gunicorn", "imgo_site.wsgi", "--bind", f"{HOST}:{self.port}"]
        command += ["--workers", "1", "--threads", "8", "--keep-alive", "75", "--no-control-socket"]
        super().__init__("the API", command, log, stack.env)
        self.wait_until(lambda: accepts(HOST, self.port))


class HookBackend(Process):
    """A backend for the authenticate hook, on a port of its own."""

    SECRET = "whsec_" + base64.b64encode(b"for the benchmarks, long enough.").decode()

    def __init__(self, stack: Stack) -> None:
        self.port = free_port()
        command = ["-m", "benchmarks.hook_backend", str(self.port)]
        super().__init__("the hook's backend", command, stack.home / "hooks.log", stack.env)
        self.wait_until(lambda: accepts(HOST, self.port))
        stack.processes.append(self)

    @property
    def settings(self) -> dict[str, str]:
        """The environment of a node that asks it."""
        url = f"http://{HOST}:{self.port}/authenticate"
        return {"IMGO_AUTHENTICATE_URL": url, "IMGO_HOOK_SECRETS": self.SECRET}

    def connections(self) -> int:
        """How many connections it has accepted, with one of `accepts`."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=5)
        connection.request("GET", "/")
        count = int(connection.getresponse().read())
        connection.close()
        return count


class Floor(Process):
    """The send floor's process."""

    def __init__(self, home: Path) -> None:
        env = dict(os.environ)
        command = ["-m", "benchmarks.floor"]
        super().__init__("the send floor", command, home / "floor.log", env, piped=True)
        assert self.popen.stdout is not None
        self.port = int(self.popen.stdout.readline())

    def ask(self, line: str) -> str:
        """Send a command; returns the answer. For `accept`, connect before the answer is read."""
        self.tell(line)
        return self.answer()

    def tell(self, line: str) -> None:
        """Write a command to the process, without waiting for its answer."""
        assert self.popen.stdin is not None
        self.popen.stdin.write(f"{line}\n".encode())
        self.popen.stdin.flush()

    def answer(self) -> str:
        """Wait for the answer to one."""
        assert self.popen.stdout is not None
        return self.popen.stdout.readline().decode().strip()


class Stock(Process):
    """The stock Channels baseline under Daphne, and its publisher, which is in this process."""

    def __init__(self, stack: Stack) -> None:
        self.port = free_port()
        env = stack.env | {"DJANGO_SETTINGS_MODULE": "benchmarks.stock.settings"}
        command = ["-m", "daphne", "-v", "0", "-b", HOST, "-p", str(self.port)]
        command.append("benchmarks.stock.asgi:application")
        super().__init__("stock Channels", command, stack.home / "stock.log", env)
        self.wait_until(lambda: accepts(HOST, self.port))
        self._loop = asyncio.new_event_loop()
        self._layer = RedisPubSubChannelLayer(hosts=[stack.redis_server.url], prefix="stock")

    def send(self, text: str) -> None:
        """group_send to the room."""
        message = {"type": "room.message", "text": text}
        self._loop.run_until_complete(self._layer.group_send(GROUP, message))
