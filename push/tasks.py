"""The Celery tasks of pushing, which carry no messages: they wake whoever can send them."""

from celery import shared_task
from django.db import Error as DatabaseError

from imgo_site import logs
from imgo_site.errors import Unavailable
from imgo_site.logs import request_id, sane_request_id
from offline.outbox import Busy
from push.fanout import drain
from push.models import Canary

REQUEST_HEADER = "imgo_request_id"  # of a task: the first of the requests that asked for it
PARTITION_MAX = 2**31 - 1  # the width of its column


def queue_of(partition: int) -> str:
    """The name of a partition's queue."""
    return f"imgo.push.{partition}"


# A task that fails for good costs seconds: a node's sweep drains what is left.
@shared_task(
    name="push.fan_out",
    autoretry_for=(Unavailable, DatabaseError, Busy),
    max_retries=3,
    retry_backoff=1,
    retry_backoff_max=10,
)
def fan_out(partition: int) -> None:
    """Send what a partition's outbox holds. Raises `ValueError` for what is no partition."""
    number = int(partition)  # whatever the broker brings
    if not 0 <= number <= PARTITION_MAX:
        raise ValueError(f"{partition!r} is not a partition")
    asked = request_id() or getattr(fan_out.request, REQUEST_HEADER, None) or ""
    with logs.within(sane_request_id(asked) if asked else ""):
        drain(number)


@shared_task(name="push.canary")
def canary(partition: int) -> None:
    """Say that somebody takes tasks from this partition's queue."""
    Canary.objects.heard(partition)
