"""Celery tasks of pushing. They carry no messages; they wake a worker that reads the outbox."""

import logging
from collections.abc import Mapping
from typing import Any

from celery.signals import worker_init, worker_shutting_down
from django.db import Error as DatabaseError
from kombu.exceptions import OperationalError as BrokerError

from imgo_site import logs
from imgo_site.celery import app
from imgo_site.errors import Unavailable
from imgo_site.logs import request_id, sane_request_id
from imgo_site.shutdown import Shutdown
from offline.outbox_queue import Busy
from push.fanout import drain
from push.metrics import worker_endpoint  # noqa: F401 - it connects a signal of workers
from push.models import Canary

logger = logging.getLogger(__name__)

REQUEST_HEADER = "imgo_request_id"  # header of a task: the first request that caused it
PARTITION_MAX = 2**31 - 1  # the limit of the column's type


def queue_of(partition: int) -> str:
    """Return the name of a partition's queue."""
    return f"imgo.push.{partition}"


def partition_of_queue(name: str) -> int | None:
    """Return the partition of a queue; None for another queue."""
    number = name.removeprefix("imgo.push.")
    return int(number) if number != name and number.isdecimal() else None


@worker_init.connect
def end_in_time(sender: Any, **_: Any) -> None:
    """Limit the shutdown of a worker to the time of `Shutdown`, even if its task is blocked.

    Workers of the project's own Celery application are not changed.
    """
    if sender.app is app:
        worker_shutting_down.connect(_begin_shutdown)


def _begin_shutdown(**_: Any) -> None:
    # The margin is for the supervisor, which ends after its workers.
    Shutdown("the worker").begin("it was told to", margin=5.0)


# Not shared: a shared task would also be a task of the project's application.
@app.task(shared=False, name="push.fan_out")
def fan_out(partition: int) -> None:
    """Send all messages of a partition's outbox. Raises `ValueError` for an invalid partition.

    Messages that cannot be sent now are sent after the next wake-up, or by a node's sweep. Celery's
    retries would not help: they need the broker, which is unavailable when the layer is.
    """
    number = int(partition)  # the broker may deliver any value
    if not 0 <= number <= PARTITION_MAX:
        raise ValueError(f"{partition!r} is not a partition")
    request = request_id() or getattr(fan_out.request, REQUEST_HEADER, None) or ""
    with logs.within(sane_request_id(request) if request else ""):
        _drain_or_leave(number)


def enqueue(requests: Mapping[int, str]) -> dict[int, str]:
    """Enqueue `fan_out` for each partition; return those for which that failed.

    `requests`: by partition, the id of the request that caused it, "" for none.
    """
    left = dict(requests)
    try:
        for partition, request in sorted(requests.items()):
            headers = {REQUEST_HEADER: request} if request else {}
            fan_out.apply_async((partition,), queue=queue_of(partition), headers=headers)
            del left[partition]
    except (BrokerError, OSError, AttributeError) as error:
        # kombu raises AttributeError for a channel whose connection was lost between two steps.
        logger.warning("the workers cannot be woken, a node's sweep sends: %s", error)
    except Exception:
        logger.exception("the workers cannot be woken, a node's sweep sends")
    return left


def _drain_or_leave(partition: int) -> None:
    for is_last in (False, True):
        try:
            drain(partition)
        except (Unavailable, DatabaseError, Busy) as error:
            # The first failure may be a connection that was closed while it was idle.
            if is_last:
                logger.warning("partition %d is left to a node's sweep: %s", partition, error)
        else:
            return


@app.task(shared=False, name="push.canary")
def canary(partition: int) -> None:
    """Record that a worker takes tasks from this partition's queue."""
    try:
        Canary.objects.heard(partition)
    except DatabaseError as error:
        logger.warning("could not record the canary of partition %d: %s", partition, error)
