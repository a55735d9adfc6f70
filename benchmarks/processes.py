"""Server processes of ours: started with a log, watched by pid, and always stopped."""

import atexit
import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import proc
from tests.services import LAUNCHER

ROOT = Path(__file__).resolve().parent.parent
UP_TIMEOUT = 60.0  # seconds
DOWN_TIMEOUT = 10.0  # seconds for an orderly end, then it is killed
LOG_TAIL = 2000  # bytes of a log that an error shows
# Between the ports that the tests choose from and those that the kernel gives to clients.
PORTS = range(30_000, 32_768)


class StartError(RuntimeError):
    """A server did not come up; says why."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    while True:
        port = secrets.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Process:
    """One server, with whatever processes it starts itself.

    The kernel ends it when this process dies; call `stop` before. Start it in the main thread.
    """

    def __init__(
        self, title: str, command: list[str], log: Path, env: dict[str, str], *, piped: bool = False
    ) -> None:
        self.title = title
        self.log = log
        launch = [sys.executable, "-I", "-S", "-c", LAUNCHER]
        arguments = [str(os.getpid()), "-1", "-1", str(int(signal.SIGTERM))]
        with log.open("ab") as output:
            self.popen = subprocess.Popen(
                [*launch, *arguments, sys.executable, *command],
                stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else output,
                stderr=output,
                cwd=ROOT,
                env=env,
                start_new_session=True,  # a Ctrl-C is for us: we stop it in order
            )
        self.pid = self.popen.pid
        atexit.register(self.stop)

    def wait_until(self, is_up: Callable[[], bool]) -> None:
        """Return when it is up. Raises `StartError`, with the end of its log, when it ends."""
        deadline = time.monotonic() + UP_TIMEOUT
        while not is_up():
            if self.popen.poll() is not None or time.monotonic() > deadline:
                self.stop()
                tail = self.log.read_bytes()[-LOG_TAIL:].decode(errors="replace")
                raise StartError(f"{self.title} did not start.\n{tail}")
            time.sleep(0.05)

    def has_logged(self, text: str) -> bool:
        """Whether its log has `text`."""
        return text.encode() in self.log.read_bytes()

    def cpu(self) -> float:
        """CPU seconds so far, its descendants' included."""
        return proc.tree_cpu(self.pid)

    def memory(self) -> dict[str, int]:
        """Bytes, see `proc.memory`; of this process alone."""
        return proc.memory(self.pid)

    def stop(self) -> None:
        """End it and what it started. Does nothing when it has ended."""
        atexit.unregister(self.stop)
        if self.popen.poll() is not None:
            return
        pids = proc.tree(self.pid)
        self.popen.send_signal(signal.SIGTERM)
        try:
            self.popen.wait(DOWN_TIMEOUT)
        except subprocess.TimeoutExpired:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.popen.wait()
        for pipe in (self.popen.stdin, self.popen.stdout):
            if pipe is not None:
                pipe.close()

    def kill(self) -> None:
        """End it and what it started at once."""
        atexit.unregister(self.stop)
        for pid in proc.tree(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.popen.wait()


def accepts(host: str, port: int) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True
