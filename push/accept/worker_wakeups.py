"""Wakes the workers after a commit, without making callers wait for the broker.

A push is accepted when its transaction is committed. A thread then enqueues a task for each
partition of the push. Pushes that are committed while the thread is busy, or while the broker is
unavailable, share one task for each partition. If a process dies before it has enqueued its tasks,
a node's sweep fans the messages out.
"""

import atexit
import logging
import os
import threading
import time
from collections.abc import Iterable

from kombu import pools

from imgo_site.deployment import has_workers
from imgo_site.forks import leave_to_parent, renew_after_fork
from imgo_site.logs import request_id
from push.tasks import enqueue, fan_out

logger = logging.getLogger(__name__)

PAUSE = 0.003  # seconds between two rounds, in which pushes gather for the next tasks
RETRY_INTERVAL = 1.0  # seconds until a failed broker is tried again
EXIT_TIMEOUT = 2.0  # seconds that a process that ends waits for tasks to be enqueued


class Waker:
    """The thread of a process that enqueues tasks; started on first use."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Reset the state. In a forked child, the thread and its tasks are the parent's."""
        self._condition = threading.Condition()
        self._waiting: dict[int, str] = {}  # partition → id of the first request that woke it
        self._is_busy = False
        self._pid = 0
        self._thread: threading.Thread | None = None

    def wake(self, partitions: Iterable[int]) -> None:
        """Enqueue a task for each partition, soon and on the thread. Without workers, drain now."""
        if not has_workers():
            for partition in sorted(partitions):
                fan_out.apply((partition,))
            return
        with self._condition:
            if self._pid != os.getpid():  # the first time, or the first after a fork
                self._pid, self._thread = os.getpid(), None
                atexit.register(self.flush)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="imgo-waker", daemon=True)
                self._thread.start()
            request = request_id()
            for partition in partitions:
                self._waiting.setdefault(partition, request)
            self._condition.notify_all()

    def flush(self, timeout: float = EXIT_TIMEOUT) -> bool:
        """Wait until all tasks are enqueued; return False after `timeout` seconds."""
        with self._condition:
            return self._condition.wait_for(
                lambda: not self._waiting and not self._is_busy, timeout
            )

    def _run(self) -> None:
        while True:
            with self._condition:
                self._is_busy = False
                self._condition.notify_all()
                self._condition.wait_for(lambda: self._waiting)
                todo, self._waiting = self._waiting, {}
                self._is_busy = True
            left = enqueue(todo)
            with self._condition:
                self._waiting = left | self._waiting
            time.sleep(RETRY_INTERVAL if left else PAUSE)


def _renew() -> None:
    """Reset the waker in a forked child, and leave the broker's connections to the parent.

    Celery and kombu do that only after a fork of multiprocessing, not of `gunicorn --preload`.
    """
    waker.renew()
    for group in (pools.connections, pools.producers):
        leave_to_parent(*group.values())
        group.clear()
    fan_out.app._after_fork()  # type: ignore[attr-defined]  # not in its stubs


wake = (waker := Waker()).wake
renew_after_fork(_renew)
