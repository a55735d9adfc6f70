"""Program of the fork server: forks a child for each request, and the child becomes a program.

`tests/fork_server.py` runs it as `python fork_server_program.py socket owner padding`, and
describes the requests. This process has one thread, and imports only what no setting and no
environment variable of a child can change.
"""

import atexit
import ctypes
import gc
import importlib
import io
import json
import os
import runpy
import select
import signal
import socket
import struct
import sys
import time
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LENGTH = struct.Struct("!I")  # bytes of the JSON text that follows
PR_SET_PDEATHSIG = 1  # linux/prctl.h
OWNER_CHECK = 1.0  # seconds between checks whether the owner lives
STREAMS = 3  # descriptors of a request: standard input, output and error
MOST_FILES = 1024  # this process opens far fewer

# Third-party modules that our programs import. Not here, because a program chooses what they become
# before it imports them: prometheus_client, Twisted's reactor and so daphne.server, and gunicorn.
# Django's models and most of the REST framework need the settings.
LIBRARIES = (
    "aiohttp",
    "asgiref.sync",
    "autobahn.twisted.websocket",
    "celery.app.amqp",
    "celery.app.control",
    "celery.app.events",
    "celery.app.log",
    "celery.apps.worker",
    "celery.backends.base",
    "celery.bin.celery",
    "celery.concurrency.thread",
    "celery.events",
    "celery.fixups.django",
    "celery.loaders.app",
    "celery.worker.autoscale",
    "celery.worker.consumer",
    "celery.worker.consumer.delayed_delivery",
    "celery.worker.strategy",
    "channels.auth",
    "channels.consumer",
    "channels.layers",
    "channels.routing",
    "channels_redis.pubsub",
    "daphne.http_protocol",
    "daphne.ws_protocol",
    "dj_database_url",
    "django.contrib.admin",
    "django.contrib.auth.apps",
    "django.contrib.auth.hashers",
    "django.core.asgi",
    "django.core.management.commands.check",
    "django.core.management.commands.migrate",
    "django.core.wsgi",
    "django.db.backends.postgresql.base",
    "django.db.backends.sqlite3.base",
    "django.db.migrations.executor",
    "django.template.backends.django",
    "django.views.decorators.http",
    "drf_spectacular",
    "jwt",
    "kombu.transport.memory",
    "kombu.transport.redis",
    "msgspec",
    "psycopg",
    "psycopg_pool",
    "pythonjsonlogger.json",
    "rest_framework.metadata",
    "rest_framework.negotiation",
    "rich.console",
    "rich.progress",
    "twisted.internet.asyncioreactor",
    "websockets.server",
    "whitenoise.middleware",
)
FORBIDDEN = frozenset(
    {
        "daphne.server",
        "gunicorn",
        "prometheus_client",
        "tests",
        "twisted.internet.reactor",
        *("accounts", "imgo_site", "offline", "push"),
    }
)

libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Serve requests; in a child, run the requested program."""
    owner, connection = int(sys.argv[2]), socket.socket(fileno=int(sys.argv[1]))
    gc.disable()
    shared: dict[str, types.ModuleType] = {}
    atexit.register(release, shared)  # before all others, so that it is called last
    with reads_of_environment() as names:
        for name in LIBRARIES:
            importlib.import_module(name)
    if loaded := FORBIDDEN & sys.modules.keys():
        sys.exit(f"The libraries import {', '.join(sorted(loaded))}.")
    weaken_passwords()
    shared.update(sys.modules)
    del shared["__main__"]
    gc.collect()
    gc.freeze()
    send(connection, sorted(names))
    request, streams = serve(connection, owner)
    become(request, owner, streams)
    run(request["command"])


def weaken_passwords() -> None:
    """Make hashing a password cheap. Django's iterations take 0.4 s of CPU time."""
    hashers: Any = sys.modules["django.contrib.auth.hashers"]
    hashers.PBKDF2PasswordHasher.iterations = 1


def release(shared: dict[str, types.ModuleType]) -> None:
    """Exclude the `shared` modules from Python's shutdown, which clears all in `sys.modules`.

    Clearing them writes to all memory that the child shares with this process, which the kernel
    copies then: 0.1 s of CPU time. The program's own modules are cleared as usual.
    """
    for name, module in shared.items():
        if sys.modules.get(name) is module:
            del sys.modules[name]
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(shared))  # it is never freed


@contextmanager
def reads_of_environment() -> Iterator[set[str]]:
    """Collect the names of the environment variables that are read while the context is open.

    Reading all of them is an error: who does that keeps them.
    """
    names: set[str] = set()
    kind: Any = type(os.environ)
    read = kind.__getitem__

    def record(environment: Any, name: str) -> str:
        names.add(name)
        return str(read(environment, name))

    def refuse(environment: Any) -> Iterator[str]:
        raise RuntimeError("A library copies the environment.")

    read_all = kind.__iter__
    kind.__getitem__, kind.__iter__ = record, refuse
    try:
        yield names
    finally:
        kind.__getitem__, kind.__iter__ = read, read_all


def serve(connection: socket.socket, owner: int) -> tuple[dict[str, Any], list[int]]:
    """Fork a child for each request; return only in a child, with its request and descriptors.

    This process ends when the connection or its owner does: a child of the owner may keep the
    connection open.
    """
    while True:
        if not select.select([connection], [], [], OWNER_CHECK)[0]:
            if os.getppid() != owner:
                os._exit(0)
            continue
        header, streams, _, _ = socket.recv_fds(connection, LENGTH.size, STREAMS)
        if not header:
            os._exit(0)
        (length,) = LENGTH.unpack(header)
        request = json.loads(connection.recv(length, socket.MSG_WAITALL))
        pid = fork_for_owner()
        if not pid:
            connection.detach()  # `become` closes it
            return request, streams
        for stream in streams:
            os.close(stream)
        send(connection, pid)


def send(connection: socket.socket, answer: Any) -> None:
    """Send an answer as its length and JSON."""
    data = json.dumps(answer).encode()
    connection.sendall(LENGTH.pack(len(data)) + data)


def fork_for_owner() -> int:
    """Fork a child of the owner with a session of its own; return its process id, 0 in the child.

    The owner is the nearest subreaper, so that it becomes the parent when a process in between
    ends. The child waits for that.
    """
    pid_reader, pid_writer = os.pipe()
    waiter, door = os.pipe()
    between = os.fork()
    if not between:
        if os.fork():
            os._exit(0)
        os.setsid()  # before anybody knows the process id, and sends the group a signal
        os.write(pid_writer, str(os.getpid()).encode())
        os.close(door)
        os.read(waiter, 1)  # the end of the file
        return 0
    os.waitpid(between, 0)  # from now on the owner is the parent
    os.close(pid_writer)
    pid = int(os.read(pid_reader, 16))
    for file in (pid_reader, waiter, door):
        os.close(file)
    return pid


def become(request: dict[str, Any], owner: int, streams: Sequence[int]) -> None:
    """Give this process what the requested program would have at its start."""
    libc.prctl(PR_SET_PDEATHSIG, request["orphan_signal"])
    if os.getppid() != owner:
        os._exit(1)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(STREAMS, MOST_FILES)
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    open_streams(is_unbuffered=bool(os.environ.get("PYTHONUNBUFFERED")))
    show_command([sys.executable, *request["command"]])
    gc.enable()


def open_streams(is_unbuffered: bool) -> None:
    """Open `sys.stdin`, `sys.stdout` and `sys.stderr` as Python's start does."""
    sys.stdin = open_stream(0, sys.stdin, is_unbuffered)
    sys.__stdin__ = sys.stdin  # type: ignore[misc]
    sys.stdout = open_stream(1, sys.stdout, is_unbuffered)
    sys.__stdout__ = sys.stdout  # type: ignore[misc]
    sys.stderr = open_stream(2, sys.stderr, is_unbuffered, lines=True)
    sys.__stderr__ = sys.stderr  # type: ignore[misc]


def open_stream(number: int, old: Any, is_unbuffered: bool = False, lines: bool = False) -> Any:
    """Return a text stream of descriptor `number` with the encoding of `old`.

    `lines`: flush it after each line even if it is no terminal.
    """
    buffer: Any = io.FileIO(number, "wb" if number else "rb", closefd=False)
    buffer.name = old.name
    is_terminal = buffer.isatty()
    if not number:
        buffer = io.BufferedReader(buffer)
    elif not is_unbuffered:
        buffer = io.BufferedWriter(buffer)
    text: Any = io.TextIOWrapper(
        buffer,
        old.encoding,
        old.errors,
        newline="\n" if number else None,
        line_buffering=not is_unbuffered and (lines or is_terminal),
        write_through=is_unbuffered,
    )
    text.mode = old.mode
    return text


def show_command(words: Sequence[str]) -> None:
    """Write the command over this process's arguments, where `ps` reads them."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])  # arg_start and arg_end, see proc(5)
    text = b"\0".join(map(os.fsencode, words))[: end - start - 1]
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, text, len(text))


def run(command: Sequence[str]) -> None:
    """Run what `python command...` runs: a script, `-m module` or `-c code`."""
    sys.orig_argv = [sys.executable, *command]
    first, *rest = command
    importlib.invalidate_caches()
    if first == "-m":
        sys.argv = rest
        search_first(str(Path.cwd()))
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        return
    sys.modules["__main__"] = module = types.ModuleType("__main__")
    if first == "-c":
        sys.argv = ["-c", *rest[1:]]
        search_first("")
        code = compile(rest[0], "<string>", "exec")
    else:
        path = Path(first).absolute()
        sys.argv = list(command)
        search_first(str(path.resolve().parent))
        module.__file__ = str(path)
        code = compile(path.read_bytes(), path, "exec")
    exec(code, module.__dict__)


def search_first(directory: str) -> None:
    """Search modules in a directory and in PYTHONPATH, before all others."""
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:1] = [directory, *paths]


if __name__ == "__main__":
    main()
