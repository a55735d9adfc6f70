"""The Celery tasks of pushing, which carry no messages: they wake whoever can send them."""

import logging
from typing import Any

from celery.signals import worker_init, worker_shutting_down
from django.db import Error as DatabaseError

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

REQUEST_HEADER = "imgo_request_id"  # of a task: the first of the requests that asked for it
PARTITION_MAX = 2**31 - 1  # the width of its column


def queue_of(partition: int) -> str:
    """The name of a partition's queue."""
    return f"imgo.push.{partition}"


@worker_init.connect
def end_in_time(sender: Any, **_: Any) -> None:
    """Have a worker of ours end within the time of `Shutdown`, whatever its task waits for.

    A worker of the project's own application ends as the project wants.
    """
    if sender.app is app:
        worker_shutting_down.connect(_begin_shutdown)


def _begin_shutdown(**_: Any) -> None:
    # Its supervisor needs some time of its own after it.
    Shutdown("the worker").begin("it was told to", margin=5.0)


# Not shared: it would be a task of the project's application too.
@app.task(shared=False, name="push.fan_out")
def fan_out(partition: int) -> None:
    """Send what a partition's outbox holds. Raises `ValueError` for what is no partition.

    What cannot be sent now is left to the next wake, or to a node's sweep. Celery's own retries
    are of no use here: they need the broker, which is away when the layer is.
    """
    number = int(partition)  # whatever the broker brings
    if not 0 <= number <= PARTITION_MAX:
        raise ValueError(f"{partition!r} is not a partition")
    asked = request_id() or getattr(fan_out.request, REQUEST_HEADER, None) or ""
    with logs.within(sane_request_id(asked) if asked else ""):
        _drain_or_leave(number)


def _drain_or_leave(partition: int) -> None:
    for is_last in (False, True):
        try:
            drain(partition)
        except (Unavailable, DatabaseError, Busy) as error:
            # The first time it may be a connection that was closed while nobody looked.
            if is_last:
                logger.warning("partition %d is left to a node's sweep: %s", partition, error)
        else:
            return


@app.task(shared=False, name="push.canary")
def canary(partition: int) -> None:
    """Say that somebody takes tasks from this partition's queue."""
    try:
        Canary.objects.heard(partition)
    except DatabaseError as error:
        logger.warning("a canary of partition %d could not be noted: %s", partition, error)
