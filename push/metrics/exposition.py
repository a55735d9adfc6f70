"""Prometheus's text format of this process's metrics, or of all processes that share a directory.

Processes behind one port share a directory (`PROMETHEUS_MULTIPROC_DIR`, `share`). The process
that is scraped reports the sums over all of them.
"""

import os
from collections.abc import Iterator
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from push.metrics.definitions import CLUSTER_REGISTRY

CONTENT_TYPE = CONTENT_TYPE_LATEST

_directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR", "")


def share(directory: str) -> None:
    """Report the sums over the processes that write into this directory.

    `directory`: its path; "" to report only this process's metrics.
    """
    global _directory  # noqa: PLW0603 - one a process
    _directory = directory


def is_shared() -> bool:
    """Return whether another process may report this process's metrics."""
    return bool(_directory)


class SharedCollector(Collector):
    """Collector of the sums over the processes that share a directory."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics in their files, except those that the scraped process computes."""
        computed = {metric.name for metric in CLUSTER_REGISTRY.collect()}
        collector: Any = MultiProcessCollector(None, self._directory)  # type: ignore[no-untyped-call]
        for metric in collector.collect():
            if metric.name not in computed:
                yield metric


def text() -> bytes:
    """Return all metrics in Prometheus's text format."""
    registry = REGISTRY
    if _directory:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(SharedCollector(_directory))
    return generate_latest(registry) + generate_latest(CLUSTER_REGISTRY)
