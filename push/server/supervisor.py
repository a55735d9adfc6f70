"""Supervisor of processes: starts them, restarts those that end, and stops all in order."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from types import FrameType

from imgo_site.conf import conf
from imgo_site.shutdown import SUPERVISED
from push.metrics.shared_directory import SharedMetrics

logger = logging.getLogger(__name__)

TICK = 0.5  # seconds between checks of the processes
BACKOFF = (1.0, 30.0)  # seconds until an ended process is restarted: the first pause, the longest
HEALTHY_AFTER = 60.0  # seconds after which a start counts as a success
STOP_TIMEOUT = 10.0  # seconds that a replaced process gets to end in order
STOP_GRACE = 8.5  # seconds beyond DRAIN_SECONDS until children that do not end are killed
STOP_TICK = 0.05  # seconds between checks of children that must end
NEVER = float("inf")

# Run as `python -c LAUNCHER supervisor_pid command...`. The program becomes the command, and the
# kernel sends it SIGTERM when the supervisor dies, even if that is killed. It is a program of its
# own because subprocess's preexec_fn is not safe in a process with threads, such as the metrics'.
# The kernel sends the signal when the child's parent thread ends. Another living thread of the
# process then becomes the parent. So if all threads are killed together, the child gets the signal
# several times.
LAUNCHER = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1  # linux/prctl.h
if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0):
    print("prctl:", os.strerror(ctypes.get_errno()), file=sys.stderr)
if os.getppid() != int(sys.argv[1]):
    sys.exit("Whoever started this has ended.")
os.execvp(sys.argv[2], sys.argv[2:])
"""


def _with_us(command: Sequence[str]) -> list[str]:
    """Return a command whose process gets SIGTERM when this process dies; only on Linux.

    The kernel watches the thread that starts the process. Start it from a thread that lasts.
    """
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", LAUNCHER, str(os.getpid()), *command]


class Child:
    """One process that must always run.

    `name`: its name in the log.
    `environment`: None for that of this process.
    `shared`: the directory of its metrics; None if it has none.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        shared: SharedMetrics | None = None,
    ) -> None:
        self.name = name
        self._command = list(command)
        self._environment = {
            **(os.environ if environment is None else environment),
            **(shared.environment() if shared else {}),
            SUPERVISED: "1",
        }
        self._shared = shared
        self._process: subprocess.Popen[bytes] | None = None
        self.started = 0.0
        self._wait = BACKOFF[0]
        self._not_before = 0.0
        self._is_replaced = False
        self._kill_at = NEVER
        self.is_retired = False  # it is not started again

    def check(self, now: float) -> None:
        """Start the process if it does not run and its pause is over; kill it if it must end.

        `now`: monotonic seconds. The pause grows with each failure. Never blocks.
        """
        if self._process is not None and (status := self._process.poll()) is not None:
            self._ended(status, now)
        if self._process is None:
            if now >= self._not_before and not self.is_retired:
                self._start(now)
        elif now >= self._kill_at:
            logger.error("%s does not end, it is killed", self.name)
            self._kill_at = NEVER
            self._process.kill()

    def _ended(self, status: int, now: float) -> None:
        assert self._process is not None
        if self._is_replaced or self.is_retired:
            self._not_before = now
        else:
            if now - self.started > HEALTHY_AFTER:
                self._wait = BACKOFF[0]
            self._not_before = now + self._wait
            logger.error(
                "%s ended with %d, it is started again in %g s", self.name, status, self._wait
            )
            self._wait = min(self._wait * 2, BACKOFF[1])
        if self._shared is not None:
            self._shared.ended(self._process.pid)
        self._process, self._is_replaced, self._kill_at = None, False, NEVER

    def _start(self, now: float) -> None:
        # In a session of its own, so that only the supervisor gets a Ctrl-C and stops it in order.
        self._process = subprocess.Popen(  # noqa: S603
            _with_us(self._command), env=self._environment, start_new_session=True
        )
        self.started = now

    def replace(self, now: float) -> None:
        """Stop the process, after `STOP_TIMEOUT` seconds by force; `check` starts it again."""
        self.started = now  # it counts as newly started
        if self.is_running and not self._is_replaced:
            self._is_replaced, self._kill_at = True, now + STOP_TIMEOUT
            self.ask_to_stop()

    def retire(self, now: float) -> None:
        """Stop the process, after `STOP_TIMEOUT` seconds by force, for good."""
        if not self.is_retired:
            self.is_retired, self._kill_at = True, now + STOP_TIMEOUT
            self.ask_to_stop()

    @property
    def is_running(self) -> bool:
        """Whether the process was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def ask_to_stop(self) -> None:
        """Send SIGTERM: the process must finish its work and end."""
        if self._process is not None and self.is_running:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the process if it runs."""
        if self._process is not None and self.is_running:
            logger.error("%s did not end in time, it is killed", self.name)
            self._process.kill()


class Supervisor:
    """Supervisor of some children, until a signal stops it."""

    stop_grace = STOP_GRACE

    def __init__(self, children: Sequence[Child]) -> None:
        self.children = children
        self._is_over = threading.Event()
        self._is_urgent = False

    def run(self) -> None:
        """Run the children; after a SIGTERM or SIGINT, return when all have ended.

        Children that have not ended `DRAIN_SECONDS` + `stop_grace` seconds later, or at a second
        signal, are killed. Call this in the main thread.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        while True:
            now = time.monotonic()
            for child in self.children:
                child.check(now)
            self.on_tick(now)
            if self._is_over.wait(TICK):
                break
        self._end_children()

    def _end_children(self) -> None:
        deadline = time.monotonic() + conf.DRAIN_SECONDS + self.stop_grace
        for child in self.children:
            child.ask_to_stop()
        while any(child.is_running for child in self.children):
            if time.monotonic() > deadline or self._is_urgent:
                for child in self.children:
                    child.kill()
            time.sleep(STOP_TICK)

    def on_tick(self, now: float) -> None:
        """Do nothing; a subclass adds its work for each round. `now`: monotonic seconds."""

    def _stop(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._is_urgent = self._is_over.is_set()
        self._is_over.set()
