"""The Celery application: `celery -A imgo_site worker`, or `manage.py workers`."""

import os
import warnings
from typing import Any

from celery import Celery
from celery.exceptions import CPendingDeprecationWarning
from celery.signals import worker_ready
from kombu import Queue

from imgo_site import collector

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "imgo_site.settings")

app = Celery("imgo")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@worker_ready.connect
def calm_collector(**_: Any) -> None:
    """A worker has all that it will have."""
    collector.calm()


@worker_ready.connect
def keep_tasks(**_: Any) -> None:
    """Say nothing of what Celery asks whenever a connection was lost: what becomes of its tasks.

    They go on: run twice they do no harm, and in a thread they cannot be ended.
    """
    # Not before: Celery, as it sets logging up, has all of these shown.
    warnings.filterwarnings("ignore", category=CPendingDeprecationWarning, module="celery.worker")


@app.on_after_configure.connect
def declare_queues(sender: Celery, **_: Any) -> None:
    """One queue a partition: a worker that is told of none takes tasks from all of them."""
    from imgo_site.conf import conf

    sender.conf.task_queues = [Queue(f"imgo.push.{n}") for n in range(conf.PARTITIONS)]
