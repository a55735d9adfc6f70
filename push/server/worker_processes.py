"""Supervisor of Celery workers, one for each partition.

A worker that dies is replaced. So is a deaf worker, which is alive but takes no tasks. That happens
to Celery if its connection to Redis is lost at the wrong moment (celery#8030, #9054). Canary tasks
detect it. When the number of partitions changes, workers are added or ended.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from django.db import Error as DatabaseError
from django.db import connection

from imgo_site.conf import conf
from imgo_site.database_threads import use_own_connection
from offline.partitions import queues_needed
from push.metrics.shared_directory import SharedMetrics
from push.metrics.worker_endpoint import WorkerMetrics
from push.node.process_list import announcer
from push.server import supervisor
from push.status import vitals
from push.tasks import queue_of

logger = logging.getLogger(__name__)

QUERY_EVERY = 2.0  # seconds


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


class Needs(NamedTuple):
    """Number of partitions that need a worker, and those whose worker is deaf."""

    partitions: int
    deaf: list[int]


class NeedsQuery:
    """Query for what the workers need, on a thread of its own, one at a time.

    The supervisor must continue while the database does not answer.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._found: Needs | None = None
        self._is_silent = False

    def begin(self) -> None:
        """Start a query, unless the previous one is still under way."""
        if self._thread is not None and self._thread.is_alive():
            if not self._is_silent:
                logger.warning("could not check whether workers take tasks: the database is silent")
            self._is_silent = True
            return
        self._is_silent = False
        self._thread = threading.Thread(target=self._query, name="imgo-needs", daemon=True)
        self._thread.start()

    def take(self) -> Needs | None:
        """Return the result of a query, once; None without a new one."""
        found, self._found = self._found, None
        return found

    def _query(self) -> None:
        use_own_connection()
        try:
            self._found = Needs(queues_needed(), vitals.deaf_workers())
        except DatabaseError as error:
            logger.warning("could not check whether workers take tasks: %s", error)
        finally:
            connection.close()


class Supervisor(supervisor.Supervisor):
    """Supervisor of the workers of some partitions.

    `partitions`: those that have a worker here. `follows`: whether workers are added and ended when
    the number of partitions changes.

    Raises `OSError` if `WORKER_METRICS_PORT` cannot be listened on.
    """

    stop_grace = 6.0  # seconds: a worker ends itself one second earlier

    def __init__(self, partitions: Sequence[int], log_level: str, *, follows: bool = False) -> None:
        self._metrics = WorkerMetrics() if conf.WORKER_METRICS_PORT else None
        self._log_level = log_level
        self._workers = {partition: self._make(partition) for partition in partitions}
        self._follows = follows
        super().__init__(list(self._workers.values()))
        self._next_query = 0.0  # monotonic seconds
        self._query = NeedsQuery()

    def _make(self, partition: int) -> Worker:
        return Worker(partition, self._log_level, self._metrics.shared if self._metrics else None)

    def run(self) -> None:
        """Run the workers; after a SIGTERM or SIGINT, return when all have ended.

        Call this in the main thread.
        """
        self._announce()
        if self._metrics is not None:
            self._metrics.start()
        super().run()
        if self._metrics is not None:
            self._metrics.stop()

    def _announce(self) -> None:
        announcer().start("supervisor", partitions=tuple(self._workers))

    def on_tick(self, now: float) -> None:
        """Replace deaf workers, and follow the number of partitions. `now`: monotonic seconds."""
        if now >= self._next_query:
            self._next_query = now + min(QUERY_EVERY, conf.CANARY_INTERVAL)
            self._query.begin()
        needs = self._query.take()
        if needs is None:
            return
        if self._follows:
            self._follow(needs.partitions, now)
        for partition in needs.deaf:
            worker = self._workers.get(partition)
            if worker is None or now - worker.started <= supervisor.HEALTHY_AFTER:
                continue
            logger.error("partition %d: the worker takes no tasks, replacing it", partition)
            worker.replace(now)

    def _follow(self, count: int, now: float) -> None:
        """Have a worker for each of the first `count` partitions, and for no others."""
        if self._workers.keys() == set(range(count)):
            return
        logger.info("workers for %d partitions from now on", count)
        for partition in [n for n in self._workers if n >= count]:
            self._workers.pop(partition).retire(now)
        for partition in range(count):
            if partition not in self._workers:
                self._workers[partition] = self._make(partition)
        ending = [child for child in self.children if child.is_retired and child.is_running]
        self.children = [*ending, *self._workers.values()]
        self._announce()
