"""Prometheus's text format of this process's metrics, or of all processes that share a directory.

Processes behind one port share a directory (`PROMETHEUS_MULTIPROC_DIR`, `share`): whichever of
them is scraped answers with the sums over all.
"""

import os
from collections.abc import Iterator
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from push.metrics.definitions import ASKED

CONTENT_TYPE = CONTENT_TYPE_LATEST

_directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR", "")


def share(directory: str) -> None:
    """Show what the processes that write into this directory have counted, instead of our own."""
    global _directory  # noqa: PLW0603 - one a process
    _directory = directory


def is_shared() -> bool:
    """Whether others may answer for this process."""
    return bool(_directory)


class SharedCollector(Collector):
    """The sums of what the processes that share a directory have counted."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def collect(self) -> Iterator[Metric]:
        """All that is in their files, but for what whoever is asked finds out itself."""
        asked = {metric.name for metric in ASKED.collect()}
        together: Any = MultiProcessCollector(None, self._directory)  # type: ignore[no-untyped-call]
        for metric in together.collect():
            if metric.name not in asked:
                yield metric


def text() -> bytes:
    """Return all metrics in Prometheus's text format."""
    counted = REGISTRY
    if _directory:
        counted = CollectorRegistry(auto_describe=False)
        counted.register(SharedCollector(_directory))
    return generate_latest(counted) + generate_latest(ASKED)
