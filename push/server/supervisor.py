"""Keeps processes running: starts them, starts those again that end, and ends all in order."""

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

TICK = 0.5  # seconds between looks at the processes
BACKOFF = (1.0, 30.0)  # seconds until one that ended is started again: the first time, the most
HEALTHY_AFTER = 60.0  # seconds after which a start counts as a success
STOP_TIMEOUT = 10.0  # seconds that one that is replaced gets to end in order
STOP_GRACE = 8.5  # seconds beyond DRAIN_SECONDS until children that do not end are killed
STOP_TICK = 0.05  # seconds between looks at children that are to end
NEVER = float("inf")

# Run as `python -c LAUNCHER our_pid command...`, it becomes the command, and the kernel tells that
# to stop when we die, however that happens. A program of its own, because subprocess's preexec_fn
# is not safe in a process that has threads, such as those of the metrics. The kernel sends the
# signal when the child's parent thread ends, and makes another living thread of the process the
# parent: when all threads are killed together, the child gets the signal several times.
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
    """A command whose process is told to stop when this one is killed; on Linux alone.

    The kernel means the thread: start it from the one that lasts.
    """
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", LAUNCHER, str(os.getpid()), *command]


class Child:
    """One process that is to run always. `name`: as the log calls it. `shared`: if it counts."""

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

    def look(self, now: float) -> None:
        """Start it unless it runs; after a failure, a little later each time. Never waits."""
        if self._process is not None and (status := self._process.poll()) is not None:
            self._ended(status, now)
        if self._process is None:
            if now >= self._not_before:
                self._start(now)
        elif now >= self._kill_at:
            logger.error("%s does not end, it is killed", self.name)
            self._kill_at = NEVER
            self._process.kill()

    def _ended(self, status: int, now: float) -> None:
        assert self._process is not None
        if self._is_replaced:
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
        # In a session of its own: a Ctrl-C is for us, who tell it to end in order.
        self._process = subprocess.Popen(  # noqa: S603
            _with_us(self._command), env=self._environment, start_new_session=True
        )
        self.started = now

    def replace(self, now: float) -> None:
        """End it, in order or `STOP_TIMEOUT` seconds later by force; `look` starts it again."""
        self.started = now  # it gets its time anew
        if self.is_running and not self._is_replaced:
            self._is_replaced, self._kill_at = True, now + STOP_TIMEOUT
            self.ask_to_stop()

    @property
    def is_running(self) -> bool:
        """Whether the process was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def ask_to_stop(self) -> None:
        """Tell it to finish what it is at, and to end."""
        if self._process is not None and self.is_running:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, if it runs."""
        if self._process is not None and self.is_running:
            logger.error("%s did not end in time, it is killed", self.name)
            self._process.kill()


class Supervisor:
    """Runs children until it is told to stop."""

    stop_grace = STOP_GRACE

    def __init__(self, children: Sequence[Child]) -> None:
        self.children = children
        self._is_over = threading.Event()
        self._is_urgent = False

    def run(self) -> None:
        """Return when all children have ended after a SIGTERM or SIGINT. For the main thread.

        Children that have not ended `DRAIN_SECONDS` + `stop_grace` seconds later, or at a second
        signal, are killed.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        while True:
            now = time.monotonic()
            for child in self.children:
                child.look(now)
            self.look_further(now)
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

    def look_further(self, now: float) -> None:
        """What else there is to do in a round, at `now` (monotonic seconds)."""

    def _stop(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._is_urgent = self._is_over.is_set()
        self._is_over.set()
