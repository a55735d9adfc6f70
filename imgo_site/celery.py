"""The Celery application of imgo's own tasks: `celery -A imgo_site worker`, or `manage.py workers`.

It is configured here, and not by Django settings named `CELERY_*`: those are the project's, for its
own application and tasks. `IMGO_CELERY` of the settings changes one of these options.
"""

import os
import sys
import warnings
from typing import Any

from celery import Celery
from celery.exceptions import CPendingDeprecationWarning
from celery.signals import celeryd_init, worker_ready
from kombu import Queue

from imgo_site import collector

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "imgo_site.settings")

POOLS = ("threads", "solo", "prefork")  # gevent and eventlet block in the database's driver

# Not the current application: `shared_task`s of the project are the project's.
app = Celery("imgo", set_as_current=False)
app.autodiscover_tasks(["push"])


def options() -> dict[str, Any]:
    """Return Celery's options, by their names in Celery."""
    from django.conf import settings

    from imgo_site.conf import conf
    from imgo_site.deployment import broker_url

    broker = broker_url()
    given = dict(getattr(settings, "IMGO_CELERY", {}))
    transport = _transport_options(broker) | given.pop("broker_transport_options", {})
    return {
        # For both ways: Celery would prefer CELERY_BROKER_URL of the environment to broker_url.
        "broker_read_url": broker or "memory://",
        "broker_write_url": broker or "memory://",
        "broker_transport_options": transport,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,  # for ever; by default a worker stops after 100
        # A Redis that is full or read-only is waited for as one that is away is.
        "broker_channel_error_retry": True,
        "task_always_eager": not broker,
        # One queue a partition: a worker that is told of none takes tasks from all of them.
        "task_queues": [Queue(f"imgo.push.{n}") for n in range(conf.PARTITIONS)],
        "task_default_queue": "imgo.push.0",
        "task_ignore_result": True,
        # A task is acknowledged when it has run, so that one whose worker died runs again. It may
        # run twice: it only says that there is something to do.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        # Nobody waits for the broker: the waker tries again by itself.
        "task_publish_retry_policy": {
            "max_retries": 1,
            "interval_start": 0.1,
            "interval_max": 0.2,
        },
        # One task in hand at a time: what waits stays in the broker, for any other worker. In a
        # thread: the way into a child process and back takes longer than a fan-out (5 of 12 ms).
        "worker_prefetch_multiplier": 1,
        "worker_concurrency": 1,
        "worker_pool": "threads",
        "worker_consumer": "imgo_site.consumer:Consumer",
        "worker_hijack_root_logger": False,
        # Commands to the project's workers, such as shutdown, are not for these.
        "control_exchange": "imgo.pidbox",
        "event_exchange": "imgo.events",
    } | given


def _transport_options(broker: str) -> dict[str, Any]:
    found: dict[str, Any] = {"socket_connect_timeout": 2, "socket_timeout": 10}  # seconds
    if broker.startswith(("redis", "sentinel")):
        found |= {
            # What a killed worker had in hand is given to another after 20 s, looked for every
            # 5 s; by default that is after an hour, every 100 s.
            "visibility_timeout": 20,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            # Whoever looks holds a lock: if it died, or Redis stalled, nobody looks for as long.
            "unacked_mutex_expire": 20,  # seconds, by default 300
            # Or it would give away tasks of other applications that use this Redis.
            "unacked_key": "imgo.unacked",
            "unacked_index_key": "imgo.unacked_index",
            "unacked_mutex_key": "imgo.unacked_mutex",
        }
    return found


def _configure() -> dict[str, Any]:
    """Return the options; exit if they cannot be read and this is the command of a worker.

    Celery's command reads them before any of its signals.
    """
    from django.core.exceptions import ImproperlyConfigured

    try:
        return options()
    except ImproperlyConfigured as error:
        if _is_our_command():
            sys.exit(f"Wrong settings: {error}")
        raise


def _is_our_command() -> bool:
    """Whether `celery -A imgo_site ...` is what runs, and not the command of a project's own."""
    from celery.bin.base import CLIContext, click  # type: ignore[attr-defined]  # not in its stubs

    context = click.get_current_context(silent=True)
    command: Any = context and context.find_object(CLIContext)
    return command is not None and command.app is app


app.add_defaults(_configure)


@celeryd_init.connect
def refuse_settings(instance: Any = None, **_: Any) -> None:
    """Exit when a worker is started with settings that `manage.py imgo` does not start with."""
    if getattr(instance, "app", None) is app:
        from imgo_site.start_checks import exit_if_refused

        exit_if_refused()


@celeryd_init.connect
def refuse_pool(instance: Any = None, options: Any = None, **_: Any) -> None:
    """Exit when a worker is started with a pool that the tasks cannot run in."""
    if getattr(instance, "app", None) is not app:
        return
    pool = (options or {}).get("pool_cls") or app.conf.worker_pool
    name = pool if isinstance(pool, str) else getattr(pool, "__module__", "").rpartition(".")[2]
    if name not in {*POOLS, "thread", "processes"}:
        sys.exit(f"imgo's workers do not work with the pool {name}: use {', '.join(POOLS)}.")


@worker_ready.connect
def calm_collector(sender: Any = None, **_: Any) -> None:
    """A worker has all that it will have."""
    if _is_ours(sender):
        collector.calm()


@worker_ready.connect
def limit_database(sender: Any = None, **_: Any) -> None:
    """Bound a worker's waits for the database."""
    if _is_ours(sender):
        from imgo_site.postgres.limits import limit_statements

        limit_statements()


@worker_ready.connect
def keep_tasks(sender: Any = None, **_: Any) -> None:
    """Say nothing of what Celery asks whenever a connection was lost: what becomes of its tasks.

    They go on: run twice they do no harm, and in a thread they cannot be ended.
    """
    if _is_ours(sender):
        # Not before: Celery, as it sets logging up, has all of these shown.
        warnings.filterwarnings(
            "ignore", category=CPendingDeprecationWarning, module="celery.worker"
        )


def _is_ours(sender: Any) -> bool:
    """Whether it is a worker of this application, and not one of the project's."""
    return getattr(sender, "app", None) is app
