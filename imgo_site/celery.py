"""The Celery application of imgo's own tasks: `celery -A imgo_site worker`, or `manage.py workers`.

It is configured here, not by Django settings named `CELERY_*`. Those belong to the project, for its
own application and tasks. The setting `IMGO_CELERY` overrides options of this application.
"""

import os
import sys
import warnings
from typing import Any

from celery import Celery
from celery.exceptions import CPendingDeprecationWarning
from celery.signals import celeryd_init, import_modules, worker_ready
from kombu import Queue

from imgo_site import garbage_collection, redis_sentinel
from imgo_site.redis_sentinel import Broker

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "imgo_site.settings")

POOLS = ("threads", "solo", "prefork")  # gevent and eventlet block in the database's driver


@import_modules.connect
def refuse_settings(sender: Any = None, **_: Any) -> None:
    """Exit if a worker starts with settings that `manage.py imgo` would refuse.

    Connected before the application is made, so it runs before Celery sets Django up itself.
    """
    if sender is app and _is_our_command():
        from imgo_site.start_checks import exit_if_refused

        exit_if_refused()


# Not the current application: the project's `shared_task`s must use the project's application.
app = Celery("imgo", set_as_current=False)
app.autodiscover_tasks(["push"])


def options() -> dict[str, Any]:
    """Return Celery's options, by their names in Celery."""
    from django.conf import settings

    from imgo_site.conf import conf
    from imgo_site.deployment import broker_url

    options = dict(getattr(settings, "IMGO_CELERY", {}))
    broker = _broker_options(broker_url(), options.pop("broker_transport_options", {}))
    return broker | _task_options(conf.PARTITIONS) | _worker_options() | options


def _broker_options(url: str, transport: dict[str, Any]) -> dict[str, Any]:
    """`url`: the broker's, "" for none. `transport`: the project's own transport options."""
    broker, own, tls = _broker(url)
    return {
        # Read and write URLs: Celery prefers the environment's CELERY_BROKER_URL to broker_url.
        "broker_read_url": broker or "memory://",
        "broker_write_url": broker or "memory://",
        "broker_transport_options": _transport_options(broker) | own | transport,
        **({"broker_use_ssl": tls} if tls is not None else {}),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,  # no limit; by default a worker stops after 100
        # Retry while Redis is full or read-only, as while it is unavailable.
        "broker_channel_error_retry": True,
        "task_always_eager": not broker,
    }


def _task_options(partitions: int) -> dict[str, Any]:
    return {
        # One queue a partition. A worker without an option for queues consumes all of them.
        "task_queues": [Queue(f"imgo.push.{n}") for n in range(partitions)],
        "task_default_queue": "imgo.push.0",
        "task_ignore_result": True,
        # A task is acknowledged after it has run, so the task of a dead worker runs again. Tasks
        # may run twice, because a task only signals that a partition has work.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        # Few retries: no caller waits for the broker, and the waker retries by itself.
        "task_publish_retry_policy": {
            "max_retries": 1,
            "interval_start": 0.1,
            "interval_max": 0.2,
        },
    }


def _worker_options() -> dict[str, Any]:
    return {
        # One reserved task at a time: the others stay in the broker for other workers. In a
        # thread: a round trip to a child process took 5 of the 12 ms of a fan-out.
        "worker_prefetch_multiplier": 1,
        "worker_concurrency": 1,
        "worker_pool": "threads",
        "worker_consumer": "imgo_site.celery_consumer:Consumer",
        "worker_hijack_root_logger": False,
        # Own exchanges, so that commands to the project's workers, such as shutdown, do not
        # reach these.
        "control_exchange": "imgo.pidbox",
        "event_exchange": "imgo.events",
    }


def _broker(url: str) -> Broker:
    return redis_sentinel.broker(url) if redis_sentinel.is_sentinel(url) else Broker(url, {}, None)


def _transport_options(broker: str) -> dict[str, Any]:
    transport: dict[str, Any] = {"socket_connect_timeout": 2, "socket_timeout": 10}  # seconds
    if broker.startswith(("redis", "sentinel")):
        transport |= {
            # Tasks of a killed worker are restored after 20 s, with a check every 5 s. The
            # defaults are an hour and 100 s.
            "visibility_timeout": 20,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            # The checking worker holds a lock. If it dies, or Redis stalls, no worker checks for
            # this time.
            "unacked_mutex_expire": 20,  # seconds, by default 300
            # Own keys, or this would restore tasks of other applications that use this Redis.
            "unacked_key": "imgo.unacked",
            "unacked_index_key": "imgo.unacked_index",
            "unacked_mutex_key": "imgo.unacked_mutex",
        }
    return transport


def _configure() -> dict[str, Any]:
    """Return the options; exit if they are invalid and imgo's own worker command runs.

    Celery's command reads the options before it sends any signal.
    """
    try:
        return options()
    except Exception as error:
        if _is_our_command():
            from imgo_site.setup_errors import describe

            sys.exit(f"Wrong settings: {describe(error)}")
        raise


def _is_our_command() -> bool:
    """Return whether this is `celery -A imgo_site ...`, not the command of a project's own."""
    from celery.bin.base import CLIContext, click  # type: ignore[attr-defined]  # not in its stubs

    context = click.get_current_context(silent=True)
    command: Any = context and context.find_object(CLIContext)
    return command is not None and command.app is app


app.add_defaults(_configure)


@celeryd_init.connect
def refuse_pool(instance: Any = None, options: Any = None, **_: Any) -> None:
    """Exit if a worker starts with a pool that the tasks cannot run in."""
    if getattr(instance, "app", None) is not app:
        return
    pool = (options or {}).get("pool_cls") or app.conf.worker_pool
    name = pool if isinstance(pool, str) else getattr(pool, "__module__", "").rpartition(".")[2]
    if name not in {*POOLS, "thread", "processes"}:
        sys.exit(f"imgo's workers do not work with the pool {name}: use {', '.join(POOLS)}.")


@worker_ready.connect
def freeze_collected(sender: Any = None, **_: Any) -> None:
    """Exclude the loaded objects of a worker from garbage collection."""
    if _is_ours(sender):
        garbage_collection.freeze()


@worker_ready.connect
def limit_database(sender: Any = None, **_: Any) -> None:
    """Limit the database statements of a worker to `DATABASE_TIMEOUT`."""
    if _is_ours(sender):
        from imgo_site.postgres.limits import limit_statements

        limit_statements()


@worker_ready.connect
def silence_running_tasks_warning(sender: Any = None, **_: Any) -> None:
    """Suppress Celery's warning about running tasks after a lost connection.

    The tasks continue: they may run twice, and a task in a thread cannot be ended.
    """
    if _is_ours(sender):
        # Not earlier: Celery enables all these warnings when it sets logging up.
        warnings.filterwarnings(
            "ignore", category=CPendingDeprecationWarning, module="celery.worker"
        )


def _is_ours(sender: Any) -> bool:
    """Return whether `sender` is a worker of this application, not one of the project's."""
    return getattr(sender, "app", None) is app
