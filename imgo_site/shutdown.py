"""Shutdown of a process: one deadline for the whole shutdown, then a hard end.

An orderly shutdown waits for services and peers. Even if some of them do not answer, the process
ends within `DRAIN_SECONDS` + `GRACE` seconds. A second signal ends it at once, except a second
SIGTERM in a process that has a supervisor.
"""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import NoReturn

from imgo_site.conf import conf

logger = logging.getLogger(__name__)

GRACE = 10.0  # seconds beyond DRAIN_SECONDS within which every process must end
MARGIN = 2.0  # seconds of GRACE that are reserved for the hard end, and for a supervisor's
SIGNALS = (signal.SIGTERM, signal.SIGINT)
LEAVE_TIMEOUT = 3.0  # seconds for busy threads after everything else has ended
LAST_WORDS = 0.5  # seconds to write the last log line
NOT_IN_ORDER = 1  # exit status of a hard end
SUPERVISED = "PUSH_SUPERVISED"  # environment variable: "1" in the children of a supervisor


class Shutdown:
    """The shutdown of this process.

    `what`: the name of the process for log lines.
    `deadline`: time of the hard end, monotonic seconds; 0 before the shutdown begins.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        # Taken once and never released. A lock, because acquiring it is one step: a signal may
        # arrive between any two steps of the handler of another signal.
        self._begun = threading.Lock()
        self._began = 0.0
        self.deadline = 0.0

    @property
    def has_begun(self) -> bool:
        """Return whether the shutdown has begun."""
        return self.deadline > 0

    def begin(self, why: str, margin: float | None = None) -> bool:
        """Begin the shutdown: at its deadline the process ends, even with busy threads.

        Return whether this call began it. Further calls do nothing.

        `why`: the reason for the log.
        `margin`: seconds of `GRACE` that remain after the deadline; None means `MARGIN`.
        """
        if not self._begun.acquire(blocking=False):
            return False
        seconds = conf.DRAIN_SECONDS + GRACE - (MARGIN if margin is None else margin)
        self._began = time.monotonic()
        self.deadline = self._began + seconds
        logger.info("%s stops: %s", self._what, why)
        timer = threading.Timer(seconds, self._end_late, [seconds])
        timer.daemon = True
        timer.name = "imgo-shutdown"
        timer.start()
        return True

    def left(self) -> float:
        """Return the seconds until the hard end, at least 0.0."""
        return max(0.0, self.deadline - time.monotonic())

    def taken(self) -> float:
        """Return the seconds since the shutdown began."""
        return time.monotonic() - self._began

    def on_signals(self, stop: Callable[[], None]) -> None:
        """Call `stop()` at the first SIGTERM or SIGINT, and end at once at the second.

        Call this in the main thread. `stop` runs in the signal handler.

        In a child of a supervisor, further SIGTERMs do nothing. If the supervisor is killed, the
        kernel sends its children one SIGTERM for each thread that the supervisor had. A supervisor
        that cannot wait uses SIGKILL.
        """
        is_supervised = os.environ.get(SUPERVISED) == "1"

        def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
            name = signal.Signals(number).name
            if self.begin(name):
                stop()
            elif not (is_supervised and number == signal.SIGTERM):
                self.end_now(f"a second signal ({name})", 128 + number)

        for number in SIGNALS:
            signal.signal(number, handle)

    def leave(self, status: int) -> None:
        """End the process with `status` after `LEAVE_TIMEOUT` seconds, if it has not ended by then.

        Call this when the orderly shutdown is complete. Otherwise the interpreter would wait for
        busy threads without a limit.
        """
        timer = threading.Timer(LEAVE_TIMEOUT, self._leave_behind, [status])
        timer.daemon = True
        timer.name = "imgo-leave"
        timer.start()

    def _leave_behind(self, status: int) -> None:
        self.end_now(f"what it left behind is {', '.join(_busy())}", status)

    def _end_late(self, seconds: float) -> None:
        self.end_now(f"the shutdown is not over after {seconds:g} s", NOT_IN_ORDER)

    def end_now(self, why: str, status: int) -> NoReturn:
        """End the process at once, with a log line and without any cleanup."""
        # In a thread of its own: the write blocks if the reader of the log has stopped reading.
        logging_thread = threading.Thread(target=self._log_end, args=[why], daemon=True)
        logging_thread.start()
        logging_thread.join(LAST_WORDS)
        os._exit(status)

    def _log_end(self, why: str) -> None:
        logger.error("%s ends without waiting any longer: %s", self._what, why)
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # closed
                stream.flush()


def _busy() -> list[str]:
    """Return name and code position of each thread that the interpreter waits for."""
    frames = sys._current_frames()
    texts = []
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        if not thread.daemon and frame is not None:
            code = frame.f_code
            texts.append(
                f"{thread.name} in {code.co_qualname} ({code.co_filename}:{frame.f_lineno})"
            )
    return texts
