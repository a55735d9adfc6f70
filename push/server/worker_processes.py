"""Supervisor of Celery workers, one for each partition.

A worker that dies is replaced. So is a deaf worker, which is alive but takes no tasks. That happens
to Celery if its connection to Redis is lost at the wrong moment (celery#8030, #9054). Canary tasks
detect it.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Sequence

from django.db import Error as DatabaseError
from django.db import connection

from imgo_site.conf import conf
from imgo_site.database_threads import use_own_connection
from push.metrics.shared_directory import SharedMetrics
from push.metrics.worker_endpoint import WorkerMetrics
from push.node.process_list import announcer
from push.server import supervisor
from push.status import vitals
from push.tasks import queue_of

logger = logging.getLogger(__name__)


class Worker(supervisor.Child):
    """Worker process of one partition."""

    def __init__(self, partition: int, log_level: str, shared: SharedMetrics | None = None) -> None:
        self.partition = partition
        name = f"imgo{partition}-{time.time_ns():x}@%h"
        command = [sys.executable, "-m", "celery", "-A", "imgo_site"]
        command += ["--quiet", "worker"]  # without a banner for each partition
        command += ["-Q", queue_of(partition), "-n", name, "-l", log_level]
        command += ["--concurrency", "1"]
        # The supervisor has the port, and serves the worker's metrics.
        environment = {**os.environ, "IMGO_WORKER_METRICS_PORT": "0"}
        super().__init__(f"the worker of partition {partition}", command, environment, shared)


class DeafnessQuery:
    """Query for deaf workers, on a thread of its own, one at a time.

    The supervisor must continue while the database does not answer.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._found: list[int] = []

    def begin(self) -> None:
        """Start a query, unless the previous one is still under way."""
        if self._thread is not None and self._thread.is_alive():
            logger.warning("could not check whether workers take tasks: the database is silent")
            return
        self._thread = threading.Thread(target=self._query, name="imgo-deafness", daemon=True)
        self._thread.start()

    def take(self) -> list[int]:
        """Return the partitions of deaf workers, once for each query; [] without a new result."""
        ended, self._found = self._found, []
        return ended

    def _query(self) -> None:
        use_own_connection()
        try:
            self._found = vitals.deaf_workers()
        except DatabaseError as error:
            logger.warning("could not check whether workers take tasks: %s", error)
        finally:
            connection.close()


class Supervisor(supervisor.Supervisor):
    """Supervisor of the workers of some partitions.

    Raises `OSError` if `WORKER_METRICS_PORT` cannot be listened on.
    """

    stop_grace = 6.0  # seconds: a worker ends itself one second earlier

    def __init__(self, partitions: Sequence[int], log_level: str) -> None:
        self._metrics = WorkerMetrics() if conf.WORKER_METRICS_PORT else None
        shared = self._metrics.shared if self._metrics else None
        self._workers = [Worker(partition, log_level, shared) for partition in partitions]
        super().__init__(self._workers)
        self._next_check = 0.0  # monotonic seconds
        self._deafness = DeafnessQuery()

    def run(self) -> None:
        """Run the workers; after a SIGTERM or SIGINT, return when all have ended.

        Call this in the main thread.
        """
        announcer().start(
            "supervisor", partitions=tuple(worker.partition for worker in self._workers)
        )
        if self._metrics is not None:
            self._metrics.start()
        super().run()
        if self._metrics is not None:
            self._metrics.stop()

    def on_tick(self, now: float) -> None:
        """Replace deaf workers. `now`: monotonic seconds."""
        if now >= self._next_check:
            self._next_check = now + conf.CANARY_INTERVAL
            self._deafness.begin()
        deaf = self._deafness.take()
        for worker in self._workers:
            young = now - worker.started <= supervisor.HEALTHY_AFTER
            if worker.partition in deaf and not young:
                logger.error(
                    "partition %d: the worker takes no tasks, replacing it", worker.partition
                )
                worker.replace(now)
