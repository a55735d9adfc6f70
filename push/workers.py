"""Keeps one Celery worker a partition running.

A worker that dies is replaced. So is one that lives but takes no tasks, which happens to Celery
when its connection to Redis was lost at the wrong moment (celery#8030, #9054): the canary tells.
"""

import logging
import os
import sys
import time
from collections.abc import Sequence

from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection

from imgo_site.conf import conf
from push import supervisor, vitals
from push.shared_metrics import SharedMetrics
from push.tasks import queue_of
from push.worker_metrics import WorkerMetrics

logger = logging.getLogger(__name__)


class Worker(supervisor.Child):
    """The process of one partition."""

    def __init__(self, partition: int, log_level: str, shared: SharedMetrics | None = None) -> None:
        self.partition = partition
        name = f"imgo{partition}-{time.time_ns():x}@%h"
        command = [sys.executable, "-m", "celery", "-A", "imgo_site"]
        # Its banner is no line for whoever reads lines.
        is_json = getattr(settings, "LOG_FORMAT", "") == "json"
        command += ["--quiet", "worker"] if is_json else ["worker"]
        command += ["-Q", queue_of(partition), "-n", name, "-l", log_level]
        command += ["--concurrency", "1"]
        # The port is its supervisor's, who answers for it.
        environment = {**os.environ, "IMGO_WORKER_METRICS_PORT": "0"}
        super().__init__(f"the worker of partition {partition}", command, environment, shared)


class Supervisor(supervisor.Supervisor):
    """Runs the workers of some partitions until it is told to stop.

    Raises OSError when `WORKER_METRICS_PORT` cannot be listened on.
    """

    def __init__(self, partitions: Sequence[int], log_level: str) -> None:
        self._metrics = WorkerMetrics() if conf.WORKER_METRICS_PORT else None
        shared = self._metrics.shared if self._metrics else None
        self._workers = [Worker(one, log_level, shared) for one in partitions]
        super().__init__(self._workers)
        self._next_check = 0.0  # monotonic seconds

    def run(self) -> None:
        """Return when all workers have ended after a SIGTERM or SIGINT. For the main thread."""
        if self._metrics is not None:
            self._metrics.start()
        super().run()
        if self._metrics is not None:
            self._metrics.stop()

    def look_further(self, now: float) -> None:
        """Replace those that take no tasks."""
        if now >= self._next_check:
            self._next_check = now + conf.CANARY_INTERVAL
            self._replace_deaf(now)

    def _replace_deaf(self, now: float) -> None:
        try:
            deaf = vitals.deaf_workers()
        except DatabaseError as error:
            logger.warning("whether workers are deaf is not known: %s", error)
            return
        finally:
            connection.close()
        for worker in self._workers:
            young = now - worker.started <= supervisor.HEALTHY_AFTER
            if worker.partition in deaf and not young:
                logger.error("partition %d: the worker is deaf, it is replaced", worker.partition)
                worker.replace()
