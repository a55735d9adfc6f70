"""The list of imgo's live processes, with their start times and counters.

Every process writes an entry into the registry, renews it, and removes it at an orderly end. An
entry that is not renewed expires. A node renews its entry in a round. API processes and workers
have a thread for it.
"""

import logging
import os
import socket
import threading
import time
from contextlib import suppress
from typing import Any

import msgspec
from celery.signals import worker_ready
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_started
from django.dispatch import receiver

from imgo_site.celery import app
from imgo_site.deployment import redis_url
from imgo_site.errors import Unavailable
from imgo_site.process_parts import process
from push.metrics import definitions as metrics
from push.registry.base import ProcessEntry, Registry, Tally
from push.registry.select import get_registry

logger = logging.getLogger(__name__)

RENEW_EVERY = 5.0  # seconds
WITHDRAW_TIMEOUT = 1.0  # seconds that a process that ends waits for a renewal under way


def tally() -> Tally:
    """Return the counters of this process since its start."""
    return Tally(
        drops=_sum(metrics.DROPS),
        refusals=_sum(metrics.REFUSED) + _sum(metrics.REQUESTS_REFUSED),
        client_closes=_sum(metrics.CLOSED, reason="client"),
        server_closes=_sum(metrics.CLOSED) - _sum(metrics.CLOSED, reason="client"),
    )


def _sum(counter: Any, **labels: str) -> int:
    """Return the sum of those series of a counter that have these labels."""
    samples = (sample for metric in counter.collect() for sample in metric.samples)
    return int(
        sum(
            sample.value
            for sample in samples
            if sample.name.endswith("_total") and labels.items() <= sample.labels.items()
        )
    )


def announce(entry: ProcessEntry, registry: Registry) -> None:
    """Write a process's entry with its present counters. Raises `Unavailable`."""
    registry.announce_process(msgspec.structs.replace(entry, tally=tally()))


class Announcer:
    """Thread that renews the entry of a process other than a node, until the process ends."""

    def __init__(self) -> None:
        self._entry: ProcessEntry | None = None
        self._is_failing = False
        self._has_ended = threading.Event()
        self._writing = threading.Lock()
        self._registry = get_registry()  # made before this, so it is closed after this

    def start(self, kind: str, name: str = "", partitions: tuple[int, ...] = ()) -> None:
        """Start renewing an entry, or replace the present one. Do nothing without Redis.

        `kind`: as in `ProcessEntry`.
        `name`: "" for host and pid.
        `partitions`: those whose tasks a worker takes.
        """
        if not redis_url():
            return
        host, pid = socket.gethostname(), os.getpid()
        entry = ProcessEntry(
            id=f"{host}:{pid}",
            kind=kind,
            name=name or f"{host}, pid {pid}",
            since=time.time(),
            partitions=partitions,
        )
        is_new, self._entry = self._entry is None, entry
        if is_new:
            threading.Thread(target=self._run, name="imgo-announcer", daemon=True).start()

    def start_if_new(self, kind: str) -> None:
        """Start renewing an entry unless the process has one already."""
        if self._entry is None:
            self.start(kind)

    def close(self) -> None:
        """End the renewals and remove the entry; if the last renewal failed, let it expire."""
        self._has_ended.set()
        if self._entry is None or self._is_failing:
            return
        # A renewal under way would write the entry again.
        if self._writing.acquire(timeout=WITHDRAW_TIMEOUT):
            with suppress(Unavailable):  # it expires
                self._registry.withdraw_process(self._entry.id)
            self._writing.release()

    def _run(self) -> None:
        while not self._has_ended.is_set():
            with self._writing:
                if not self._has_ended.is_set():
                    self._renew()
            self._has_ended.wait(RENEW_EVERY)

    def _renew(self) -> None:
        assert self._entry is not None
        try:
            announce(self._entry, self._registry)
        except Unavailable as error:
            if not self._is_failing:
                logger.warning("could not list this process in the dashboard: %s", error.message)
            self._is_failing = True
        else:
            self._is_failing = False


def announcer() -> Announcer:
    """Return the announcer of this process."""
    return process.get(Announcer)


@receiver(request_started)
def _announce_api(sender: Any = None, **_: Any) -> None:
    """Announce a WSGI server at its first request. A node is an ASGI server."""
    if isinstance(sender, type) and issubclass(sender, WSGIHandler):
        announcer().start_if_new("api")


@worker_ready.connect
def _announce_worker(sender: Any = None, **_: Any) -> None:
    """Announce a worker of imgo's Celery application, not one of the project's own."""
    if getattr(sender, "app", None) is not app:
        return
    from push.tasks import partition_of_queue

    numbers = map(partition_of_queue, app.amqp.queues.consume_from)
    partitions = tuple(sorted(n for n in numbers if n is not None))
    announcer().start("worker", str(sender.hostname), partitions)
