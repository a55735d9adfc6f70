"""Fork server of the tests: starts Python programs of ours without importing their libraries anew.

Importing third-party libraries is most of what a short program costs. `start` and `run` let one
helper process, which has imported them, fork a child that becomes the program. The child is a child
of this process. A program is started plainly, by a Python of its own, if its environment or this
process's has `TESTS_PLAIN_START=1`, if its environment has a variable that the libraries or Python
itself read at their start, or if this is not Linux.

A forked program differs from a plain one in two ways: Django hashes passwords with one iteration,
and Python's shutdown does not clear the modules of the libraries.
"""

import atexit
import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from tests.services import LAUNCHER

PLAIN_START = "TESTS_PLAIN_START"  # environment variable that turns the fork server off
PROGRAM = Path(__file__).with_name("fork_server_program.py")
LENGTH = struct.Struct("!I")  # bytes of the JSON text that follows
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
COMMAND_LENGTH = 2000  # bytes of a command that `ps` shows
# What Python, the dynamic loader and C libraries read at their start.
READ_AT_START = ("PYTHON", "LD_", "LC_", "LANG", "GLIBC_", "MALLOC_", "OPENSSL_")
# Celery reads it for pictures in a terminal only.
IGNORED = frozenset({"TERM"})
# What a child reads itself.
APPLIED = frozenset({"PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "PYTHONUNBUFFERED"})


class Program(Protocol):
    """A started program, as `subprocess.Popen` has it."""

    returncode: int | Any

    @property
    def pid(self) -> int:
        """The process id."""

    def poll(self) -> int | None:
        """Return the exit status, None while the program runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status when the program has ended."""

    def send_signal(self, sig: int) -> None:
        """Send a signal unless the program has ended."""

    def kill(self) -> None:
        """Kill the program unless it has ended."""


class Forked:
    """A program that the fork server started: a child of this process.

    `returncode`: as that of `subprocess.Popen`, negative if a signal ended the program.
    """

    def __init__(self, pid: int, command: Sequence[str]) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._command = command
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """Return the exit status, None while the program runs."""
        with self._lock:
            if self.returncode is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status when the program has ended.

        Raises subprocess.TimeoutExpired after `timeout` seconds.
        """
        if self.poll() is None:
            self._wait_for_end(timeout)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired(self._command, timeout or 0)
        return status

    def _wait_for_end(self, timeout: float | None) -> None:
        with contextlib.suppress(ProcessLookupError):  # another thread has polled meanwhile
            file = os.pidfd_open(self.pid)
            try:
                poll = select.poll()
                poll.register(file, select.POLLIN)
                poll.poll(None if timeout is None else timeout * 1000)  # ms
            finally:
                os.close(file)

    def send_signal(self, sig: int) -> None:
        """Send a signal unless the program has ended."""
        if self.poll() is None:
            os.kill(self.pid, sig)

    def kill(self) -> None:
        """Kill the program unless it has ended."""
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """The helper process. It ends when this process does, for any reason."""

    def __init__(self) -> None:
        self.is_stopped = False
        self._owner = os.getpid()
        self._lock = threading.Lock()
        # Without what a child applies itself, and without any setting of ours.
        kept = ("PATH", "HOME", "VIRTUAL_ENV")
        self._environment = {
            name: value
            for name, value in os.environ.items()
            if name in kept or (name.startswith(READ_AT_START) and name not in APPLIED)
        }
        self._socket, theirs = socket.socketpair()
        number = str(theirs.fileno())
        self._process = subprocess.Popen(
            [sys.executable, PROGRAM, number, str(self._owner), "-" * COMMAND_LENGTH],
            stdin=subprocess.DEVNULL,
            env=self._environment,
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # a Ctrl-C in the terminal must end only the tests
        )
        theirs.close()
        self._read_at_import = frozenset(self._receive())

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def differences(self, environment: Mapping[str, str]) -> set[str]:
        """Return the names of variables with which a plain start might import something else."""
        names = {*environment, *self._environment}
        names = {name for name in names if name.startswith(READ_AT_START)} | self._read_at_import
        names -= APPLIED | IGNORED
        return {name for name in names if environment.get(name) != self._environment.get(name)}

    def start(
        self,
        command: Sequence[str],
        directory: Path,
        environment: Mapping[str, str],
        streams: Sequence[int],
        orphan_signal: signal.Signals,
    ) -> Forked:
        """Start a program with the descriptors `streams`.

        Raises OSError or EOFError if the server has ended.
        """
        request = {
            "command": command,
            "directory": str(directory),
            "environment": dict(environment),
            "orphan_signal": int(orphan_signal),
        }
        data = json.dumps(request).encode()
        with self._lock, _adopting():
            socket.send_fds(self._socket, [LENGTH.pack(len(data))], streams)
            self._socket.sendall(data)
            return Forked(self._receive(), command)

    def stop(self) -> None:
        """End the helper process; programs that it has started go on. It may be called again."""
        if os.getpid() != self._owner:  # a forked child that ends through atexit
            return
        self.is_stopped = True
        self._socket.close()
        self._process.kill()
        self._process.wait()

    def _receive(self) -> Any:
        return json.loads(self._read(*LENGTH.unpack(self._read(LENGTH.size))))

    def _read(self, length: int) -> bytes:
        data = self._socket.recv(length, socket.MSG_WAITALL)
        if len(data) < length:
            raise EOFError("The fork server has ended.")
        return data


def start(
    command: Sequence[str],
    directory: Path,
    environment: Mapping[str, str],
    *,
    stdin: int | IO[Any] = subprocess.DEVNULL,
    stdout: int | IO[Any],
    stderr: int | IO[Any],
    orphan_signal: signal.Signals = signal.SIGTERM,
) -> Program:
    """Start `python command...` in a session of its own.

    `stdin`, `stdout`, `stderr`: open files, or subprocess.DEVNULL.

    The kernel sends it `orphan_signal` when this process ends for any reason; for a plain start,
    when the calling thread does.
    """
    if not _may_fork(command, environment):
        words = (os.getpid(), -1, -1, int(orphan_signal))
        orphan = ("-I", "-S", "-c", LAUNCHER, *map(str, words))
        return subprocess.Popen(
            [sys.executable, *orphan, sys.executable, *command],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=directory,
            env=environment,
            start_new_session=True,  # a Ctrl-C in the terminal must end only the tests
        )
    with contextlib.ExitStack() as stack:
        streams = [_descriptor(stream, stack) for stream in (stdin, stdout, stderr)]
        current = server()
        try:
            return current.start(command, directory, environment, streams, orphan_signal)
        except BaseException:  # its answer may still come: nobody could tell whose that is
            current.stop()
            raise


def run(
    command: Sequence[str],
    directory: Path,
    environment: Mapping[str, str],
    *,
    stdin: str = "",
    timeout: float,
) -> subprocess.CompletedProcess[str]:
    """Run `python command...` to its end; return its status and output.

    Raises subprocess.TimeoutExpired after `timeout` seconds; the program is killed then.
    """
    with contextlib.ExitStack() as stack:
        source, out, error = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(3))
        source.write(stdin.encode())
        source.seek(0)
        program = start(command, directory, environment, stdin=source, stdout=out, stderr=error)
        try:
            status = program.wait(timeout)
        finally:
            program.kill()
            program.wait()
        texts = [_content(file) for file in (out, error)]
        return subprocess.CompletedProcess(list(command), status, *texts)


_servers: list[ForkServer] = []  # the last is the current one
_servers_lock = threading.Lock()


def server() -> ForkServer:
    """Return the fork server of this process. Start one if there is none, or if it was stopped."""
    with _servers_lock:
        if not _servers or _servers[-1].is_stopped:
            _servers.append(ForkServer())
            atexit.register(_servers[-1].stop)
        return _servers[-1]


def _may_fork(command: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Return whether a forked program would be as a plain one. Options of Python need a start."""
    if command[0].startswith("-") and command[0] not in ("-m", "-c"):
        return False
    is_plain = os.environ.get(PLAIN_START) or environment.get(PLAIN_START)
    return sys.platform == "linux" and not is_plain and not server().differences(environment)


@contextlib.contextmanager
def _adopting() -> Iterator[None]:
    """While the context is open, orphans among the descendants become children of this process."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _descriptor(stream: int | IO[Any], stack: contextlib.ExitStack) -> int:
    if stream == subprocess.DEVNULL:
        return stack.enter_context(Path(os.devnull).open("r+b", buffering=0)).fileno()
    return stream if isinstance(stream, int) else stream.fileno()


def _content(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()
