"""Metrics of the database pool.

A process cannot read the pools of other processes. Where processes share their metrics, each
one records its own pool when a request or a task ends. A node also does so each second, because
its loaders use the pool outside requests.
"""

import time
from typing import Any

from celery.signals import task_postrun
from django.core.signals import request_finished
from django.db import connection

from push.metrics import definitions as metrics
from push.metrics import exposition

UPDATE_EVERY = 1.0  # seconds

_last: dict[str, float] = {}  # the pool's own counters when they were last read
_updated_at = 0.0  # monotonic seconds


def update() -> None:
    """Update this process's metrics of its pool; without a pool there are none."""
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
    """Return the growth of a pool counter since the last call; a new pool begins at 0."""
    now, before = stats.get(name, 0), _last.get(name, 0)
    _last[name] = now
    return now - before if now >= before else now


def update_if_due(**_: Any) -> None:
    """Update the metrics for the process that is scraped, at most once in `UPDATE_EVERY` seconds.

    Does nothing unless processes share their metrics.
    """
    global _updated_at  # noqa: PLW0603 - one pool a process
    now = time.monotonic()
    if exposition.is_shared() and now - _updated_at >= UPDATE_EVERY:
        _updated_at = now
        update()


request_finished.connect(update_if_due)
task_postrun.connect(update_if_due)
