"""The database pool in the metrics.

Where processes share their metrics, whoever is scraped cannot look into the pools of the others:
each notes its own when a request or a task of it ends, and a node each second, for its loaders.
"""

import time
from typing import Any

from celery.signals import task_postrun
from django.core.signals import request_finished
from django.db import connection

from push.metrics import definitions as metrics
from push.metrics import exposition

NOTE_EVERY = 1.0  # seconds

_last: dict[str, float] = {}  # what the pool's own counters said
_noted = 0.0  # monotonic seconds


def note() -> None:
    """Bring this process's metrics of its pool up to date; without a pool there are none."""
    if connection.vendor != "postgresql":
        return
    pool = connection.pool  # type: ignore[attr-defined]  # Postgres has one
    if pool is None:
        return
    stats: dict[str, int] = pool.get_stats()
    idle = stats.get("pool_available", 0)
    metrics.POOL_CONNECTIONS.labels("idle").set(idle)
    metrics.POOL_CONNECTIONS.labels("used").set(stats.get("pool_size", 0) - idle)
    metrics.POOL_MAX.set(stats.get("pool_max", 0))
    metrics.POOL_WAITING.set(stats.get("requests_waiting", 0))
    metrics.POOL_WAIT_SECONDS.inc(_growth("requests_wait_ms", stats) / 1000)
    metrics.POOL_TIMEOUTS.inc(_growth("requests_errors", stats))


def _growth(name: str, stats: dict[str, int]) -> float:
    """How much a counter of the pool has grown since the last look; a new pool begins at 0."""
    now, before = stats.get(name, 0), _last.get(name, 0)
    _last[name] = now
    return now - before if now >= before else now


def update_if_due(**_: Any) -> None:
    """For whoever is scraped instead of this process; call it as often as you like."""
    global _noted  # noqa: PLW0603 - one pool a process
    now = time.monotonic()
    if exposition.is_shared() and now - _noted >= NOTE_EVERY:
        _noted = now
        note()


request_finished.connect(update_if_due)
task_postrun.connect(update_if_due)
