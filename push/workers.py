"""Keeps one Celery worker a partition running: starts them, and starts them again.

A worker that dies is replaced. So is one that lives but takes no tasks, which happens to Celery
when its connection to Redis was lost at the wrong moment (celery#8030, #9054): the canary tells.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType

from django.db import Error as DatabaseError
from django.db import connection

from imgo_site.conf import conf
from push import vitals
from push.tasks import queue_of
from push.worker_metrics import WorkerMetrics

logger = logging.getLogger(__name__)

TICK = 0.5  # seconds between looks at the processes
BACKOFF = (1.0, 30.0)  # seconds until one that ended is started again: the first time, the most
HEALTHY_AFTER = 60.0  # seconds after which a start counts as a success; deaf ones get as long
STOP_TIMEOUT = 10.0  # seconds that a deaf worker gets to end in order


class Worker:
    """The process of one partition."""

    def __init__(
        self, partition: int, log_level: str, metrics: WorkerMetrics | None = None
    ) -> None:
        self.partition = partition
        self._metrics = metrics
        self._environment = {**os.environ, **(metrics.environment() if metrics else {})}
        name = f"imgo{partition}-{time.time_ns():x}@%h"
        self._command = [sys.executable, "-m", "celery", "-A", "imgo_site", "worker"]
        self._command += ["-Q", queue_of(partition), "-n", name, "-l", log_level]
        self._command += ["--concurrency", "1", "--without-gossip", "--without-mingle"]
        self._process: subprocess.Popen[bytes] | None = None
        self.started = 0.0
        self._wait = BACKOFF[0]
        self._not_before = 0.0

    def look(self, now: float) -> None:
        """Start it unless it runs; after a failure, a little later each time."""
        if self._process is not None and (status := self._process.poll()) is not None:
            if now - self.started > HEALTHY_AFTER:
                self._wait = BACKOFF[0]
            self._not_before = now + self._wait
            self._wait = min(self._wait * 2, BACKOFF[1])
            logger.error("the worker of partition %d ended with %d", self.partition, status)
            if self._metrics is not None:
                self._metrics.ended(self._process.pid)
            self._process = None
        if self._process is None and now >= self._not_before:
            # In a session of its own: a Ctrl-C is for us, who tell it to finish its task.
            self._process = subprocess.Popen(  # noqa: S603
                self._command, env=self._environment, start_new_session=True
            )
            self.started = now

    def replace(self) -> None:
        """End it, in order or not; the next look starts it again."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self.started = time.monotonic()  # it gets its time anew

    def ask_to_stop(self) -> None:
        """Have it finish its task and end."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def wait(self) -> None:
        """Until it has ended."""
        if self._process is not None:
            self._process.wait()


class Supervisor:
    """Runs the workers of some partitions until it is told to stop.

    Raises OSError when `WORKER_METRICS_PORT` cannot be listened on.
    """

    def __init__(self, partitions: Sequence[int], log_level: str) -> None:
        self._metrics = WorkerMetrics() if conf.WORKER_METRICS_PORT else None
        self._workers = [Worker(one, log_level, self._metrics) for one in partitions]
        self._is_over = threading.Event()

    def run(self) -> None:
        """Return when all workers have ended after a SIGTERM or SIGINT. For the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        if self._metrics is not None:
            self._metrics.start()
        next_check = 0.0
        while not self._is_over.wait(TICK):
            now = time.monotonic()
            for worker in self._workers:
                worker.look(now)
            if now >= next_check:
                next_check = now + conf.CANARY_INTERVAL
                self._replace_deaf(now)
        for worker in self._workers:
            worker.ask_to_stop()
        for worker in self._workers:
            worker.wait()
        if self._metrics is not None:
            self._metrics.stop()

    def _stop(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._is_over.set()

    def _replace_deaf(self, now: float) -> None:
        try:
            deaf = vitals.deaf_workers()
        except DatabaseError as error:
            logger.warning("whether workers are deaf is not known: %s", error)
            return
        finally:
            connection.close()
        for worker in self._workers:
            if worker.partition in deaf and now - worker.started > HEALTHY_AFTER:
                logger.error("partition %d: the worker is deaf, it is replaced", worker.partition)
                worker.replace()
